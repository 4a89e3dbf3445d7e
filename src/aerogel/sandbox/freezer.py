"""Stops the processes of a container and lets them go on, by a control group that this process may make.

A signal could be noticed by the command, or come from it; a frozen group cannot. Both versions of the interface:
`cgroup.freeze`, and the controller `freezer`. A group that holds the container alone is frozen as it is, so that its
limits hold; else a new one gets its processes.
Spec: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/freezer-subsystem.rst.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox.cgroup import hierarchies

__all__ = ["Freezer"]

_OWN = re.compile(r"aerogel-\d+-\d+")
"""What `cgroup` calls the group of one command. `aerogel-main` is none: who asks for the pause is in it, too."""
_TIMEOUT_S = 10.0


class Freezer:
    """The group of one container while it is frozen."""

    def __init__(self, pids: Callable[[], Sequence[int]], name: str) -> None:
        """Freezes what `pids()` names; asked again until it names nothing new. Raises AerogelError `sandbox.no-freezer`."""
        self._path = ""
        self._is_first_version = False
        self._is_shared = False
        """Whether the group is one that somebody else made, and removes."""
        try:
            self._choose(pids(), name)
            held: set[int] = set()
            while new := set(pids()) - held:
                for pid in new:
                    self._take(pid)
                held |= new
            self._set(frozen=True)
            while set(pids()) - held:  # born between the last look and the freezing
                for pid in set(pids()) - held:
                    self._take(pid)
                    held.add(pid)
            self._await()
        except OSError as error:
            with contextlib.suppress(OSError):
                self.thaw()
            raise AerogelError(
                f"the container cannot be paused: no control group can be made: {(error.strerror or str(error)).lower()}",
                code="sandbox.no-freezer",
                hints=[
                    "start it within `systemd-run --user --scope -p Delegate=yes`, or as root",
                    "`aerogel kill -s STOP` stops its command alone, `-s CONT` lets it go on",
                ],
                exit_status=EXIT_HOST,
            ) from None

    def _choose(self, pids: Sequence[int], name: str) -> None:
        here = hierarchies("/proc/self")
        own = hierarchies(f"/proc/{pids[0]}").get("", "") if pids else ""
        if "freezer" in here:
            self._path, self._is_first_version = f"{here['freezer']}/{name}", True
        elif _OWN.fullmatch(os.path.basename(own)):
            self._path, self._is_shared = own, True
            return
        elif "" in here:
            self._path = f"{here['']}/{name}"
        else:
            raise OSError(0, "none are mounted")
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._path, 0o755)

    def _take(self, pid: int) -> None:
        if self._is_shared:
            return
        with contextlib.suppress(ProcessLookupError):
            _write(f"{self._path}/cgroup.procs", str(pid))

    def _set(self, *, frozen: bool) -> None:
        if self._is_first_version:
            _write(f"{self._path}/freezer.state", "FROZEN" if frozen else "THAWED")
        else:
            _write(f"{self._path}/cgroup.freeze", "1" if frozen else "0")

    def _is_frozen(self) -> bool:
        if self._is_first_version:
            return _read(f"{self._path}/freezer.state").strip() == "FROZEN"
        return "frozen 1" in _read(f"{self._path}/cgroup.events")

    def _await(self) -> None:
        until = time.monotonic() + _TIMEOUT_S
        while not self._is_frozen():
            if time.monotonic() > until:
                raise OSError(0, "its processes do not stop")
            time.sleep(0.002)

    def thaw(self) -> None:
        """Lets the processes go on. Raises OSError."""
        if self._path:
            self._set(frozen=False)

    def close(self) -> None:
        """Removes the group, when its processes have ended."""
        for _ in range(0 if self._is_shared or not self._path else 50):
            try:
                os.rmdir(self._path)
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.01)
            else:
                return


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
