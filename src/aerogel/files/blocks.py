"""Where the compressed blocks of earlier layers lie, so that an unchanged run of files is not compressed again.

What a block gives is the same whether it was compressed now or before: the member is found by the SHA-256 of the plain
block, checked against its own, and a table is believed only while the compressor gives for a sample what it gave when
the table was begun. A table that cannot be read or written costs time only. Standard library only.

::

    <folder>/<codec>    magic, SHA-256 of the compressed sample; then records of 116 bytes: SHA-256 of the plain block,
                        SHA-256 of the blob that has it, offset and size of the member there, SHA-256 of the member,
                        8 bytes of a digest of these

Records are appended under flock(2). A table of more than 2 MB is written anew with the newest half.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

__all__ = ["Blocks", "Table"]

_MAGIC = b"aerogel blocks 1"
_HEAD_SIZE = len(_MAGIC) + 32
_RECORD = struct.Struct("<32s32sQI32s")
_CHECK = 8
_SIZE = _RECORD.size + _CHECK
_MAX_RECORDS = (2 << 20) // _SIZE
_SAMPLE = b"".join(sha256(b"%d" % (number % 300)).hexdigest().encode() for number in range(600))


class _Place(NamedTuple):
    """Where a compressed block lies."""

    block: bytes
    blob: bytes
    offset: int
    size: int
    member: bytes


class Blocks:
    """The tables of one store: `folder` has a file for each codec, `open_blob` opens a blob by its hex digest."""

    def __init__(self, folder: str, open_blob: Callable[[str], int]) -> None:
        self._folder = folder
        self._open_blob = open_blob

    def table(self, codec: str, compress: Callable[[memoryview], bytes | bytearray]) -> Table:
        """What is known of a codec, of which `compress` makes the raw stream of a block."""
        head = _MAGIC + sha256(compress(memoryview(_SAMPLE))).digest()
        return Table(f"{self._folder}/{codec}", head, self._open_blob)


class Table:
    """The compressed blocks of one codec, while one layer is written; threads may share it. Use `close` at the end."""

    def __init__(self, path: str, head: bytes, open_blob: Callable[[str], int]) -> None:
        self._path = path
        self._head = head
        self._open_blob = open_blob
        self._lock = threading.Lock()
        self._fds: dict[bytes, int | None] = {}
        self._new: list[tuple[bytes, int, int, bytes]] = []
        self._known: dict[bytes, _Place] = {}
        with suppress(OSError), open(path, "rb") as file:
            self._known = self._parsed(file.read())

    def _parsed(self, data: bytes) -> dict[bytes, _Place]:
        if not data.startswith(self._head):
            return {}
        found: dict[bytes, _Place] = {}
        for at in range(_HEAD_SIZE, len(data) - _SIZE + 1, _SIZE):
            body = data[at : at + _RECORD.size]
            if sha256(body).digest()[:_CHECK] == data[at + _RECORD.size : at + _SIZE]:
                place = _Place._make(_RECORD.unpack(body))
                # The newest is the last: its blob is the one that is likely to stay.
                found.pop(place.block, None)
                found[place.block] = place
        return found

    def find(self, block: bytes) -> bytes | None:
        """The member for the plain block with this SHA-256; None when it is not to be had."""
        place = self._known.get(block)
        if place is None:
            return None
        with self._lock:
            if place.blob not in self._fds:
                try:
                    self._fds[place.blob] = self._open_blob(place.blob.hex())
                except OSError:
                    self._fds[place.blob] = None
            fd = self._fds[place.blob]
        if fd is None:
            return None
        try:
            member = os.pread(fd, place.size, place.offset)
        except OSError:
            return None
        return member if sha256(member).digest() == place.member else None

    def add(self, block: bytes, offset: int, pieces: Sequence[bytes | bytearray]) -> None:
        """The layer that is written has the member of a block at an offset of its blob."""
        member = sha256()
        for piece in pieces:
            member.update(piece)
        self._new.append((block, offset, sum(map(len, pieces)), member.digest()))

    def save(self, blob: bytes) -> None:
        """Keeps what was added: the layer became the blob with this SHA-256."""
        records = []
        for block, offset, size, member in self._new:
            body = _RECORD.pack(block, blob, offset, size, member)
            records.append(body + sha256(body).digest()[:_CHECK])
        self._new = []
        if records:
            with suppress(OSError):
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                self._append(records)

    def _append(self, records: list[bytes]) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            is_whole = size >= _HEAD_SIZE and not (size - _HEAD_SIZE) % _SIZE
            if not is_whole or os.pread(fd, _HEAD_SIZE, 0) != self._head or size > _MAX_RECORDS * _SIZE:
                there = self._parsed(os.pread(fd, size, 0)) if is_whole else {}
                kept = [_RECORD.pack(*place) for place in list(there.values())[-_MAX_RECORDS // 2 :]]
                os.ftruncate(fd, 0)
                records = [self._head, *(body + sha256(body).digest()[:_CHECK] for body in kept), *records]
            view = memoryview(b"".join(records))
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)

    def close(self) -> None:
        """Closes the blobs that were read."""
        for fd in self._fds.values():
            if fd is not None:
                os.close(fd)
        self._fds = {}
