"""The decoders behind `files.codec`: gzip, bzip2, xz and zstd streams read in bounded pieces.

Not for use elsewhere: `codec.open_uncompressed` picks one. gzip goes through `isal` where it is there, else through
the standard library; libraries are imported when first used.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import IO, Protocol, cast

from aerogel.errors import AerogelError
from aerogel.files.tar import Readable

__all__ = ["READ_SIZE", "Members", "ZstdReader"]

READ_SIZE = 1 << 18
"""Bytes of compressed data read at a time."""


class _Decoder(Protocol):
    """The interface that `bz2`, `lzma` and `isal.igzip_lib` share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _ZlibDecoder:
    """The standard library's inflate behind that interface, where `isal` has no wheel."""

    __slots__ = ("_inner", "_tail")

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._tail = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inner.decompress(self._tail + data if self._tail else data, max_length)
        self._tail = self._inner.unconsumed_tail
        return out


def _decoder(family: str) -> Callable[[], _Decoder]:
    if family == "bzip2":
        from bz2 import BZ2Decompressor

        return BZ2Decompressor
    if family == "xz":
        import lzma

        return lambda: lzma.LZMADecompressor(memlimit=512 << 20)
    try:
        from isal import igzip_lib
    except ImportError:
        return _ZlibDecoder

    def isal() -> _Decoder:
        decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return decoder

    return isal


class Members:
    """Concatenated members of gzip, bzip2 or xz; zero bytes may follow the last one."""

    __slots__ = ("_data", "_decoder", "_family", "_new", "_source", "_started")

    def __init__(self, source: Readable, family: str) -> None:
        self._source = source
        self._family = family
        self._new = _decoder(family)
        self._decoder = self._new()
        self._data = b""
        self._started = False

    def read(self, size: int, /) -> bytes:
        while True:
            decoder = self._decoder
            if decoder.eof:
                if not self._next_member(decoder.unused_data):
                    return b""
                continue
            data = self._data
            self._data = b""
            if not data and decoder.needs_input:
                data = self._source.read(READ_SIZE)
                if not data:
                    if not self._started:
                        return b""
                    raise AerogelError(f"{self._family} data ends too early", code="codec.truncated")
            self._started = True
            try:
                out = decoder.decompress(data, size)
            except Exception as error:
                if not _is_decoder_error(error):
                    raise
                raise _corrupt(self._family, error) from error
            if out:
                return out

    def _next_member(self, rest: bytes) -> bool:
        while True:
            # Tapes and some archivers pad with zeros behind the last member.
            rest = rest.lstrip(b"\0")
            if rest:
                break
            rest = self._source.read(READ_SIZE)
            if not rest:
                return False
        self._data = rest
        self._decoder = self._new()
        return True


def _is_decoder_error(error: Exception) -> bool:
    """Whether a decoder means damaged data by it: each has a class of its own, some derived from Exception only."""
    return isinstance(error, (OSError, ValueError, EOFError, zlib.error)) or type(error).__name__ in (
        "LZMAError",
        "IsalError",
        "ZstdError",
    )


def _corrupt(family: str, error: Exception) -> AerogelError:
    return AerogelError(f"{family} data is damaged: {error}", code="codec.corrupt")


class ZstdReader:
    __slots__ = ("_reader",)

    def __init__(self, source: Readable) -> None:
        import zstandard

        # The library only ever calls read(size).
        stream = cast("IO[bytes]", source)
        decompressor = zstandard.ZstdDecompressor()
        self._reader = decompressor.stream_reader(stream, read_size=READ_SIZE, read_across_frames=True)

    def read(self, size: int, /) -> bytes:
        try:
            return self._reader.read(size)
        except Exception as error:
            if not _is_decoder_error(error):
                raise
            raise _corrupt("zstd", error) from error
