"""Whether this host runs programs of another platform, and what must be done for it; the main process's side.

In this order: the CPU runs them itself; the host's own list of binary formats (binfmt_misc) has an interpreter that
is open already (flag F); a static qemu of the host is registered for the sandbox alone (`emulation`). Found by trying.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
from collections.abc import Callable

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox.emulation import FORMATS
from aerogel.sandbox.launch import Helper

__all__ = ["Emulator", "runs_natively"]

_MACHINES = {
    "386": "i386",
    "amd64": "x86_64",
    "arm": "arm",
    "arm64": "aarch64",
    "loong64": "loongarch64",
    "mips64le": "mips64el",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
"""GOARCH -> qemu's name."""

_SEARCH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_REGISTERED = "/proc/sys/fs/binfmt_misc"
_HINT = "install qemu: `apt-get install qemu-user-static` (Debian, Ubuntu), `dnf install qemu-user-static` (Fedora)"


_NATIVE = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}
"""The kernel's name of a machine -> what its CPU runs."""


def runs_natively(architecture: str) -> bool:
    """Whether the CPU of this machine runs programs of an architecture (as images name it: `arm64`)."""
    machine = os.uname().machine
    return _MACHINES.get(architecture, architecture) in _NATIVE.get(machine, (machine,))


_RECORDING = ("single", "proot")
"""Rungs on which the calls of 32-bit programs are not answered."""


class Emulator:
    """What one run of a command knows about foreign platforms. Threads may share it."""

    def __init__(self, *, search: str = _SEARCH, registered: str = _REGISTERED) -> None:
        self._search = search
        self._registered = registered
        self._lock = threading.Lock()
        self._known: dict[str, bool] = {}

    def prepare(self, helper: Callable[[], Helper], platform: str) -> bool:
        """Whether a command for a platform (`linux/arm64`) must be marked as `Sandbox.emulated`.

        Raises AerogelError `sandbox.no-emulation` (exit status 3) with what to install.
        """
        architecture = platform.split("/")[1] if "/" in platform else ""
        if not architecture or runs_natively(architecture):
            is_other = bool(architecture) and _MACHINES.get(architecture, architecture) != os.uname().machine
            if is_other and helper().rung.name in _RECORDING:
                raise AerogelError(
                    f"programs for `{platform}` cannot be run where owners are recorded: only those for this machine",
                    code="sandbox.no-emulation",
                    hints=["ids of one's own help: `aerogel doctor` tells how to get them"],
                    exit_status=EXIT_HOST,
                )
            return False
        machine = _MACHINES.get(architecture, architecture)
        with self._lock:
            if machine not in self._known:
                self._known[machine] = self._find(helper, machine, platform)
            return self._known[machine]

    def may_run(self, platform: str) -> bool:
        """Whether the CPU, a format of the host or a qemu is there for a platform; that it works is not tried."""
        architecture = platform.split("/")[1]
        machine = _MACHINES.get(architecture, architecture)
        return runs_natively(architecture) or self._is_registered(machine) or bool(self._interpreter(machine))

    def _find(self, helper: Callable[[], Helper], machine: str, platform: str) -> bool:
        if self._is_registered(machine):
            return False
        # Never for what the CPU runs: qemu itself is a program of this machine.
        foreign = [name for word, name in _MACHINES.items() if not runs_natively(word)]
        interpreters = {name: path for name in foreign if (path := self._interpreter(name))}
        if machine not in interpreters:
            raise AerogelError(
                f"this machine cannot run programs for `{platform}`: there is no qemu for them",
                code="sandbox.no-emulation",
                hints=[_HINT],
                exit_status=EXIT_HOST,
            )
        try:
            helper().emulate(interpreters)
        except AerogelError as error:
            raise AerogelError(
                f"this machine cannot run programs for `{platform}`: {error.message}",
                code="sandbox.no-emulation",
                detail=error.detail,
                hints=["let the host register it, as root: `apt-get install qemu-user-static binfmt-support`"],
                exit_status=EXIT_HOST,
            ) from None
        return True

    def _interpreter(self, machine: str) -> str:
        """A qemu that needs no library of the root file system; empty when there is none."""
        for name in (f"qemu-{machine}-static", f"qemu-{machine}"):
            found = shutil.which(name, path=self._search)
            if found and _is_static(found):
                return os.path.realpath(found)
        return ""

    def _is_registered(self, machine: str) -> bool:
        """Whether the host itself runs such programs, whatever root file system they lie in."""
        wanted = bytes((*b"\x7fELF", *FORMATS[machine][:2])).hex() if machine in FORMATS else ""
        try:
            with open(f"{self._registered}/status", encoding="ascii") as file:
                if not wanted or file.read().strip() != "enabled":
                    return False
            names = os.listdir(self._registered)
        except OSError:
            return False
        return any(name not in ("register", "status") and self._fits(name, wanted, FORMATS[machine]) for name in names)

    def _fits(self, name: str, magic: str, form: tuple[int, int, int]) -> bool:
        try:
            with open(f"{self._registered}/{name}", encoding="utf-8", errors="replace") as file:
                lines = file.read().split("\n")
        except OSError:
            return False
        fields = dict(line.partition(" ")[::2] for line in lines[1:])
        number = struct.pack("<H" if form[1] == 1 else ">H", form[2]).hex()
        found = fields.get("magic", "")
        return (
            lines[0] == "enabled"
            and "F" in fields.get("flags:", "")
            and found.startswith(magic)
            and found[36:40] == number
        )


def _is_static(path: str) -> bool:
    """Whether an ELF file names no loader (PT_INTERP)."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
    except OSError:
        return False
    if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
        return False
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    kinds = [struct.unpack_from("<I", head, at)[0] for at in range(table, table + size * count, size or 1)]
    return 3 not in kinds
