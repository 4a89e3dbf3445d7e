"""The processes of a running container, as the host's /proc shows them: for `aerogel top`, `stats` and `pause`.

They are what lies below the helper that holds the container, in its process namespace; where there is none, what lies
below the container's first process and below those that joined. Spec: proc(5).
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from aerogel.sandbox.title import EXEC

__all__ = ["FIELDS", "Proc", "boot_time", "processes_of"]

_TICKS = os.sysconf("SC_CLK_TCK")


class Proc(NamedTuple):
    """One process. Times are seconds, sizes bytes."""

    pid: int
    parent: int
    name: str
    state: str
    group: int
    session: int
    terminal: int
    cpu_s: float
    threads: int
    start_s: float
    """Since the start of the machine."""
    virtual_bytes: int
    resident_bytes: int
    own_bytes: int
    """What it does not share with files: anonymous memory and shared memory."""
    uid: int
    gid: int
    words: tuple[str, ...]


def boot_time() -> float:
    """When the machine started, seconds since 1970."""
    with open("/proc/stat", encoding="ascii") as file:
        return next(float(line.split()[1]) for line in file if line.startswith("btime"))


def processes_of(first: int) -> list[Proc]:
    """The processes of the container with the process 1 `first` (as the host numbers it), in the order of their ids.

    Without the ones that serve it: process 1 and those through which others join.
    """
    parents: dict[int, list[int]] = {}
    depths: dict[int, int] = {}
    helper = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and (about := _status(int(name))) is not None:
            parent, depth = about
            parents.setdefault(parent, []).append(int(name))
            depths[int(name)] = depth
            helper = parent if int(name) == first else helper
    if not helper:
        return []
    below = _below(helper, parents)
    is_plain = depths[first] == depths.get(helper, depths[first])
    if is_plain:
        joined = [pid for pid in below if _comm(pid) == EXEC]
        below = [pid for top in (first, *joined) for pid in _below(top, parents)]
    else:
        below = [pid for pid in below if depths[pid] >= depths[first]]
    found = (_read(pid) for pid in sorted(set(below)) if pid != first)
    return [one for one in found if one is not None and one.name != EXEC]


def _below(top: int, parents: Mapping[int, list[int]]) -> list[int]:
    found, todo = [], [*parents.get(top, [])]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += parents.get(pid, [])
    return found


def _status(pid: int) -> tuple[int, int] | None:
    """The parent, and in how many process namespaces it is."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if line.startswith(("PPid:", "NSpid:")))
        return int(lines["PPid"]), len(lines.get("NSpid", "1").split())
    except (OSError, KeyError, ValueError):
        return None


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def _read(pid: int) -> Proc | None:
    """What /proc says of one process; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            head, _, tail = file.read().rpartition(")")
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            status = {key: value.split() for key, _, value in (line.partition(":") for line in file)}
        with open(f"/proc/{pid}/cmdline", "rb") as binary:
            words = binary.read().rstrip(b"\0").decode("utf-8", "replace").split("\0")
    except OSError:
        return None
    fields = tail.split()
    own = sum(int(status.get(key, ["0"])[0]) for key in ("RssAnon", "RssShmem")) * 1024
    name = head.partition("(")[2]
    return Proc(
        pid=pid,
        parent=int(fields[1]),
        name=name,
        state=fields[0],
        group=int(fields[2]),
        session=int(fields[3]),
        terminal=int(fields[4]),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        threads=int(fields[17]),
        start_s=int(fields[19]) / _TICKS,
        virtual_bytes=int(fields[20]),
        resident_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        own_bytes=own,
        uid=int(status["Uid"][1]),
        gid=int(status["Gid"][1]),
        words=tuple(words) if words != [""] else (f"[{name}]",),
    )


def _user(one: Proc) -> str:
    try:
        return pwd.getpwuid(one.uid).pw_name
    except KeyError:
        return str(one.uid)


def _clock(seconds: float, *, is_short: bool = True) -> str:
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if is_short and not hours:
        return f"{minutes:02}:{whole % 60:02}"
    return f"{hours:02}:{minutes:02}:{whole % 60:02}"


def _started(one: Proc) -> str:
    began = boot_time() + one.start_s
    form = "%H:%M" if time.time() - began < 86400 else "%b%d"
    return time.strftime(form, time.localtime(began))


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _load(one: Proc) -> float:
    return 100 * one.cpu_s / max(_uptime() - one.start_s, 0.01)


def _memory_share(one: Proc) -> float:
    return 100 * one.resident_bytes / (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _terminal(one: Proc) -> str:
    major, minor = one.terminal >> 8 & 0xFFF, one.terminal & 0xFF | one.terminal >> 12 & 0xFFF00
    return f"pts/{minor}" if 136 <= major <= 143 else f"tty{minor}" if major == 4 else "?"


FIELDS: dict[str, tuple[str, Callable[[Proc], str]]] = {
    "pid": ("PID", lambda one: str(one.pid)),
    "ppid": ("PPID", lambda one: str(one.parent)),
    "pgid": ("PGID", lambda one: str(one.group)),
    "sid": ("SID", lambda one: str(one.session)),
    "user": ("USER", _user),
    "uid": ("UID", lambda one: str(one.uid)),
    "gid": ("GID", lambda one: str(one.gid)),
    "comm": ("COMMAND", lambda one: one.name),
    "args": ("COMMAND", lambda one: " ".join(one.words)),
    "stat": ("STAT", lambda one: one.state),
    "tty": ("TT", _terminal),
    "time": ("TIME", lambda one: _clock(one.cpu_s, is_short=False)),
    "etime": ("ELAPSED", lambda one: _clock(_uptime() - one.start_s)),
    "stime": ("STIME", _started),
    "nlwp": ("NLWP", lambda one: str(one.threads)),
    "rss": ("RSS", lambda one: str(one.resident_bytes // 1024)),
    "vsz": ("VSZ", lambda one: str(one.virtual_bytes // 1024)),
    "pcpu": ("%CPU", lambda one: f"{_load(one):.1f}"),
    "pmem": ("%MEM", lambda one: f"{_memory_share(one):.1f}"),
    "c": ("C", lambda one: str(min(99, int(_load(one))))),
}
"""The columns of ps(1) that are known: heading, and text of a process."""
