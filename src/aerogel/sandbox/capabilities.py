"""Linux capabilities by name, as bit sets. Standard library only: part of the helper.

Spec: capabilities(7); the OCI runtime specification names the same sets.
"""

from __future__ import annotations

from collections.abc import Iterable

from aerogel.errors import AerogelError
from aerogel.sandbox import syscalls

__all__ = ["NAMES", "drop", "effective", "mask_of"]

NAMES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
"""Index is the capability's number."""

_PR_CAP_AMBIENT_CLEAR_ALL = 4
_EINVAL = 22


def mask_of(names: Iterable[str]) -> int:
    """The bit set of capability names, with or without `CAP_`, any case. Raises `sandbox.unknown-capability`."""
    mask = 0
    for name in names:
        short = name.upper().removeprefix("CAP_")
        if short == "ALL":
            mask |= (1 << len(NAMES)) - 1
        elif short in NAMES:
            mask |= 1 << NAMES.index(short)
        else:
            raise AerogelError(
                f"there is no capability `{name}`",
                code="sandbox.unknown-capability",
                hints=["capabilities(7) lists them"],
            )
    return mask


def effective(status: str = "/proc/self/status") -> int:
    """The effective set of a process."""
    with open(status, "rb") as file:
        for line in file:
            if line.startswith(b"CapEff:"):
                return int(line.split()[1], 16)
    return 0


def drop(mask: int) -> None:
    """Leaves only `mask` in the bounding set and nothing in the ambient one; the other sets by `syscalls.capset`."""
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        if not mask >> number & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno == _EINVAL:  # the kernel knows no higher one
                    return
                raise
