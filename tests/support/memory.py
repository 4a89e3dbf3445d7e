"""How much memory processes have, looked at from outside while they run: for tests, and for `bench`.

What is counted is the proportional set size: a page that several processes share, such as those that were forked from
one another, is divided among them, so that the sum over processes is what the machine has given for them. A sum of
resident sizes counts such a page once for each. The anonymous part is without program text and other pages of files,
which the kernel has for all who map them and can drop: it does not depend on what else runs on the machine.
Spec: the kernel's Documentation/filesystems/proc.rst, `smaps_rollup`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["Memory", "Sizes", "watched"]


class Sizes(NamedTuple):
    """Bytes: proportional, resident, and what is anonymous of the proportional ones."""

    proportional: int
    resident: int
    anonymous: int


class Memory:
    """The most that a process and those below it had at one moment, in bytes.

    Together (`peak`, `peak_anonymous` without pages of files, `peak_resident` as a sum of resident sizes), and the largest
    of them (`largest`). Without `itself` only what it starts from now on counts, from the moment when that has executed a
    program of its own.
    """

    def __init__(self, pid: int, *, itself: bool = True, every_s: float = 0.02) -> None:
        self.peak = self.peak_anonymous = self.peak_resident = self.largest = 0
        self._pid, self._every_s = pid, every_s
        self._others = frozenset() if itself else frozenset(_tree(pid))
        # A child that has not executed its program yet has the memory of its parent.
        self._words = () if itself else (b"", _command(pid))
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ends.wait(self._every_s):
            self.look()

    def look(self) -> None:
        """Done by itself all the time."""
        pids = [pid for pid in _tree(self._pid) if pid not in self._others and _command(pid) not in self._words]
        found = [_sizes(pid) for pid in pids]
        self.peak = max(self.peak, sum(each.proportional for each in found))
        self.peak_anonymous = max(self.peak_anonymous, sum(each.anonymous for each in found))
        self.peak_resident = max(self.peak_resident, sum(each.resident for each in found))
        self.largest = max(self.largest, 0, *(each.proportional for each in found))

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()


@contextmanager
def watched() -> Iterator[Memory]:
    """Watches what this process starts in the block."""
    memory = Memory(os.getpid(), itself=False, every_s=0.1)
    try:
        yield memory
    finally:
        memory.stop()


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    return found


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _sizes(pid: int) -> Sizes:
    with suppress(OSError, ValueError, KeyError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        found = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
        return Sizes(found["Pss"], found["Rss"], found["Pss_Anon"])
    return Sizes(0, 0, 0)
