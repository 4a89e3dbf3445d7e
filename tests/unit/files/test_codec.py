"""Layer compression: repeatable bytes, correct digests, bounded decompression."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import threading
import zlib
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.files import codec, decode
from aerogel.files.codec import (
    BLOCK_SIZE,
    FAST,
    GZIP,
    SMALL,
    UNCOMPRESSED,
    ZSTD,
    Codec,
    LayerBlob,
    LayerWriter,
    codec_named,
    open_at,
    open_uncompressed,
    select,
    sniff,
)

CODECS = [GZIP, FAST, SMALL, ZSTD, UNCOMPRESSED, Codec("gzip", "zlib", 6), Codec("gzip", "isal", 1)]


def sample(size: int, seed: int = 1) -> bytes:
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(3, 40)) for _ in range(200)]
    out = bytearray()
    while len(out) < size:
        out += rng.choice(words)
    return bytes(out[:size])


def pack(path: Path, data: bytes, how: Codec, *, threads: int = 2, feed: int = 1 << 16) -> LayerBlob:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        with LayerWriter(fd, how, threads=threads) as writer:
            for at in range(0, len(data), feed):
                writer.write(data[at : at + feed])
            return writer.finish()
    finally:
        os.close(fd)


def read_all(stream: codec.Uncompressed) -> bytes:
    out = []
    while piece := stream.read(100_000):
        assert len(piece) <= 100_000
        out.append(piece)
    return b"".join(out)


@pytest.mark.parametrize("how", CODECS, ids=lambda c: c.name)
@pytest.mark.parametrize("size", [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, 3 * BLOCK_SIZE + 12345])
def test_round_trip_whatever_the_feed_and_the_threads(tmp_path: Path, how: Codec, size: int) -> None:
    data = sample(size)
    blob = pack(tmp_path / "a", data, how)
    stored = (tmp_path / "a").read_bytes()
    assert blob.diff_id == f"sha256:{sha256(data).hexdigest()}"
    assert blob.digest == f"sha256:{sha256(stored).hexdigest()}"
    assert (blob.size, blob.size_uncompressed, blob.codec) == (len(stored), size, how.name)
    assert blob.media_type is not None
    with (tmp_path / "a").open("rb") as stream:
        assert read_all(open_uncompressed(stream.fileno(), blob.media_type)) == data
    for threads, feed in ((1, 10_007), (4, BLOCK_SIZE + 1), (2, 4 * BLOCK_SIZE)):
        assert pack(tmp_path / "b", data, how, threads=threads, feed=feed) == blob
        assert (tmp_path / "b").read_bytes() == stored


def test_golden_bytes() -> None:
    """A change here changes every layer digest of every user: it needs a new codec name."""
    data = sample(BLOCK_SIZE + 1000, seed=7)
    found = {}
    for how in (GZIP, FAST, SMALL, ZSTD):
        fd = os.memfd_create("golden")
        with LayerWriter(fd, how) as writer:
            writer.write(data)
            found[how.name] = (writer.finish().digest or "")[7:23]
        os.close(fd)
    assert found == {
        "gzip-libdeflate-3-entries": "0e6d84b16a8ecbca",
        "gzip-libdeflate-1-entries": "f12a90f29a2fd17c",
        "gzip-libdeflate-6-entries": "a20c5cd34f1ef0f8",
        "zstd-3": "f7c79eb10a210f89",
    }


def test_diff_id_only() -> None:
    data = sample(2 * BLOCK_SIZE + 5)
    with LayerWriter(None, None) as writer:
        writer.write(data)
        blob = writer.finish()
    assert blob == LayerBlob(f"sha256:{sha256(data).hexdigest()}", len(data), None, None, None, None)


def test_gzip_is_read_by_the_standard_library(tmp_path: Path) -> None:
    data = sample(2 * BLOCK_SIZE + 5)
    pack(tmp_path / "a", data, GZIP)
    assert gzip.decompress((tmp_path / "a").read_bytes()) == data


@pytest.mark.parametrize("how", [GZIP, ZSTD, UNCOMPRESSED], ids=lambda c: c.name)
def test_open_at(tmp_path: Path, how: Codec) -> None:
    data = sample(5 * BLOCK_SIZE + 777)
    pack(tmp_path / "a", data, how)
    with (tmp_path / "a").open("rb") as stream:
        for offset in (0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, 4 * BLOCK_SIZE + 3, 5 * BLOCK_SIZE + 700):
            assert read_all(open_at(stream.fileno(), how, offset)) == data[offset:]
        if how is UNCOMPRESSED:
            return
        with pytest.raises(AerogelError) as caught:
            open_at(stream.fileno(), how, 7 * BLOCK_SIZE)
        assert caught.value.code == "codec.truncated"


def test_open_at_falls_back_for_foreign_gzip(tmp_path: Path) -> None:
    data = sample(3 * BLOCK_SIZE)
    (tmp_path / "a").write_bytes(gzip.compress(data))
    with (tmp_path / "a").open("rb") as stream:
        assert open_at(stream.fileno(), GZIP, 2 * BLOCK_SIZE + 9).read(50) == data[2 * BLOCK_SIZE + 9 :][:50]


@pytest.mark.parametrize(
    ("family", "compress"),
    [
        ("gzip", gzip.compress),
        ("bzip2", bz2.compress),
        ("xz", lzma.compress),
        ("zstd", lambda data: zstandard.ZstdCompressor().compress(data)),
    ],
)
def test_members_truncation_and_damage(family: str, compress) -> None:
    data = sample(300_000)
    packed = compress(data)
    assert sniff(packed[:262]) == family
    assert read_all(open_uncompressed(io.BytesIO(packed + packed), family)) == data * 2
    if family != "zstd":
        assert read_all(open_uncompressed(io.BytesIO(packed + bytes(1000)), family)) == data
    if family == "zstd":
        assert len(read_all(open_uncompressed(io.BytesIO(packed[:-20]), family))) < len(data)
    else:
        with pytest.raises(AerogelError) as caught:
            read_all(open_uncompressed(io.BytesIO(packed[:-20]), family))
        assert caught.value.code in ("codec.truncated", "codec.corrupt")
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    damaged[2] ^= 0xFF
    with pytest.raises(AerogelError) as caught:
        read_all(open_uncompressed(io.BytesIO(bytes(damaged)), family))
    assert caught.value.code in ("codec.corrupt", "codec.truncated")
    with pytest.raises(AerogelError):
        read_all(open_uncompressed(io.BytesIO(packed + b"garbage behind the end"), family))


def test_zlib_fallback_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_decoder", lambda _: decode._ZlibDecoder)
    data = sample(700_000)
    assert read_all(open_uncompressed(io.BytesIO(gzip.compress(data) * 2), "gzip")) == data * 2


def test_a_bomb_is_stopped_at_the_limit() -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    stream = open_uncompressed(io.BytesIO(bomb), "gzip", limit=1 << 20)
    with pytest.raises(AerogelError) as caught:
        read_all(stream)
    assert caught.value.code == "codec.too-large"
    assert "1048576 bytes" in caught.value.message
    assert stream.tell() <= (1 << 20) + 100_000


def _write_and_finish(writer: LayerWriter, data: bytes) -> None:
    writer.write(data)
    writer.finish()


def test_a_full_disk_is_an_error_of_the_host() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        for size in (1000, 9 * BLOCK_SIZE):
            with LayerWriter(fd, UNCOMPRESSED) as writer, pytest.raises(AerogelError) as caught:
                _write_and_finish(writer, sample(size))
            assert (caught.value.code, caught.value.exit_status) == ("codec.write", EXIT_HOST)
            assert os.strerror(errno.ENOSPC).lower() in caught.value.message
    finally:
        os.close(fd)


def test_abort_ends_the_threads() -> None:
    before = threading.active_count()
    fd = os.memfd_create("x")
    with LayerWriter(fd, GZIP) as writer:
        writer.write(sample(5 * BLOCK_SIZE))
        assert threading.active_count() > before
    os.close(fd)
    assert threading.active_count() == before


@pytest.mark.parametrize("how", [codec.GZIP, None])
def test_the_caller_may_give_up_at_each_block(how: Codec | None, tmp_path: Path) -> None:
    """Ctrl-C during a COPY of a big file: not one block more is taken, and the threads end."""
    before = threading.active_count()
    asked: list[int] = []

    def give_up() -> None:
        asked.append(len(asked))
        if len(asked) == 3:
            raise KeyboardInterrupt

    def copy(fd: int) -> None:
        with codec.LayerWriter(None if how is None else fd, how, threads=2, on_block=give_up) as writer:
            for _ in range(100):
                writer.write(bytes(1 << 20))

    with (tmp_path / "blob").open("wb") as file, pytest.raises(KeyboardInterrupt):
        copy(file.fileno())
    assert asked == [0, 1, 2]
    assert threading.active_count() == before


def test_names_and_levels() -> None:
    for how in CODECS:
        assert codec_named(how.name) == how
    assert select("gzip", 9).name == "gzip-libdeflate-9-entries"
    assert select("zstd").media_type == "application/vnd.oci.image.layer.v1.tar+zstd"
    for name in ("gzip-go-3-entries", "gzip-zlib-03-entries", "zstd-x", "", "gzip-zlib-3-2MiB"):
        with pytest.raises(AerogelError) as caught:
            codec_named(name)
        assert caught.value.code == "codec.unknown"
    with pytest.raises(AerogelError) as caught:
        select("zstd", 23)
    assert caught.value.code == "codec.level"
    with pytest.raises(AerogelError) as caught:
        select("lzw")
    assert caught.value.code == "codec.unknown"
    with pytest.raises(AerogelError) as caught:
        open_uncompressed(0, "application/json")
    assert caught.value.code == "codec.media-type"
    assert sniff(b"\x50\x2a\x4d\x18rest") == "zstd"
    assert sniff(b"hello") is None


def test_closing_closes_the_stream_but_no_descriptor() -> None:
    stream = io.BytesIO(gzip.compress(b"x"))
    with open_uncompressed(stream, "gzip") as plain:
        assert plain.read(5) == b"x"
    assert stream.closed
    fd = os.memfd_create("x")
    open_uncompressed(fd, "tar").close()
    os.close(fd)
