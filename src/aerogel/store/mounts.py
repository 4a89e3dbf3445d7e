"""The directories of `RUN --mount=type=cache`: kept between builds, never part of a layer or of a key.

::

    <cache>/mounts-v1/<mapping>/<name>-<n>/
        about.json      id, owner, mode, seed; its modification time is that of the last use
        lock            held with flock(2) while a step has the directory: shared by `shared`, alone by others; its
                        modification time is the end of the last use, or 0 from the beginning of one on
        turn            held with flock(2) while `seen` is read and written
        seen            what the steps that had it saw of their own files (`solve.seen`), or nothing
        fs/             what the step sees, owners as the mapping has them

`name` is a digest of all that distinguishes two caches: id, owner, mode and what they were begun with. Number 0 is the
one that `shared` and `locked` mean; `private` takes the first that nobody has. Locks end with the process.
"""

from __future__ import annotations

import fcntl
import json
import marshal
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple, Self

from aerogel.decoding import parse_json
from aerogel.errors import AerogelError
from aerogel.store.disk import disk_errors, is_same_file, read_file
from aerogel.store.scratch import Scratch

__all__ = ["CacheAbout", "CacheMounts", "HeldCache", "KeptCache"]

_POLL_S = 0.05
_SEEN = 1
"""The form of `seen`."""
_NEW, _ALONE, _WITH_OTHERS = 1, 2, 3


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
    """A cache that a step has: `path` is its directory. Others that would share it wait for `share`; ended by `close`.

    `is_new`: it was made for this step, and `is_seeded` then if it did not begin empty. `is_alone`: no other step had
    it when this one took it. `last_use_ns` is when the last use ended; 0 if that is not known, because its process was
    killed or others have it now.
    """

    def __init__(
        self,
        path: str,
        fd: int,
        scratch: Scratch,
        *,
        is_new: bool = False,
        is_seeded: bool = False,
        is_alone: bool = True,
        to_share: bool = False,
    ) -> None:
        self.path = path
        self.is_seeded = is_seeded
        self._to_share = to_share
        self.is_new = is_new
        self.is_alone = is_alone
        self.last_use_ns = os.fstat(fd).st_mtime_ns if is_alone else 0
        self._fd = fd
        self._scratch = scratch
        self._seen = f"{os.path.dirname(path)}/seen"
        os.utime(fd, (0, 0))

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.utime(fd)
            os.close(fd)

    def share(self) -> None:
        """Lets others have it as well, if that is how it was asked for."""
        if self._to_share and self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else reads or writes `seen` within the block."""
        with disk_errors(self.path):
            fd = os.open(f"{os.path.dirname(self.path)}/turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def seen(self) -> dict[bytes, tuple[bytes, int]] | None:
        """What `note` wrote last; None when nothing is known."""
        data = read_file(self._seen)
        try:
            version, found = marshal.loads(data or b"")  # noqa: S302 - our own file
            return dict(found) if version == _SEEN else None
        except (ValueError, TypeError, EOFError):
            return None

    def note(self, seen: dict[bytes, tuple[bytes, int]]) -> None:
        """Keeps what the step is about to see. On the disk before the step runs: it may write things made of that."""
        fd, path = self._scratch.file()
        with disk_errors(self.path):
            with os.fdopen(fd, "wb") as file:
                file.write(marshal.dumps((_SEEN, seen)))
                file.flush()
                os.fsync(file.fileno())
            os.rename(path, self._seen)

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
                if got:
                    return HeldCache(
                        f"{path}/fs",
                        fd,
                        self._scratch,
                        is_new=got == _NEW,
                        is_seeded=bool(about.seed),
                        is_alone=got != _WITH_OTHERS,
                        to_share=got != _WITH_OTHERS and sharing == "shared",
                    )
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            if got is None:
                continue
            if sharing == "private":
                number += 1
                continue
            wait(first)
            first = False
            time.sleep(_POLL_S)

    def _lock(self, fd: int, path: str, about: CacheAbout, sharing: str, fill: Callable[[str], object]) -> int | None:
        """How the lock was got, 0 when others have it, None when the cache was removed meanwhile."""
        exists = os.path.isdir(f"{path}/fs")
        got = _ALONE
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if sharing != "shared" or not exists:
                return 0
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            got = _WITH_OTHERS
        if not is_same_file(fd, f"{path}/lock"):
            return None
        if not os.path.isdir(f"{path}/fs"):
            if got == _WITH_OTHERS:
                return None
            # Made where it stays: its owner may be another by then, and such a folder cannot be moved elsewhere.
            made = f"{path}/new-{os.getpid()}-{os.urandom(4).hex()}"
            with disk_errors(path):
                os.mkdir(made, 0o700)
            fill(made)
            with disk_errors(path):
                os.rename(made, f"{path}/fs")
            got = _NEW
        self._scratch.write_file(f"{path}/about.json", json.dumps(about._asdict(), sort_keys=True).encode())
        return got

    def all(self) -> Iterator[KeptCache]:
        """Every cache, by id."""
        found = []
        for mapping in _names(self._root):
            for name in _names(f"{self._root}/{mapping}"):
                path = f"{self._root}/{mapping}/{name}"
                data = read_file(f"{path}/about.json")
                number = name.rpartition("-")[2]
                about = _about(data or b"")
                if about is None or not number.isdecimal():
                    continue
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


def _about(data: bytes) -> CacheAbout | None:
    try:
        found = parse_json(data)
    except ValueError:
        return None
    fields = CacheAbout("")._asdict()
    if not isinstance(found, dict) or not found.keys() <= fields.keys() or "id" not in found:
        return None
    return CacheAbout(**found) if all(type(value) is type(fields[name]) for name, value in found.items()) else None


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
