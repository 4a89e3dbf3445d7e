"""The directories of `RUN --mount=type=cache`: kept between builds, never part of a layer or of a key.

::

    <cache>/mounts-v1/<mapping>/<name>-<n>/
        about.json      id, owner, mode, seed; its modification time is that of the last use
        lock            held with flock(2) while a step has the directory: shared by `shared`, alone by others
        fs/             what the step sees, owners as the mapping has them

`name` is a digest of all that distinguishes two caches: id, owner, mode and what they were begun with. Number 0 is the
one that `shared` and `locked` mean; `private` takes the first that nobody has. Locks end with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple, Self

from aerogel.errors import AerogelError
from aerogel.store.disk import disk_errors, is_same_file, read_file
from aerogel.store.scratch import Scratch

__all__ = ["CacheAbout", "CacheMounts", "HeldCache", "KeptCache"]

_POLL_S = 0.05


class CacheAbout(NamedTuple):
    """What distinguishes a cache from others. `seed` is a digest of what it was begun with, or empty."""

    id: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o755
    seed: str = ""

    @property
    def name(self) -> str:
        return sha256(json.dumps(self).encode()).hexdigest()[:32]


class KeptCache(NamedTuple):
    """A cache on the disk. `last_use_s` is seconds since 1970."""

    about: CacheAbout
    mapping: str
    number: int
    path: str
    last_use_s: float
    in_use: bool


class HeldCache:
    """A cache that a step has: `path` is its directory. Given back by `close`."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class CacheMounts:
    """All caches of a store."""

    def __init__(self, cache: str, scratch: Scratch) -> None:
        self._root = f"{cache}/mounts-v1"
        self._scratch = scratch

    def hold(
        self,
        mapping: str,
        about: CacheAbout,
        sharing: str,
        fill: Callable[[str], object],
        wait: Callable[[bool], object],
    ) -> HeldCache:
        """Takes a cache, making it when it is new: `fill(path)` puts what it begins with into an empty directory.

        While others have it, `wait` is called again and again, the first time with True; it may raise.
        """
        number = 0
        first = True
        while True:
            path = f"{self._root}/{mapping}/{about.name}-{number}"
            with disk_errors(self._root):
                os.makedirs(path, 0o700, exist_ok=True)
                try:
                    fd = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                except FileNotFoundError:
                    continue
            try:
                got = self._lock(fd, path, about, sharing, fill)
            except BaseException:
                os.close(fd)
                raise
            if got:
                return HeldCache(f"{path}/fs", fd)
            os.close(fd)
            if got is None:
                continue
            if sharing == "private":
                number += 1
                continue
            wait(first)
            first = False
            time.sleep(_POLL_S)

    def _lock(self, fd: int, path: str, about: CacheAbout, sharing: str, fill: Callable[[str], object]) -> bool | None:
        """True with the lock, False when others have it, None when the cache was removed meanwhile."""
        exists = os.path.isdir(f"{path}/fs")
        shared = sharing == "shared" and exists
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not is_same_file(fd, f"{path}/lock"):
            return None
        if not os.path.isdir(f"{path}/fs"):
            if shared:
                return None
            # Made where it stays: its owner may be another by then, and such a folder cannot be moved elsewhere.
            made = f"{path}/new-{os.getpid()}-{os.urandom(4).hex()}"
            with disk_errors(path):
                os.mkdir(made, 0o700)
            fill(made)
            with disk_errors(path):
                os.rename(made, f"{path}/fs")
        self._scratch.write_file(f"{path}/about.json", json.dumps(about._asdict(), sort_keys=True).encode())
        if sharing == "shared" and not shared:
            fcntl.flock(fd, fcntl.LOCK_SH)
        return True

    def all(self) -> Iterator[KeptCache]:
        """Every cache, by id."""
        found = []
        for mapping in _names(self._root):
            for name in _names(f"{self._root}/{mapping}"):
                path = f"{self._root}/{mapping}/{name}"
                data = read_file(f"{path}/about.json")
                number = name.rpartition("-")[2]
                if data is None or not number.isdecimal():
                    continue
                about = CacheAbout(**json.loads(data))
                used = os.stat(f"{path}/about.json").st_mtime
                found.append(KeptCache(about, mapping, int(number), path, used, _is_held(path)))
        return iter(sorted(found, key=lambda each: (each.about, each.mapping, each.number)))

    def remove(self, kept: KeptCache, remove: Callable[[str], object] | None = None) -> None:
        """Removes a cache; `remove(path)` is asked for what belongs to mapped owners. Raises `store.cache-in-use`."""
        try:
            fd = os.open(f"{kept.path}/lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AerogelError(
                    f"a step is using cache `{kept.about.id}`",
                    code="store.cache-in-use",
                    hints=["try again when that build has ended"],
                    temporary=True,
                ) from None
            self._scratch.discard(kept.path, remove)
        finally:
            os.close(fd)


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_held(path: str) -> bool:
    try:
        fd = os.open(f"{path}/lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
