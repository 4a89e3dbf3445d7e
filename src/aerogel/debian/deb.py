"""Reads a .deb: an `ar` archive of a version member, a control tar and a data tar.

For: the control files and a checked stream of the data entries of one package, without dpkg and without writing
anything. Not for: installing. A package is not trusted to be well-formed: every member must lie inside the file,
and an entry must stay inside the root that it will be put in.
Spec: deb(5), Debian Policy 10.
"""

from __future__ import annotations

import io
import lzma
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import msgspec

from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, KIND_NAMES, LNK, REG, SYM, Entry, parents, shown
from aerogel.files.tar import read_entries

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionObj

__all__ = ["CONTROL_LIMIT", "Deb", "Decoder", "Member", "Reader", "open_deb"]

CONTROL_LIMIT = 64 << 20
"""Most bytes that a control tar may unpack to."""

_MAGIC = b"!<arch>\n"
_HEADER = 60
_COPY = 1 << 16
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW = 128 << 20


class Reader(Protocol):
    """The one method of a file that is read from front to end."""

    def read(self, size: int = -1, /) -> bytes: ...


class Member(msgspec.Struct, frozen=True, gc=False):
    """A member of the `ar` archive: where its bytes lie in the file."""

    name: str
    offset: int
    size: int


class Deb:
    """An open .deb. Made by `open_deb`; `control` holds the small files of the control tar by name."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self._file = file
        members = _members(name, file)
        if not members or members[0].name != "debian-binary":
            raise _fault(name, "its first member is not `debian-binary`")
        version = self._raw(members[0]).read(16)
        if not version.startswith(b"2."):
            raise _fault(name, f"its format is {version.strip()!r}, not 2.0")
        # Members whose names begin with `_` belong to nobody and are skipped (deb(5)).
        parts = [member for member in members[1:] if not member.name.startswith("_")]
        if len(parts) < 2 or not parts[0].name.startswith("control.tar") or not parts[1].name.startswith("data.tar"):
            raise _fault(name, "it does not hold a control tar followed by a data tar")
        self._control, self._data = parts[:2]
        self.control: Mapping[str, bytes] = self._read_control(self._control)
        if "control" not in self.control:
            raise _fault(name, "its control tar has no `control` file")

    @property
    def data_codec(self) -> str:
        """`gz`, `xz`, `zst`, or empty when the data tar is not compressed."""
        return self._data.name.removeprefix("data.tar").removeprefix(".")

    def data(self) -> Reader:
        """The uncompressed data tar from its first byte; one reader at a time.

        Reading raises `debian.deb-damaged` when the compressed bytes are wrong or end early.
        """
        return self._uncompressed(self._data)

    def write_plain(self, out: BinaryIO) -> None:
        """Writes the package with its two tars uncompressed, as dpkg reads it too: for who pays dearly for xz.

        `out` is empty and can be sought in. Raises `debian.deb-damaged`.
        """
        out.write(_MAGIC)
        _write_member(out, "debian-binary", io.BytesIO(b"2.0\n"))
        _write_member(out, "control.tar", self._uncompressed(self._control))
        _write_member(out, "data.tar", self.data())

    def _raw(self, member: Member) -> io.BufferedReader:
        return io.BufferedReader(_Slice(self._file, member.offset, member.size), _COPY)

    def _uncompressed(self, member: Member) -> Reader:
        codec = member.name.partition(".tar")[2]
        raw = self._raw(member)
        if codec == ".xz":
            xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            return _Inflated(self.name, member.name, raw, cast("Decoder", xz), lzma.LZMAError)
        if codec == ".gz":
            return _Inflated(self.name, member.name, raw, _Gunzip(), zlib.error)
        if codec == ".zst":
            import zstandard

            decoder = _Unzstd(zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj())
            return _Inflated(self.name, member.name, raw, decoder, zstandard.ZstdError)
        if codec == "":
            return raw
        raise _fault(self.name, f"its member `{member.name}` is compressed in a way that is not gz, xz or zst")

    def entries(self) -> Iterator[tuple[Entry, Reader]]:
        """The data entries with their content, each to be read before the next is asked for, in the package's order.

        Paths are canonical. An entry that could touch anything outside the tree is refused: other kinds than files,
        links and directories, a hard link to what the package has not brought itself, a path through a link.

        Raises:
            AerogelError: `debian.deb-unsafe`, `debian.deb-damaged`.
        """
        return _checked(self.name, self.data())

    def _read_control(self, member: Member) -> dict[str, bytes]:
        stream = _Limited(self.name, self._uncompressed(member), CONTROL_LIMIT)
        files: dict[str, bytes] = {}
        for entry, content in _checked(self.name, stream):
            if entry.kind == DIR:
                continue
            if entry.kind != REG or b"/" in entry.path:
                raise _unsafe(self.name, entry.path, "is not a plain file of the control tar")
            files[os.fsdecode(entry.path)] = content.read()
        return files


@contextmanager
def open_deb(path: str | os.PathLike[str]) -> Iterator[Deb]:
    """Opens a .deb file and reads its control tar; closes the file at the end.

    Raises:
        AerogelError: `debian.deb-damaged` (not a .deb, truncated), `debian.deb-unsafe`.
    """
    with open(path, "rb") as file:
        yield Deb(os.path.basename(os.fspath(path)), file)


def _checked(deb: str, stream: Reader) -> Iterator[tuple[Entry, Reader]]:
    kinds: dict[bytes, int] = {}
    try:
        for entry, content in read_entries(stream):
            path, kind = entry.path, entry.kind
            if kind not in (REG, LNK, SYM, DIR):
                raise _unsafe(deb, path, f"is a {KIND_NAMES.get(kind, 'thing of unknown kind')}")
            if path in kinds and not (kind == DIR and kinds[path] == DIR):
                raise _unsafe(deb, path, "occurs twice")
            if kind == LNK and kinds.get(entry.link) != REG:
                raise _unsafe(deb, path, f"is a hard link to `{shown(entry.link)}`, no file before it in the package")
            if kind == SYM and (not entry.link or b"\0" in entry.link):
                raise _unsafe(deb, path, "is a symbolic link to nothing")
            for parent in parents(path):
                if kinds.get(parent, DIR) != DIR:
                    raise _unsafe(deb, path, f"lies below `{shown(parent)}`, which is no directory")
            kinds[path] = REG if kind == LNK else kind
            yield entry, _Named(deb, content)
    except AerogelError as error:
        raise _told(deb, error) from None


class _Named:
    """The content of an entry; what is wrong with the tar around it is told with the package's name."""

    __slots__ = ("_content", "_deb")

    def __init__(self, deb: str, content: Reader) -> None:
        self._deb = deb
        self._content = content

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._content.read(size)
        except AerogelError as error:
            raise _told(self._deb, error) from None


def _told(deb: str, error: AerogelError) -> AerogelError:
    if error.code == "tar.path":
        return _unsafe_text(deb, error.message)
    return _fault(deb, error.message) if error.code.startswith("tar.") else error


def _unsafe(deb: str, path: bytes, what: str) -> AerogelError:
    return _unsafe_text(deb, f"its entry `{shown(path)}` {what}")


def _unsafe_text(deb: str, what: str) -> AerogelError:
    return AerogelError(
        f"`{deb}` is refused: {what}",
        code="debian.deb-unsafe",
        hints=["no package of the Debian archive does this: the file comes from somewhere else"],
    )


def _fault(deb: str, what: str) -> AerogelError:
    return AerogelError(f"`{deb}` is not a usable Debian package: {what}", code="debian.deb-damaged")


def _members(name: str, file: BinaryIO) -> list[Member]:
    """Scans the `ar` headers; GNU and BSD long names do not occur in a .deb and are refused by their sizes."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _fault(name, "it does not begin as an `ar` archive")
    members = []
    at = len(_MAGIC)
    while at < end:
        file.seek(at)
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            raise _fault(name, f"it is truncated in the member header at byte {at}")
        digits = header[48:58].rstrip(b" ")
        if header[58:60] != b"`\n" or not digits.isdigit():
            raise _fault(name, f"the member header at byte {at} is damaged")
        size = int(digits)
        member = header[:16].rstrip(b" ").removesuffix(b"/").decode("ascii", "replace")
        start = at + _HEADER
        if start + size > end:
            raise _fault(name, f"it is truncated: `{member}` needs {start + size} bytes, the file has {end}")
        members.append(Member(member, start, size))
        at = start + size + (size & 1)
    return members


def _write_member(out: BinaryIO, name: str, content: Reader) -> None:
    """A header, the content, the header again when the size is known; members begin at even places."""
    start = out.tell()
    out.write(bytes(_HEADER))
    while data := content.read(_COPY):
        out.write(data)
    size = out.tell() - start - _HEADER
    out.write(b"\n" * (size & 1))
    end = out.tell()
    out.seek(start)
    out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode())
    out.seek(end)


class _Slice(io.RawIOBase):
    """Bytes `offset` to `offset + size` of a file, read without moving its position."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._fd = file.fileno()
        self._at = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")[: self._end - self._at]
        count = os.preadv(self._fd, [view], self._at) if len(view) else 0
        self._at += count
        return count


class Decoder(Protocol):
    """What `lzma.LZMADecompressor` and `_Gunzip` share."""

    eof: bool
    needs_input: bool

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """`zlib` with the interface of `lzma.LZMADecompressor`."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)
        self.eof = False
        self.needs_input = True

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))
        self.eof = self._inner.eof
        self.needs_input = not self._inner.unconsumed_tail and not self.eof
        return out


class _Unzstd:
    """zstandard's decompressor with the interface of `lzma.LZMADecompressor`.

    It has no limit of output, so it is fed little at a time: 4 KiB make at most 128 MiB, and 16 KiB as a rule.
    """

    def __init__(self, inner: ZstdDecompressionObj) -> None:
        self._inner = inner
        self._feed = b""
        self._ready = b""
        self.eof = False
        self.needs_input = True

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        self._feed += data
        while not self._ready and self._feed and not self._inner.eof:
            piece, self._feed = self._feed[:4096], self._feed[4096:]
            self._ready = self._inner.decompress(piece)
        if max_length < 0 or len(self._ready) <= max_length:
            out, self._ready = self._ready, b""
        else:
            out, self._ready = self._ready[:max_length], self._ready[max_length:]
        self.eof = self._inner.eof and not self._ready
        self.needs_input = not self._ready and not self._feed and not self.eof
        return out


class _Inflated:
    """A stream decompressed on the way; every fault of the codec becomes an error that names the package."""

    def __init__(
        self, deb: str, member: str, raw: io.BufferedReader, decoder: Decoder, faults: type[Exception]
    ) -> None:
        self._deb = deb
        self._member = member
        self._raw = raw
        self._decoder = decoder
        self._faults = faults

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, fewer only at the end."""
        pieces: list[bytes] = []
        wanted = size
        while wanted != 0 and not self._decoder.eof:
            feed = self._raw.read1(_COPY) if self._decoder.needs_input else b""
            if not feed and self._decoder.needs_input:
                raise _fault(self._deb, f"its member `{self._member}` ends in the middle of the compressed data")
            try:
                piece = self._decoder.decompress(feed, wanted if size >= 0 else _COPY)
            except self._faults as error:
                raise _fault(self._deb, f"its member `{self._member}` is damaged: {error}") from None
            if piece:
                pieces.append(piece)
                wanted -= len(piece) if size >= 0 else 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Limited:
    """A stream that must end within a number of bytes."""

    def __init__(self, deb: str, stream: Reader, limit: int) -> None:
        self._deb = deb
        self._stream = stream
        self._left = limit

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _fault(self._deb, "its control tar is far too large")
        return data
