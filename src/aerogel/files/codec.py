"""Layer compression with bytes that repeat, and decompression of whatever registries and archives hold.

A codec is a recorded string (`gzip-libdeflate-3-entries`): same string and same tar give the same blob on every CPU,
with any number of threads and however the tar arrived. gzip layers are cut into blocks of at most 1 MiB, each a member
of its own, with no time, no name and system byte 255, whose extra field `ag` holds the member's size: that lets
`open_at` hop to any place of a blob that we made. Where a block ends, the names of the files in it decide (`_cut`):
behind a changed file the blocks are soon those of the layer before, and need not be compressed again (`blocks`).
Compressor libraries are imported when first used.
Spec: RFC 1952 (gzip), RFC 8878 (zstd), OCI image-spec v1.1 layer.md#media-types.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from queue import SimpleQueue
from types import TracebackType
from typing import Literal, NamedTuple, Self

from aerogel.errors import EXIT_HOST, AerogelError, nearest
from aerogel.files.blocks import Blocks, Table
from aerogel.files.decode import Members, ZstdReader
from aerogel.files.tar import Readable

__all__ = [
    "BLOCK_SIZE",
    "FAST",
    "GZIP",
    "SMALL",
    "UNCOMPRESSED",
    "ZSTD",
    "Codec",
    "LayerBlob",
    "LayerWriter",
    "Uncompressed",
    "codec_named",
    "open_at",
    "open_uncompressed",
    "select",
    "sniff",
]

BLOCK_SIZE = 1 << 20
"""Bytes of tar in one gzip member, at most."""

_MIN_BLOCK = 1 << 18

Family = Literal["gzip", "zstd", "tar"]

_MEDIA_TYPES: dict[Family, str] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "tar": "application/vnd.oci.image.layer.v1.tar",
}
_MEMBER_HEADER = struct.Struct("<10sHBBHI")
_MEMBER_MAGIC = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"
_MAX_THREADS = 8
_CUTS = ("entries", "1MiB")
_BLOCK_OF_TAR = 512
_MAGIC_AT = 257
_PREFIX = slice(345, 500)
"""Where the head of an entry has `ustar`, and the first part of a long path."""


class Codec(NamedTuple):
    """How a layer is compressed; `name` says all of it and is what gets recorded."""

    family: Family
    backend: str
    level: int
    cut: str = "entries"
    """Where gzip members end; `1MiB`, always after so much, is what layers of older stores have."""

    @property
    def name(self) -> str:
        if self.family == "gzip":
            return f"gzip-{self.backend}-{self.level}-{self.cut}"
        return "tar" if self.family == "tar" else f"zstd-{self.level}"

    @property
    def media_type(self) -> str:
        return _MEDIA_TYPES[self.family]


GZIP = Codec("gzip", "libdeflate", 3)
"""The default: BuildKit's size at twice its speed."""
SMALL = Codec("gzip", "libdeflate", 6)
FAST = Codec("gzip", "libdeflate", 1)
ZSTD = Codec("zstd", "zstd", 3)
UNCOMPRESSED = Codec("tar", "", 0)

_LEVELS = {"libdeflate": (0, 12), "zlib": (0, 9), "isal": (0, 2), "zstd": (1, 22), "": (0, 0)}


def _checked(codec: Codec) -> Codec:
    low, high = _LEVELS[codec.backend]
    if not low <= codec.level <= high:
        raise AerogelError(
            f"compression level {codec.level} does not exist for {codec.family}; levels are {low} to {high}",
            code="codec.level",
        )
    return codec


def select(compression: str, level: int | None = None) -> Codec:
    """The codec for what a user asks: `gzip`, `zstd`, `uncompressed`, `fast` or `small`, and a level.

    Raises AerogelError `codec.unknown` or `codec.level`.
    """
    known = {"gzip": GZIP, "zstd": ZSTD, "uncompressed": UNCOMPRESSED, "fast": FAST, "small": SMALL}
    codec = known.get(compression)
    if codec is None:
        guess = nearest(compression, known)
        raise AerogelError(
            f"compression `{compression}` is not known; known are " + ", ".join(f"`{name}`" for name in known),
            code="codec.unknown",
            hints=[f"did you mean `{guess}`?"] if guess else [],
        )
    if level is None or codec.family == "tar":
        return codec
    return _checked(codec._replace(level=level))


def codec_named(name: str) -> Codec:
    """The codec of a recorded name. Raises AerogelError `codec.unknown` for a name of another version."""
    parts = name.split("-")
    found: Codec | None = None
    with suppress(ValueError):
        if len(parts) == 4 and parts[0] == "gzip" and parts[1] in ("libdeflate", "zlib", "isal") and parts[3] in _CUTS:
            found = Codec("gzip", parts[1], int(parts[2]), parts[3])
        elif len(parts) == 2 and parts[0] == "zstd":
            found = Codec("zstd", "zstd", int(parts[1]))
        elif name == "tar":
            found = UNCOMPRESSED
    if found is None or found.name != name:
        raise AerogelError(f"layer codec `{name}` is not known to this version of aerogel", code="codec.unknown")
    return _checked(found)


class LayerBlob(NamedTuple):
    """What came out of a LayerWriter; the fields of the blob are None if only the diff id was asked for."""

    diff_id: str
    size_uncompressed: int
    digest: str | None
    size: int | None
    media_type: str | None
    codec: str | None


def _block_compressor(codec: Codec) -> Callable[[memoryview], bytes | bytearray]:
    """Raw deflate of one block; the bytes depend on the block, the library and the level only."""
    level = codec.level
    if codec.backend == "libdeflate":
        from deflate import deflate_compress

        def libdeflate(block: memoryview) -> bytearray:
            compressed: bytearray = deflate_compress(block, level)
            return compressed

        return libdeflate
    if codec.backend == "isal":
        from isal import isal_zlib

        def isal(block: memoryview) -> bytes:
            compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15)
            out: bytes = compressor.compress(block) + compressor.flush()
            return out

        return isal

    def stdlib(block: memoryview) -> bytes:
        compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
        return compressor.compress(block) + compressor.flush()

    return stdlib


def _member(block: memoryview, compress: Callable[[memoryview], bytes | bytearray]) -> list[bytes | bytearray]:
    """One gzip member in pieces: header, deflate stream, trailer."""
    body = compress(block)
    size = _MEMBER_HEADER.size + len(body) + 8
    head = _MEMBER_HEADER.pack(_MEMBER_MAGIC, 8, 0x61, 0x67, 4, size)
    return [head, body, struct.pack("<II", zlib.crc32(block), len(block))]


def _cut(buffer: bytearray, size: int = BLOCK_SIZE) -> int:
    """Where the first block of these bytes of a tar ends: at the head of an entry, or at the end if there is none.

    Of all heads it is the one whose path has the lowest checksum, so the choice hardly depends on what is before. What
    only looks like a head serves as well: the bytes alone decide.
    """
    found, lowest = size, 1 << 32
    place = buffer.find(b"ustar", _MIN_BLOCK + _MAGIC_AT, size)
    while place >= 0:
        start = place - _MAGIC_AT
        if not start % _BLOCK_OF_TAR:
            head = buffer[start : start + _BLOCK_OF_TAR]
            mark = zlib.crc32(head[_PREFIX], zlib.crc32(head[:100]))
            if mark < lowest:
                found, lowest = start, mark
        place = buffer.find(b"ustar", place + 5, size)
    return found


class _Slot:
    """One block on its way: filled by the writer, compressed by a worker, hashed and written by the finisher."""

    __slots__ = ("buffer", "key", "length", "ready", "view")

    def __init__(self) -> None:
        self.key = b""
        """SHA-256 of the block, when it may be found again."""
        # No anonymous map: `find` of Python before 3.11.5 reads the byte behind one (gh-105235) and crashes there.
        self.buffer = bytearray(BLOCK_SIZE)
        self.view = memoryview(self.buffer)
        self.length = 0
        self.ready: SimpleQueue[list[bytes | bytearray] | BaseException] = SimpleQueue()


class LayerWriter:
    """Takes a tar stream in pieces, each byte once, and makes diff id, blob and blob digest of it.

    Memory is a ring of a few blocks, whatever the size of the layer. Up to one block all happens in the calling
    thread; then `threads` compress and one hashes and writes. Use it as a context manager, or call `abort()`
    after an error, so that the threads end. `fd` stays the caller's. `on_block` is called before each full block is
    taken, in the caller's thread, and may raise to give up. With `blocks`, what an earlier layer has compressed is
    taken from there; that changes no byte.
    """

    def __init__(
        self,
        fd: int | None,
        codec: Codec | None = GZIP,
        *,
        threads: int | None = None,
        on_block: Callable[[], object] | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        if (fd is None) != (codec is None):
            raise ValueError("a descriptor and a codec come together")
        self._fd = fd
        self._codec = codec
        self._on_block = on_block
        self._threads = min(threads or len(os.sched_getaffinity(0)), _MAX_THREADS)
        self._diff = sha256()
        self._blob = sha256()
        self._blob_size = 0
        self._size = 0
        self._compress = _block_compressor(codec) if codec is not None and codec.family == "gzip" else None
        self._zstd = _ZstdStream(codec.level, self._threads) if codec is not None and codec.family == "zstd" else None
        self._blocks = blocks if codec is not None and codec.cut == "entries" else None
        self._table: Table | None = None
        self._slot = _Slot()
        self._fill = 0
        self._error: BaseException | None = None
        self._running: list[threading.Thread] = []
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        self._work: SimpleQueue[_Slot | None] = SimpleQueue()
        self._order: SimpleQueue[_Slot | None] = SimpleQueue()
        self._slots = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes | memoryview) -> None:
        """Takes the next bytes of the tar. Raises AerogelError `codec.write` if the blob cannot be written."""
        size = len(data)
        fill = self._fill
        if size < BLOCK_SIZE - fill:
            self._slot.buffer[fill : fill + size] = data
            self._fill = fill + size
            return
        view = memoryview(data)
        while view:
            room = BLOCK_SIZE - self._fill
            piece = view[:room]
            self._slot.buffer[self._fill : self._fill + len(piece)] = piece
            self._fill += len(piece)
            view = view[room:]
            if self._fill == BLOCK_SIZE:
                by_entry = self._compress is not None and self._codec is not None and self._codec.cut == "entries"
                self._submit(_cut(self._slot.buffer) if by_entry else BLOCK_SIZE)

    def finish(self) -> LayerBlob:
        """Ends the layer. Raises AerogelError `codec.write` if the blob cannot be written."""
        if not self._running:
            if self._fill or not self._size:
                self._slot.length = self._fill
                self._size += self._fill
                self._finish_block(self._slot, self._compressed(self._slot))
        else:
            if self._fill:
                self._submit(self._fill)
            self.abort()
            self._raise()
        if self._zstd is not None:
            self._emit([self._zstd.flush()])
        diff_id = f"sha256:{self._diff.hexdigest()}"
        if self._codec is None:
            return LayerBlob(diff_id, self._size, None, None, None, None)
        digest = f"sha256:{self._blob.hexdigest()}"
        if self._table is not None:
            self._table.save(self._blob.digest())
        return LayerBlob(diff_id, self._size, digest, self._blob_size, self._codec.media_type, self._codec.name)

    def abort(self) -> None:
        """Ends the threads after what is in the ring; harmless when there are none."""
        for _ in range(len(self._running) - 1):
            self._work.put(None)
        if self._running:
            self._order.put(None)
        for thread in self._running:
            thread.join()
        self._running = []
        if self._table is not None:
            self._table.close()

    def _submit(self, length: int) -> None:
        """Sends a block on its way and takes a free one, with what is left."""
        if self._on_block is not None:
            self._on_block()
        if not self._running:
            self._start()
        slot = self._slot
        slot.length = length
        self._size += length
        left = slot.buffer[length : self._fill]
        if self._compress is not None:
            self._work.put(slot)
        self._order.put(slot)
        if self._slots < 2 * self._threads + 2 and self._free.empty():
            self._slots += 1
            self._slot = _Slot()
        else:
            self._slot = self._free.get()
        self._slot.buffer[: len(left)] = left
        self._fill = len(left)
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        workers = self._threads if self._compress is not None else 0
        if self._blocks is not None and self._compress is not None and self._codec is not None:
            self._table = self._blocks.table(self._codec.name, self._compress)
        self._running = [threading.Thread(target=self._worker, name="compress", daemon=True) for _ in range(workers)]
        self._running.append(threading.Thread(target=self._finisher, name="layer", daemon=True))
        for thread in self._running:
            thread.start()

    def _worker(self) -> None:
        while (slot := self._work.get()) is not None:
            try:
                slot.ready.put(self._compressed(slot))
            except BaseException as error:  # noqa: BLE001 - carried to the thread that called
                slot.ready.put(error)

    def _finisher(self) -> None:
        while (slot := self._order.get()) is not None:
            ready = slot.ready.get() if self._compress is not None else []
            if self._error is None:
                try:
                    if isinstance(ready, BaseException):
                        raise ready
                    self._finish_block(slot, ready)
                except BaseException as error:  # noqa: BLE001 - carried to the thread that called
                    self._error = error
            self._free.put(slot)

    def _compressed(self, slot: _Slot) -> list[bytes | bytearray]:
        if self._compress is None:
            return []
        block = slot.view[: slot.length]
        if self._table is not None:
            slot.key = sha256(block).digest()
            found = self._table.find(slot.key)
            if found is not None:
                return [found]
        return _member(block, self._compress)

    def _finish_block(self, slot: _Slot, compressed: list[bytes | bytearray]) -> None:
        block = slot.view[: slot.length]
        self._diff.update(block)
        if self._zstd is not None:
            self._emit([self._zstd.compress(block)])
        elif self._compress is not None:
            if self._table is not None:
                self._table.add(slot.key, self._blob_size, compressed)
            self._emit(compressed)
        elif self._fd is not None:
            self._emit([block])

    def _emit(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        if self._fd is None:
            return
        for piece in pieces:
            self._blob.update(piece)
            self._blob_size += len(piece)
            view = memoryview(piece)
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise AerogelError(
                    f"layer blob cannot be written: {(error.strerror or str(error)).lower()}",
                    code="codec.write",
                    exit_status=EXIT_HOST,
                ) from error


class _ZstdStream:
    """One zstd frame; at least one worker, because none at all would give other bytes."""

    __slots__ = ("compress", "flush")

    def __init__(self, level: int, threads: int) -> None:
        import zstandard

        stream = zstandard.ZstdCompressor(level=level, threads=max(1, threads), write_content_size=False).compressobj()
        self.compress: Callable[[memoryview], bytes] = stream.compress
        self.flush: Callable[[], bytes] = stream.flush


# Decompression


class _FdReader:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)


class Uncompressed:
    """Reads the plain bytes of a compressed stream; closing it closes the stream, but no descriptor that was given.

    With a `limit` in bytes, more output than that is an error `codec.too-large`: the guard against a small blob
    that grows without end. Memory is bounded whatever the input says. zstd data that is cut off just ends early:
    the library has no bounded interface that tells, and the tar reader and the digest both notice.
    """

    __slots__ = ("_close", "_left", "_raw", "_tell")

    def __init__(self, raw: Readable, limit: int | None = None, close: Callable[[], object] | None = None) -> None:
        self._raw = raw
        self._left = limit
        self._close = close
        self._tell = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the stream below; may be called again."""
        if self._close is not None:
            self._close()
            self._close = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        """Bytes read so far."""
        return self._tell

    def read(self, size: int, /) -> bytes:
        """Between 1 and `size` bytes; nothing at the end. Raises AerogelError `codec.*`."""
        data = self._raw.read(size)
        self._tell += len(data)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise AerogelError(
                    f"compressed data gives more than the {self._tell + self._left} bytes that were announced",
                    code="codec.too-large",
                )
        return data


_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
)


def sniff(head: bytes) -> str | None:
    """The family of the first bytes (262 are enough): `gzip`, `zstd`, `bzip2`, `xz`, `tar`, or None."""
    for magic, family in _MAGIC:
        if head.startswith(magic):
            return family
    # zstd may begin with a skippable frame, as zstd:chunked does.
    if len(head) >= 4 and 0x184D2A50 <= int.from_bytes(head[:4], "little") <= 0x184D2A5F:
        return "zstd"
    return "tar" if head[257:262] == b"ustar" else None


def _family_of(media_type: str) -> str:
    for endings, family in (
        (("+gzip", ".gzip", "gzip"), "gzip"),
        (("+zstd", ".zstd", "zstd"), "zstd"),
        (("bzip2",), "bzip2"),
        (("xz",), "xz"),
        (("tar", "uncompressed"), "tar"),
    ):
        if media_type.endswith(endings):
            return family
    raise AerogelError(f"media type `{media_type}` is not one of a tar layer", code="codec.media-type")


def open_uncompressed(source: int | Readable, media_type: str, *, limit: int | None = None) -> Uncompressed:
    """The plain tar of a layer blob, from a descriptor (read at its position) or a stream.

    `media_type` is an OCI or Docker layer type, or just a family (`gzip`, `zstd`, `bzip2`, `xz`, `tar`).
    Raises AerogelError `codec.media-type`; reading raises `codec.corrupt`, `codec.truncated`, `codec.too-large`.
    """
    stream: Readable = _FdReader(source) if isinstance(source, int) else source
    family = _family_of(media_type)
    close: Callable[[], object] | None = getattr(source, "close", None)
    if family == "zstd":
        stream = ZstdReader(stream)
    elif family != "tar":
        stream = Members(stream, family)
    return Uncompressed(stream, limit, close)


def open_at(fd: int, codec: Codec, offset: int) -> Uncompressed:
    """The plain bytes of a blob from an offset of the tar on; moves the position of `fd`.

    Only for blobs that this codec made here (the record of the layer says so): members are then found by their
    size fields without decompressing what is before. Other families are read from the start.
    """
    position = 0
    skip = offset
    if codec.family == "tar":
        position, skip = offset, 0
    elif codec.family == "gzip":
        while skip:
            head = os.pread(fd, _MEMBER_HEADER.size, position)
            if len(head) != _MEMBER_HEADER.size or not head.startswith(_MEMBER_MAGIC) or head[12:14] != b"ag":
                position, skip = 0, offset
                break
            size = _MEMBER_HEADER.unpack(head)[5]
            length = int.from_bytes(os.pread(fd, 4, position + size - 4), "little")
            if skip < length:
                break
            position += size
            skip -= length
    os.lseek(fd, position, os.SEEK_SET)
    stream = open_uncompressed(fd, codec.family)
    while skip:
        piece = stream.read(min(skip, BLOCK_SIZE))
        if not piece:
            raise AerogelError(f"layer blob ends before byte {offset} of its tar", code="codec.truncated")
        skip -= len(piece)
    return stream
