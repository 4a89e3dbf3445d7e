"""Limits of memory, processors and processes for a command, by a control group that this process may make.

That takes a hierarchy that was given to this user: root has one, an ordinary user inside
`systemd-run --user --scope -p Delegate=yes`. Version 2 of the interface, and version 1 where its controllers are.
A group is called `aerogel-<pid>-<n>`; those of processes that are gone are removed on the way.
Spec: Linux Documentation/admin-guide/cgroup-v2.rst (memory.max, cpu.max, pids.max, no internal processes), cgroup-v1.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from aerogel.errors import EXIT_HOST, AerogelError

__all__ = ["Group", "Resources", "held", "hierarchies", "make_group"]

_PERIOD_US = 100_000
_MAIN = "aerogel-main"
_FLAGS = {"memory": "--memory", "cpu": "--cpus", "pids": "--pids-limit"}
_NUMBERS = itertools.count(1)


class Resources(NamedTuple):
    """What a command may use at most; 0 is no limit."""

    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    """Processes and threads."""

    @property
    def controllers(self) -> tuple[str, ...]:
        wanted = (("memory", self.memory_bytes), ("cpu", self.cpus), ("pids", self.pids))
        return tuple(name for name, limit in wanted if limit)


class Group:
    """Control groups of one command. `fds` are those of their `cgroup.procs`: what writes `0` there joins."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self._paths: list[str] = []

    def add(self, path: str, limits: Mapping[str, str]) -> None:
        """Makes one group. Raises OSError."""
        os.mkdir(path, 0o755)
        self._paths.append(path)
        for name, value in limits.items():
            _write(f"{path}/{name}", value)
        self.fds.append(os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Removes the groups; their processes must have ended."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        paths, self._paths = self._paths, []
        for path in paths:
            for _ in range(50):
                try:
                    os.rmdir(path)
                except OSError as error:
                    if error.errno != errno.EBUSY:  # the kernel has not taken the last process out yet
                        break
                    time.sleep(0.01)
                else:
                    break


def make_group(resources: Resources, proc: str = "/proc/self") -> Group:
    """A new group with these limits. Raises AerogelError `sandbox.no-cgroup`, with what would make one possible.

    `proc` is the directory with `cgroup` and `mountinfo` of this process.
    """
    group = Group()
    name = f"aerogel-{os.getpid()}-{next(_NUMBERS)}"
    try:
        places = hierarchies(proc)
        if set(resources.controllers) <= places.keys():  # version 1
            for controller in resources.controllers:
                _tidy(places[controller])
                group.add(f"{places[controller]}/{name}", _limits_1(controller, resources))
        elif "" in places:
            base = _enable(places[""], resources.controllers)
            _tidy(base)
            group.add(f"{base}/{name}", _limits_2(resources))
        else:
            raise OSError(errno.ENOENT, "no control groups are mounted")
    except OSError as error:
        group.close()
        wanted = " and ".join(f"`{_FLAGS[each]}`" for each in resources.controllers)
        why = error.strerror or str(error)
        why = why[:1].lower() + why[1:]  # it may have a path
        raise AerogelError(
            f"{wanted} cannot be held here: no control group can be made: {why}",
            code="sandbox.no-cgroup",
            hints=["start it with `systemd-run --user --scope -p Delegate=yes aerogel ...`, or as root"],
            exit_status=EXIT_HOST,
        ) from None
    return group


@contextlib.contextmanager
def held(resources: Resources) -> Iterator[Group | None]:
    """A group for the block; None without limits, or where none can be made, of which the user was told before."""
    group = None
    if resources.controllers:
        with contextlib.suppress(AerogelError):
            group = make_group(resources)
    try:
        yield group
    finally:
        if group is not None:
            group.close()


def hierarchies(proc: str) -> dict[str, str]:
    """Controller -> directory of this process in its hierarchy; the empty name is version 2."""
    own: dict[str, str] = {}
    with open(f"{proc}/cgroup", encoding="utf-8") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            own |= dict.fromkeys(names.split(","), path)
    found: dict[str, str] = {}
    with open(f"{proc}/mountinfo", encoding="utf-8") as file:
        for line in file:
            head, _, tail = line.rstrip("\n").partition(" - ")
            words = head.split(" ")
            root, point = words[3], words[4]
            kind, _, options = tail.split(" ")[:3]
            given = {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, [])
            for name in given:
                if name in own:
                    below = (
                        os.path.relpath(own[name], root)
                        if own[name].startswith(root) and ".." not in own[name]
                        else "."
                    )
                    found.setdefault(name, os.path.normpath(f"{point}/{below}"))
    return found


def _enable(base: str, controllers: tuple[str, ...]) -> str:
    """The directory below which groups with these controllers can be made. Raises OSError."""
    missing = set(controllers) - set(_read(f"{base}/cgroup.controllers").split())
    if missing:
        raise OSError(errno.ENOTSUP, f"the controller `{min(missing)}` is not given to `{base}`")
    wanted = " ".join(f"+{each}" for each in controllers)
    if set(controllers) <= set(_read(f"{base}/cgroup.subtree_control").split()):
        return base
    try:
        _write(f"{base}/cgroup.subtree_control", wanted)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A group with controllers for others may hold no process itself, so ours go one down.
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{base}/{_MAIN}", 0o755)
        for pid in _read(f"{base}/cgroup.procs").split():
            with contextlib.suppress(ProcessLookupError):
                _write(f"{base}/{_MAIN}/cgroup.procs", pid)
        _write(f"{base}/cgroup.subtree_control", wanted)
    return base


def _limits_2(resources: Resources) -> dict[str, str]:
    limits = {}
    if resources.memory_bytes:
        limits["memory.max"] = str(resources.memory_bytes)
    if resources.cpus:
        limits["cpu.max"] = f"{_quota(resources)} {_PERIOD_US}"
    if resources.pids:
        limits["pids.max"] = str(resources.pids)
    return limits


def _limits_1(controller: str, resources: Resources) -> dict[str, str]:
    if controller == "memory":
        return {"memory.limit_in_bytes": str(resources.memory_bytes)}
    if controller == "pids":
        return {"pids.max": str(resources.pids)}
    return {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(_quota(resources))}


def _quota(resources: Resources) -> int:
    return max(1000, round(resources.cpus * _PERIOD_US))


def _tidy(base: str, is_alive: Callable[[str], bool] = lambda pid: os.path.exists(f"/proc/{pid}")) -> None:
    for name in os.listdir(base):
        words = name.split("-")
        if len(words) == 3 and words[0] == "aerogel" and words[1].isdecimal() and not is_alive(words[1]):
            with contextlib.suppress(OSError):
                os.rmdir(f"{base}/{name}")


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
