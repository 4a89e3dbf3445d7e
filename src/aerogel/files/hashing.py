"""Digests of file contents, remembered by what the kernel says of a file; and the digest of a selection of files.

An unchanged file is never read twice: its digest is kept by (device, inode, size, mtime, ctime). The ctime cannot be
set by a program, so a changed file is never missed; a file that changed within the last clock ticks is not kept, since
it might change again within the same one. Standard library only.

The store is one file of fixed records, only appended to, under flock(2); a torn end starts it anew::

    <path>      magic, then records of 72 bytes: device, inode, size, mtime, ctime (u64, the times signed), SHA-256
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from aerogel.errors import AerogelError
from aerogel.files.copy import CopyItem
from aerogel.files.entry import REG, shown

__all__ = ["DigestCache", "Digests", "changed", "content_key"]

_MAGIC = b"aerogel digests 1\n"
_RECORD = struct.Struct("<QQQqq32s")
_RACY_NS = 50_000_000
"""A change so recent may share its time stamp with the next one: kernels tick every 1 to 10 ms."""
_MAX_BYTES = 64 << 20
_CHUNK = 1 << 17


class Digests(Protocol):
    """A tree that knows the SHA-256 of its files' contents."""

    def digest(self, path: bytes) -> bytes: ...


class DigestCache:
    """The remembered digests of one store; threads may share it. A cache that cannot be read is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int, int, int, int], bytes] | None = None
        self._new: list[bytes] = []

    def digest(self, status: os.stat_result, open_file: Callable[[], int], name: bytes) -> bytes:
        """The SHA-256 of a file that `status` (of lstat) describes; `open_file` is called if it must be read.

        Raises AerogelError `context.changed` if it changes meanwhile.
        """
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        with self._lock:
            found = self._load().get(key)
        if found is not None:
            return found
        # Asked before reading: a change during it could still have the time stamp of the one before.
        is_settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _RACY_NS
        fd = open_file()
        try:
            found = _hash(fd)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        if (after.st_dev, after.st_ino, after.st_size, after.st_mtime_ns, after.st_ctime_ns) != key:
            raise changed(name)
        if is_settled:
            with self._lock:
                self._load()[key] = found
                self._new.append(_RECORD.pack(*key, found))
        return found

    def save(self) -> None:
        """Appends what is new; harmless to lose, so an error of the disk is no error of the build."""
        with self._lock:
            new, self._new = self._new, []
        if not new:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            if size > _MAX_BYTES or ((size - len(_MAGIC)) % _RECORD.size and size):
                os.ftruncate(fd, 0)
                size = 0
            data = memoryview((b"" if size else _MAGIC) + b"".join(new))
            while data:
                data = data[os.write(fd, data) :]
        except OSError:
            return
        finally:
            os.close(fd)

    def _load(self) -> dict[tuple[int, int, int, int, int], bytes]:
        if self._known is None:
            try:
                data = self._path.read_bytes()
            except OSError:
                data = b""
            body = memoryview(data)[len(_MAGIC) :] if data.startswith(_MAGIC) else memoryview(b"")
            whole = len(body) - len(body) % _RECORD.size
            self._known = {record[:5]: record[5] for record in _RECORD.iter_unpack(body[:whole])}
        return self._known


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
