"""Digests of file contents, remembered by what the kernel says of a file; and the digest of a selection of files.

An unchanged file is never read twice: its digest is kept by (device, inode, size, mtime, ctime). The ctime cannot be
set by a program, so a changed file is never missed; a file that changed within the last clock ticks is not kept, since
it might change again within the same one. Standard library only.

The store is one file, a table that is asked in place: no run loads what it does not ask for::

    <path>      magic, number of records; then slots of 80 bytes, a power of two, at most 7 in 10 used: device,
                inode, size, mtime, ctime (u64), SHA-256, 8 bytes of a digest of these; the first free slot after
                the place that the key gives, in a part of 16384 slots

A record that a power cut left torn does not fit its digest and counts as absent. Writers hold flock(2); a table that
is too small is replaced by a bigger one.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from aerogel.errors import AerogelError
from aerogel.files.copy import CopyItem
from aerogel.files.entry import REG, shown
from aerogel.witness import is_racy

__all__ = ["DigestCache", "Digests", "Status", "changed", "content_key"]

_MAGIC = b"aerogel digests 2"
_HEAD = struct.Struct("<20sQ4x")
_KEY = struct.Struct("<QQQQQ")
_SLOT = 80
_CHECK = 8
_KEYS = 40
_FREE = bytes(_KEYS)
_FULL = 0.7
"""The part of the slots that may be used."""
_FIRST_SLOTS = 1 << 12
_PART = 1 << 14
"""Slots, a power of two: a record lies in the part of its first place, behind whose last slot comes its first one."""
_MAX_SLOTS = 1 << 21
"""A table of 168 MB; a fuller one is begun anew."""
_U64 = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15
_FEW = 200
"""Records that are written one by one."""
_PENDING = 20_000
"""Digests that are held back before they are written."""
_CHUNK = 1 << 17


class Digests(Protocol):
    """A tree that knows the SHA-256 of its files' contents."""

    def digest(self, path: bytes) -> bytes: ...


class Status(Protocol):
    """What the cache asks of the state of a file: `os.stat_result` and what is made of it."""

    @property
    def st_dev(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...


class DigestCache:
    """The remembered digests of one store; threads may share it. A cache that cannot be used costs time only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._table: _Table | None = None
        self._is_open = False
        self._new: dict[bytes, bytes] = {}

    def digest(self, status: Status, open_file: Callable[[], int], name: bytes) -> bytes:
        """The SHA-256 of a file that `status` (of lstat) describes; `open_file` is called if it must be read.

        Raises AerogelError `context.changed` if it changes meanwhile.
        """
        key = _key(status)
        with self._lock:
            found = self._new.get(key) or self._find(key)
        if found is not None:
            return found
        # Asked before reading: a change during it could still have the time stamp of the one before.
        now_ns = time.time_ns()
        is_settled = not (is_racy(status.st_mtime_ns, now_ns) or is_racy(status.st_ctime_ns, now_ns))
        fd = open_file()
        try:
            found = _hash(fd)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        if _key(after) != key:
            raise changed(name)
        if is_settled:
            with self._lock:
                self._new[key] = found
                if len(self._new) >= _PENDING:
                    self._write()
        return found

    def save(self) -> None:
        """Writes what is new; harmless to lose, so an error of the disk is no error of the build."""
        with self._lock:
            self._write()
            table, self._table, self._is_open = self._table, None, False
        if table is not None:
            table.close()

    def _find(self, key: bytes) -> bytes | None:
        if not self._is_open:
            self._is_open = True
            try:
                self._table = _Table.open(self._path, os.O_RDONLY)
            except OSError:
                self._table = None
        try:
            return self._table.find(key) if self._table is not None else None
        except OSError:
            return None

    def _write(self) -> None:
        new, self._new = self._new, {}
        if not new:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _Table.add(self._path, new)
        except OSError:
            return
        finally:
            # A bigger table may have taken the place of the one that is open.
            table, self._table, self._is_open = self._table, None, False
            if table is not None:
                table.close()


class _Table:
    """The file of a cache, open."""

    def __init__(self, fd: int, slots: int, used: int) -> None:
        self._fd = fd
        self.slots = slots
        self.used = used

    @classmethod
    def open(cls, path: Path | str, flags: int) -> _Table | None:
        """The table of a file; None for a file that is none. Raises OSError."""
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            if flags & os.O_RDWR:
                fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            head = os.pread(fd, _HEAD.size, 0)
            slots = (size - _HEAD.size) // _SLOT
            if size == 0 and flags & os.O_CREAT:
                slots = _FIRST_SLOTS
                os.ftruncate(fd, _HEAD.size + slots * _SLOT)
                head = _HEAD.pack(_MAGIC, 0)
                os.pwrite(fd, head, 0)
            if len(head) == _HEAD.size and head.startswith(_MAGIC) and slots and not slots & (slots - 1):
                return cls(fd, slots, _HEAD.unpack(head)[1])
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    @classmethod
    def add(cls, path: Path, new: dict[bytes, bytes]) -> None:
        """Adds records, in a bigger file if need be. Raises OSError."""
        table = cls.open(path, os.O_RDWR | os.O_CREAT)
        while table is None or not _is_same(table._fd, path):
            # Not a table, or replaced while its lock was waited for.
            if table is None:
                os.unlink(path)
            else:
                table.close()
            table = cls.open(path, os.O_RDWR | os.O_CREAT)
        try:
            if table.used + len(new) > table.slots * _FULL:
                table._grow(path, new)
            elif len(new) > _FEW:
                table._fill(new)
            else:
                for key, digest in new.items():
                    table._put(key, digest)
        finally:
            table.close()

    def find(self, key: bytes) -> bytes | None:
        """The digest of a key. Raises OSError."""
        for at in self._places(key):
            slot = os.pread(self._fd, _SLOT, at)
            if slot.startswith(key):
                return slot[_KEYS:-_CHECK] if _check(slot[:-_CHECK]) == slot[-_CHECK:] else None
            if slot[:_KEYS] == _FREE:
                return None
        return None

    def _places(self, key: bytes) -> Iterator[int]:
        """Where a record may be, one after the other; the last places of a broken table are not looked at."""
        place = self._place(key)
        part = place & ~(_PART - 1)
        for step in range(min(self.slots, 512)):
            yield _HEAD.size + (part + ((place + step) & (min(self.slots, _PART) - 1))) * _SLOT

    def _place(self, key: bytes) -> int:
        dev, ino, size, mtime, ctime = _KEY.unpack(key)
        place: int = ((ino ^ size << 20 ^ mtime ^ ctime << 7 ^ dev) * _MIX & _U64) >> 20 & (self.slots - 1)
        return place

    def _fill(self, records: dict[bytes, bytes]) -> None:
        """Adds many records, part by part in memory; there is room for them.

        No mapping: on a full disk that would be a signal.
        """
        by_part: dict[int, list[bytes]] = {}
        for key in records:
            by_part.setdefault(self._place(key) // _PART, []).append(key)
        size = min(self.slots, _PART) * _SLOT
        for part, keys in by_part.items():
            start = _HEAD.size + part * size
            data = bytearray(size)
            os.preadv(self._fd, [data], start)
            for key in keys:
                record = key + records[key]
                for place in self._places(key):
                    at = place - start
                    there = data[at : at + _KEYS]
                    if there in (key, _FREE):
                        data[at : at + _SLOT] = record + _check(record)
                        self.used += there != key
                        break
            _write_at(self._fd, data, start)
        _write_at(self._fd, _HEAD.pack(_MAGIC, self.used), 0)

    def _put(self, key: bytes, digest: bytes) -> None:
        record = key + digest
        for at in self._places(key):
            there = os.pread(self._fd, _KEYS, at)
            if there in (key, _FREE):
                os.pwrite(self._fd, record + _check(record), at)
                self.used += there != key
                break
        os.pwrite(self._fd, _HEAD.pack(_MAGIC, self.used), 0)

    def _grow(self, path: Path, new: dict[bytes, bytes]) -> None:
        count, slots = self.used + len(new), self.slots
        while count > slots * _FULL / 2:
            slots *= 2
        made = f"{path}.{os.getpid()}.{threading.get_ident()}"
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        bigger = _Table(fd, min(slots, _MAX_SLOTS), 0)
        try:
            os.ftruncate(fd, _HEAD.size + bigger.slots * _SLOT)
            records = self._records() if slots <= _MAX_SLOTS else iter(())
            while some := dict(itertools.islice(records, _PENDING)):
                bigger._fill(some)
            bigger._fill(new)
            os.rename(made, path)
        except BaseException:
            os.unlink(made)
            raise
        finally:
            bigger.close()

    def _records(self) -> Iterator[tuple[bytes, bytes]]:
        step = _CHUNK // _SLOT * _SLOT
        for at in range(_HEAD.size, _HEAD.size + self.slots * _SLOT, step):
            block = os.pread(self._fd, step, at)
            for start in range(0, len(block), _SLOT):
                record = block[start : start + _SLOT - _CHECK]
                if record[:_KEYS] != _FREE and _check(record) == block[start + _SLOT - _CHECK : start + _SLOT]:
                    yield record[:_KEYS], record[_KEYS:]

    def close(self) -> None:
        os.close(self._fd)


def _write_at(fd: int, data: bytes | bytearray, offset: int) -> None:
    view, at = memoryview(data), 0
    while at < len(view):
        at += os.pwrite(fd, view[at:], offset + at)


def _is_same(fd: int, path: Path) -> bool:
    """Whether the path names the open file."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _key(status: Status) -> bytes:
    return _KEY.pack(
        status.st_dev & _U64,
        status.st_ino & _U64,
        status.st_size & _U64,
        status.st_mtime_ns & _U64,
        status.st_ctime_ns & _U64,
    )


def _check(record: bytes) -> bytes:
    return sha256(record).digest()[:_CHECK]


def changed(name: bytes) -> AerogelError:
    """The error for a file of a context that is not any more what it was when the build began."""
    return AerogelError(
        f"`{shown(name)}` changed during the build",
        code="context.changed",
        hints=["build again when nothing writes to the build context, or leave the file out of it"],
        temporary=True,
    )


def _hash(fd: int) -> bytes:
    digest = sha256()
    while data := os.read(fd, _CHUNK):
        digest.update(data)
    return digest.digest()


def content_key(items: Iterable[CopyItem], source: Digests) -> str:
    """A digest over all that a copy takes from its source but the times: `sha256:...`.

    Path, kind, mode, owner, size, link, device, extended attributes and content of every item, each part length-framed.
    """
    total = sha256(b"aerogel-selection-v1")
    for item in items:
        path, kind, mode, uid, gid, size, _, link, rdev, xattrs = item.entry
        content = item.source
        digest = source.digest(content) if kind == REG and content is not None else b""
        head = b"%d %d %d %d %d %d %d %d" % (kind, mode, uid, gid, size, *rdev, len(xattrs))
        for part in (head, path, link, digest, *(each for pair in xattrs for each in pair)):
            total.update(b"%d:" % len(part))
            total.update(part)
    return f"sha256:{total.hexdigest()}"
