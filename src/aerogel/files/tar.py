"""Writing and reading tar streams at the speed of the disk: one header per `Entry`, content as it comes.

The writer makes the canonical form of a layer (ustar headers, PAX records only for what does not fit, no user and
group names, whole seconds, two zero blocks at the end). The reader takes what the world writes: v7, ustar, GNU
(long names, base-256 numbers), star, PAX with global headers; it refuses sparse files and multi-volume archives.
It does not decide what may be written to disk: that is `files.extract`. Standard library only.
Spec: POSIX.1-2017 pax "ustar Interchange Format"; OCI image-spec v1.1 layer.md.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from aerogel.errors import AerogelError
from aerogel.files.entry import BLK, CHR, DIR, LNK, REG, SYM, Entry, clean_path, shown

__all__ = ["BLOCK", "CHUNK", "Content", "Readable", "TarWriter", "header", "read_entries", "scan"]

BLOCK = 512
CHUNK = 1 << 20
"""Bytes read at a time."""

_FIELDS = struct.Struct("100s48s8s1s100s8s64x16s155s12x")
_ZEROS = bytes(2 * BLOCK)
_NO_DEVICE = b"0000000\x000000000\0"
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777
_CONTIGUOUS = 0x37
_MAX_EXTENSION = 1 << 20
"""Largest PAX record block or GNU long name that is read; Go's archive/tar has the same limit."""


class Readable(Protocol):
    """What is read from: a file, a pipe, a decompressor."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; empty at the end only."""
        ...


def _checksum(block: bytes) -> int:
    # The low half of Adler-32 is 1 + the sum of the bytes modulo 65521, and 256 bytes cannot reach that:
    # five times faster than sum().
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def _ustar(
    name: bytes, numbers: bytes, kind: int, link: bytes = b"", *, device: bytes = _NO_DEVICE, prefix: bytes = b""
) -> bytes:
    block = _FIELDS.pack(name, numbers, b"        ", b"%c" % kind, link, b"ustar\x0000", device, prefix)
    return b"%b%06o\0 %b" % (block[:148], _checksum(block), block[156:])


def _split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name fields for a name over 100 bytes, or nothing if they cannot hold it."""
    at = name.rfind(b"/", 0, min(156, len(name) - 1))
    if at <= 0 or len(name) - at - 1 > 100:
        return None
    return name[:at], name[at + 1 :]


def _pax_record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _pax_header(entry: Entry, records: dict[bytes, bytes]) -> bytes:
    body = b"".join(_pax_record(key, records[key]) for key in sorted(records))
    base = entry.path.rpartition(b"/")[2]
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o644, 0, 0, len(body), 0)
    head = _ustar((b"PaxHeaders.0/" + base)[:100], numbers, 0x78)
    return head + body + bytes(-len(body) % BLOCK)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _xattr_records(entry: Entry) -> dict[bytes, bytes]:
    for key, _ in entry.xattrs:
        if b"=" in key or b"\0" in key:
            raise AerogelError(
                f"extended attribute `{shown(key)}` of `{shown(entry.path)}` cannot be stored in a layer: "
                "its name contains `=`",
                code="tar.xattr-name",
                hints=["remove it in the step that made it: `setfattr -x NAME FILE`"],
            )
    return {b"SCHILY.xattr." + key: value for key, value in entry.xattrs}


def header(entry: Entry) -> bytes:
    """The header blocks of an entry in the canonical form of a layer: one block, more only for what needs PAX.

    Raises AerogelError `tar.xattr-name` for an attribute whose name PAX cannot hold.
    """
    path, kind, mode, uid, gid, size, mtime, link, rdev, xattrs = entry
    name = path + b"/" if kind == DIR else path
    prefix = b""
    records = _xattr_records(entry) if xattrs else {}
    if len(name) > 100:
        split = _split_name(name)
        if split is None:
            records[b"path"] = name
            name = name[:100]
        else:
            prefix, name = split
    if len(link) > 100:
        records[b"linkpath"] = link
        link = link[:100]
    if (uid | gid) > _MAX_ID or not 0 <= mtime <= _MAX_SIZE or size > _MAX_SIZE:
        if uid > _MAX_ID:
            records[b"uid"] = b"%d" % uid
            uid = 0
        if gid > _MAX_ID:
            records[b"gid"] = b"%d" % gid
            gid = 0
        if not 0 <= mtime <= _MAX_SIZE:
            records[b"mtime"] = b"%d" % mtime
            mtime = 0
        if size > _MAX_SIZE:
            records[b"size"] = b"%d" % size
            size = 0
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    device = b"%07o\0%07o\0" % rdev if kind in (CHR, BLK) else _NO_DEVICE
    block = _ustar(name, numbers, kind, link, device=device, prefix=prefix)
    if not records:
        return block
    if not all(_is_utf8(records.get(key, b"")) for key in (b"path", b"linkpath")):
        records[b"hdrcharset"] = b"BINARY"
    return _pax_header(entry, records) + block


class TarWriter:
    """Writes a canonical tar stream to a callable that takes bytes; entries must come in canonical order.

    `offset` is the number of bytes written so far: after `entry()`, where its content begins.
    """

    __slots__ = ("_buffer", "_left", "_write", "offset")

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        self._write = write
        self._left = 0
        self._buffer: memoryview | None = None
        self.offset = 0

    def entry(self, entry: Entry) -> None:
        """Writes the header; a `REG` of some size is then followed by `content()` and `pad()`."""
        if self._left > 0:
            raise ValueError(f"{self._left} bytes of content are missing before {entry.path!r}")
        block = header(entry)
        self._write(block)
        self.offset += len(block)
        self._left = entry.size if entry.kind == REG else 0

    def note(self, key: bytes, value: bytes) -> None:
        """Writes a global PAX record; it stands before all entries and belongs to none."""
        body = _pax_record(key, value)
        numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o644, 0, 0, len(body), 0)
        block = _ustar(b"pax_global_header", numbers, 0x67) + body + bytes(-len(body) % BLOCK)
        self._write(block)
        self.offset += len(block)

    def content(self, data: bytes | memoryview) -> None:
        """Writes the next piece of the entry's content."""
        length = len(data)
        if length > self._left:
            raise ValueError(f"content is {length - self._left} bytes longer than the entry says")
        self._left -= length
        self._write(data)
        self.offset += length

    def pad(self) -> None:
        """Ends the content: fills up to the next block."""
        if self._left:
            raise ValueError(f"content is {self._left} bytes shorter than the entry says")
        rest = -self.offset % BLOCK
        if rest:
            self._write(_ZEROS[:rest])
            self.offset += rest

    def file_fd(self, entry: Entry, fd: int) -> None:
        """Writes header, content read from a descriptor at its position, and padding.

        Raises AerogelError `tar.changed` if the file does not have exactly `entry.size` bytes any more.
        """
        self.entry(entry)
        if self._buffer is None:
            self._buffer = memoryview(bytearray(CHUNK))
        buffer = self._buffer
        left = entry.size
        while True:
            # One byte more than is left: a short answer is the end of the file, so most files take one call.
            wanted = min(left + 1, CHUNK)
            got = os.readv(fd, [buffer[:wanted]])
            if got > left or (got == 0 and left):
                raise _changed(entry)
            if got:
                self.content(buffer[:got])
                left -= got
            if not left and got < wanted:
                break
        self.pad()

    def close(self) -> None:
        """Writes the end of the archive: two zero blocks and nothing after them."""
        if self._left:
            raise ValueError(f"{self._left} bytes of content are missing at the end")
        self._write(_ZEROS)
        self.offset += len(_ZEROS)


def _changed(entry: Entry) -> AerogelError:
    return AerogelError(
        f"file `{shown(entry.path)}` changed while it was read: it had {entry.size} bytes",
        code="tar.changed",
        hints=["run it again when nothing writes to the file"],
        temporary=True,
    )


# Reading


def _truncated(offset: int, what: str) -> AerogelError:
    return AerogelError(f"tar archive ends at byte {offset}, inside {what}", code="tar.truncated")


def _damaged(offset: int, what: str) -> AerogelError:
    return AerogelError(f"tar archive is damaged at byte {offset}: {what}", code="tar.header")


class _Input:
    """A stream with its position, read in big pieces; skips by seeking where the stream can."""

    __slots__ = ("_at", "_data", "_seek", "_stream", "offset")

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self.offset = 0
        seekable = getattr(stream, "seekable", None)
        self._seek: Callable[[int, int], object] | None = None
        if seekable is not None and seekable():
            self._seek = getattr(stream, "seek", None)

    def some(self, limit: int) -> memoryview:
        """Between 1 and `limit` bytes; nothing at the end."""
        if self._at == len(self._data):
            self._data = self._stream.read(CHUNK)
            self._at = 0
        piece = memoryview(self._data)[self._at : self._at + limit]
        self._at += len(piece)
        self.offset += len(piece)
        return piece

    def exactly(self, size: int, what: str) -> bytes:
        at = self._at
        if at + size <= len(self._data):
            self._at = at + size
            self.offset += size
            return self._data[at : at + size]
        pieces = []
        while size:
            piece = self.some(size)
            if not piece:
                raise _truncated(self.offset, what)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def block(self) -> bytes:
        """The next header block, or nothing at the end of the stream."""
        at = self._at
        if at + BLOCK <= len(self._data):
            self._at = at + BLOCK
            self.offset += BLOCK
            return self._data[at : at + BLOCK]
        first = self.some(BLOCK)
        if not first or len(first) == BLOCK:
            return bytes(first)
        return bytes(first) + self.exactly(BLOCK - len(first), "a header")

    def skip(self, size: int, what: str) -> None:
        ready = len(self._data) - self._at
        if size <= ready:
            self._at += size
            self.offset += size
            return
        if self._seek is not None and size - ready > CHUNK:
            # The last byte is read and not sought, so that a truncated file is noticed.
            self._seek(size - ready - 1, os.SEEK_CUR)
            self._at = len(self._data)
            self.offset += size - 1
            size = 1
        while size:
            piece = self.some(size)
            if not piece:
                raise _truncated(self.offset, what)
            size -= len(piece)


def _number(field: bytes, offset: int) -> int:
    first = field[0]
    if first & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if first & 0x40 else value - (1 << (bits - 1))
    text = field.partition(b"\0")[0].strip()
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise _damaged(offset, f"`{shown(field)}` is not a number")
    return int(text, 8)


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def _parse_pax(body: bytes, into: dict[bytes, bytes], offset: int) -> None:
    """Adds the records of an extended header; an empty value takes a record away."""
    at = 0
    end = len(body)
    while at < end:
        space = body.find(b" ", at, at + 12)
        digits = body[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise _damaged(offset, "a PAX record has no length")
        stop = at + int(digits)
        equals = body.find(b"=", space, stop)
        if stop > end or stop <= space + 2 or body[stop - 1] != 0x0A or equals < 0:
            raise _damaged(offset, "a PAX record does not have the length it says")
        key = body[space + 1 : equals]
        value = body[equals + 1 : stop - 1]
        if key.startswith(b"GNU.sparse."):
            raise AerogelError(
                "tar archive holds a sparse file in GNU form, which layers may not contain",
                code="tar.sparse",
                hints=["make the archive without `--sparse`"],
            )
        if value:
            into[key] = value
        else:
            into.pop(key, None)
        at = stop


def _pax_integer(key: bytes, value: bytes, offset: int) -> int:
    whole, _, fraction = value.partition(b".")
    sign = whole[:1] == b"-"
    if not (whole[1:] if sign else whole).isdigit() or (fraction and not fraction.isdigit()) or len(whole) > 20:
        raise _damaged(offset, f"PAX record `{shown(key)}` is `{shown(value)}`, not a number")
    number = int(whole)
    return number - 1 if sign and fraction.strip(b"0") else number


class Content:
    """The content of the entry just read; what is not taken is skipped."""

    __slots__ = ("_input", "left", "offset", "size")

    def __init__(self, source: _Input, size: int) -> None:
        self._input = source
        self.offset = source.offset
        self.size = size
        self.left = size

    def some(self, limit: int = CHUNK) -> memoryview:
        """Between 1 and `limit` bytes, nothing at the end. Raises AerogelError `tar.truncated`."""
        if not self.left:
            return memoryview(b"")
        piece = self._input.some(min(limit, self.left))
        if not piece:
            raise _truncated(self._input.offset, "the content of a file")
        self.left -= len(piece)
        return piece

    def read(self, size: int = -1) -> bytes:
        """All that is left, or exactly `size` bytes unless the content ends before."""
        want = self.left if size < 0 else min(size, self.left)
        self.left -= want
        return self._input.exactly(want, "the content of a file")

    def copy_to(self, fd: int) -> None:
        """Writes what is left to a descriptor."""
        while self.left:
            piece = self.some()
            while piece:
                piece = piece[os.write(fd, piece) :]


class _Parser:
    """Turns header blocks into entries; keeps what extended headers say until the entry they belong to."""

    __slots__ = ("_global", "_input", "_link", "_name", "_pax")

    def __init__(self, source: _Input, notes: dict[bytes, bytes] | None = None) -> None:
        self._input = source
        self._global: dict[bytes, bytes] = {} if notes is None else notes
        self._pax: dict[bytes, bytes] = {}
        self._name: bytes | None = None
        self._link: bytes | None = None

    def next(self) -> Entry | None:
        """The next entry, its content next in the input; nothing at the end of the archive."""
        source = self._input
        while True:
            offset = source.offset
            block = source.block()
            if not block or not block.strip(b"\0"):
                self._finish(block, offset)
                return None
            self._verify(block, offset)
            kind = block[156]
            if kind in b"xgLK":
                self._extension(kind, block, offset)
                continue
            return self._entry(block, kind, offset)

    def _finish(self, block: bytes, offset: int) -> None:
        if self._pax or self._name is not None or self._link is not None:
            raise _truncated(offset, "an entry of which only the extended header is there")
        if block and self._input.block().strip(b"\0"):
            raise _damaged(offset, "a single zero block is followed by something else")

    @staticmethod
    def _verify(block: bytes, offset: int) -> None:
        stated = _number(block[148:156], offset)
        cleared = block[:148] + b"        " + block[156:]
        if stated == _checksum(cleared):
            return
        # Old Sun and NeXT tars summed signed bytes.
        if stated == sum(byte - 256 if byte > 127 else byte for byte in cleared):
            return
        raise _damaged(offset, "the checksum of the header is wrong")

    def _extension(self, kind: int, block: bytes, offset: int) -> None:
        size = _number(block[124:136], offset)
        if not 0 <= size <= _MAX_EXTENSION:
            raise AerogelError(
                f"tar archive has an extended header of {size} bytes at byte {offset}; {_MAX_EXTENSION} are allowed",
                code="tar.extension-too-large",
            )
        body = self._input.exactly(size, "an extended header")
        self._input.skip(-size % BLOCK, "an extended header")
        if kind == 0x78:
            _parse_pax(body, self._pax, offset)
        elif kind == 0x67:
            _parse_pax(body, self._global, offset)
        elif kind == 0x4C:
            self._name = _text(body)
        else:
            self._link = _text(body)

    def _entry(self, block: bytes, kind: int, offset: int) -> Entry:
        name = _text(block[:100])
        magic = block[257:265]
        if magic[:6] == b"ustar\0":
            width = 476 if block[508:512] == b"tar\0" else 500
            if block[345]:
                name = _text(block[345:width]) + b"/" + name
        if self._name is not None:
            name = self._name
        link = _text(block[157:257]) if self._link is None else self._link
        size = _number(block[124:136], offset)
        mtime = _number(block[136:148], offset)
        uid = _number(block[108:116], offset)
        gid = _number(block[116:124], offset)
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        pax = {**self._global, **self._pax} if self._global else self._pax
        if pax:
            name = pax.get(b"path", name)
            link = pax.get(b"linkpath", link)
            if b"size" in pax:
                size = _pax_integer(b"size", pax[b"size"], offset)
            if b"mtime" in pax:
                mtime = _pax_integer(b"mtime", pax[b"mtime"], offset)
            if b"uid" in pax:
                uid = _pax_integer(b"uid", pax[b"uid"], offset)
            if b"gid" in pax:
                gid = _pax_integer(b"gid", pax[b"gid"], offset)
            xattrs = tuple(sorted((key[13:], pax[key]) for key in pax if key.startswith(b"SCHILY.xattr.")))
            self._pax = {}
        self._name = self._link = None
        if kind in {0, _CONTIGUOUS}:
            kind = DIR if kind == 0 and name.endswith(b"/") else REG
        if not REG <= kind <= 0x36:
            raise _unsupported(kind, name)
        if min(size, uid, gid) < 0 or size >= 1 << 63 or b"\0" in name or b"\0" in link:
            raise _damaged(offset, f"entry `{shown(name)}` has a number out of range or a zero byte in a name")
        path = clean_path(name)
        if not path and kind != DIR:
            raise _damaged(offset, f"a {kind:#x} entry has no name")
        if kind == LNK:
            link = clean_path(link)
        elif kind != SYM:
            link = b""
        rdev = (0, 0)
        if kind in (CHR, BLK):
            rdev = (_number(block[329:337], offset), _number(block[337:345], offset))
        mode = _number(block[100:108], offset) & 0o7777
        return Entry(path, kind, mode, uid, gid, size if kind == REG else 0, mtime, link, rdev, xattrs)


def _unsupported(kind: int, name: bytes) -> AerogelError:
    if kind == 0x53:
        return AerogelError(
            f"tar archive holds `{shown(name)}` as a sparse file in GNU form, which layers may not contain",
            code="tar.sparse",
            hints=["make the archive without `--sparse`"],
        )
    return AerogelError(
        f"tar archive holds `{shown(name)}` of the unknown type `{shown(bytes([kind]))}`", code="tar.type"
    )


def scan(stream: Readable) -> Iterator[tuple[Entry, int]]:
    """The entries of a tar stream with the offset of their content; content is skipped, by seeking if possible.

    After the last one the stream stands somewhere behind the end marker: drain it if its digest matters.
    Raises AerogelError `tar.*` for what is damaged, truncated or not supported.
    """
    source = _Input(stream)
    parser = _Parser(source)
    while (entry := parser.next()) is not None:
        yield entry, source.offset
        if entry.size:
            source.skip(entry.size + -entry.size % BLOCK, f"`{shown(entry.path)}`")


def read_entries(stream: Readable, notes: dict[bytes, bytes] | None = None) -> Iterator[tuple[Entry, Content]]:
    """The entries of a tar stream with their content, each to be read before the next is asked for.

    `notes` gets the global PAX records, those at the begin before the first entry is given.
    Raises AerogelError `tar.*` for what is damaged, truncated or not supported.
    """
    source = _Input(stream)
    parser = _Parser(source, notes)
    while (entry := parser.next()) is not None:
        content = Content(source, entry.size)
        yield entry, content
        if entry.size:
            source.skip(content.left + -entry.size % BLOCK, f"`{shown(entry.path)}`")
