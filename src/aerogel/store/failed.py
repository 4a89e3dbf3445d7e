"""What steps that failed had written, kept so that one can look at it or go on from there.

::

    <cache>/failed-v1/<mapping>/<time>-<pid>-<n>/    the newest few stay, owners as the mapping has them
        failed.json     what was run and in what surroundings; no secret is in it
        fs/  work/      the upper directory of the step's overlay

A state is made in scratch space and gets its name by one rename. It is not synced: one of an earlier boot is refused.
Whoever works in one holds a lock on its directory with flock(2).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from aerogel.errors import AerogelError
from aerogel.store.disk import boot_id, disk_errors, read_file
from aerogel.store.scratch import Scratch

__all__ = ["FailedState", "FailedStates"]

_META = "failed.json"
_KEPT = 3


class FailedState(msgspec.Struct, frozen=True, kw_only=True):
    """A step that failed. `sandbox` is the request as `sandbox.spec` has it, without root, secrets and agents."""

    key: str
    """The content key of the step."""
    layers: tuple[str, ...]
    """Diff ids of the root below what the step wrote, the lowest first."""
    stage: str
    title: str
    place: str
    """`Dockerfile:7`."""
    message: str
    log: str
    platform: str
    since_ns: int
    sandbox: msgspec.Raw
    settled: tuple[tuple[int, int], ...] = ()
    """Times in seconds that only the step saw, and what stands for them (`solve.seen`)."""
    lent: tuple[str, ...] = ()
    """What the step had and the state has not: secrets, agents, caches that other steps may have."""
    boot: str = ""
    mapping: str = ""
    path: str = ""


class FailedStates:
    """The kept states of one store."""

    def __init__(self, cache: str, scratch: Scratch, clock: Callable[[], float] = time.time) -> None:
        self._root = f"{cache}/failed-v1"
        self._scratch = scratch
        self._clock = clock

    def keep(self, made: str, mapping: str, state: FailedState, remove: Callable[[str], object] | None = None) -> str:
        """Takes a directory of the scratch space as a state; older ones go. Raises `store.*`."""
        stamp = f"{int(self._clock() * 1000):015}-{os.getpid()}"
        path = f"{self._root}/{mapping}/{stamp}-{os.path.basename(made)}"
        data = msgspec.json.encode(msgspec.structs.replace(state, boot=boot_id(), mapping=mapping, path=path))
        self._scratch.write_file(f"{made}/{_META}", data)
        with disk_errors(self._root):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.rename(made, path)
        for old in list(self.all())[_KEPT:]:
            self.remove(old, remove)
        return path

    def all(self) -> Iterator[FailedState]:
        """The states that can be used, the newest first."""
        found = []
        for mapping in _names(self._root):
            found += [(name, f"{self._root}/{mapping}/{name}") for name in _names(f"{self._root}/{mapping}")]
        boot = boot_id()
        for _, path in sorted(found, reverse=True):
            data = read_file(f"{path}/{_META}")
            try:
                state = msgspec.json.decode(data or b"", type=FailedState)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if state.boot == boot and state.path == path:
                yield state

    def find(self, mapping: str, key: str, layers: tuple[str, ...], stage: str) -> FailedState | None:
        """The state of a step, or of one that stood in its place: on the same root in the same stage."""
        states = [state for state in self.all() if state.mapping == mapping and state.layers == layers]
        exact = next((state for state in states if state.key == key), None)
        return exact or next((state for state in states if state.stage == stage), None)

    def claim(self, state: FailedState) -> str | None:
        """Takes the state away, to go on from it: a directory of the scratch space; None when it is gone.

        Raises `store.state-in-use` while somebody looks around in it.
        """
        made = self._scratch.name("d")
        with self.held(state):
            try:
                os.rename(state.path, made)
            except FileNotFoundError:
                return None
        return made

    def give_back(self, made: str, state: FailedState) -> None:
        """Puts a claimed state back, unchanged. Raises `store.*`."""
        with disk_errors(self._root):
            os.rename(made, state.path)

    @contextmanager
    def held(self, state: FailedState) -> Iterator[None]:
        """The state is nobody else's in the block. Raises `store.state-in-use`."""
        try:
            fd = os.open(state.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield
            return
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AerogelError(
                    "another shell is open where the step failed",
                    code="store.state-in-use",
                    hints=["end that `aerogel debug last` first"],
                    temporary=True,
                ) from None
            yield
        finally:
            os.close(fd)

    def remove(self, state: FailedState, remove: Callable[[str], object] | None = None) -> None:
        """Removes a state that nobody looks at; `remove(path)` is asked for what belongs to mapped owners."""
        with suppress(AerogelError), self.held(state):
            self._scratch.discard(state.path, remove)


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
