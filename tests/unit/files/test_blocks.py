"""Compressed blocks are found again; whether they are changes no byte of a layer."""

from __future__ import annotations

import os
import random
from hashlib import sha256
from pathlib import Path

import pytest

from aerogel.files import codec as codec_module
from aerogel.files.blocks import Blocks
from aerogel.files.codec import FAST, GZIP, LayerBlob, LayerWriter, codec_named, open_at
from aerogel.files.entry import REG, Entry
from aerogel.files.tar import TarWriter


def files(count: int, seed: int = 1) -> dict[bytes, bytes]:
    chance = random.Random(seed)
    words = [chance.randbytes(6).hex().encode() for _ in range(500)]
    return {
        b"d%03d/f%d" % (n // 20, n): b" ".join(chance.choices(words, k=chance.randrange(1500))) for n in range(count)
    }


def tar_of(contents: dict[bytes, bytes]) -> bytes:
    made = bytearray()
    tar = TarWriter(made.__iadd__)
    for path, data in sorted(contents.items()):
        tar.entry(Entry(path, REG, 0o644, size=len(data)))
        tar.content(data)
        tar.pad()
    tar.close()
    return bytes(made)


class Cellar:
    """Blobs by digest, and their blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compressed = 0
        self.blocks = Blocks(str(folder / "blocks"), lambda name: os.open(folder / name, os.O_RDONLY))

    def write(self, tar: bytes, *, reuse: bool = True, feed: int = 50_000, how: codec_module.Codec = GZIP) -> LayerBlob:
        path = self.folder / "new"
        with path.open("wb") as file, LayerWriter(file.fileno(), how, blocks=self.blocks if reuse else None) as writer:
            compress = writer._compress
            assert compress is not None

            def counted(block: memoryview) -> bytes | bytearray:
                self.compressed += len(block)
                return compress(block)

            writer._compress = counted
            for at in range(0, len(tar), feed):
                writer.write(tar[at : at + feed])
            made = writer.finish()
        path.rename(self.folder / str(made.digest)[7:])
        return made


@pytest.fixture
def cellar(tmp_path: Path) -> Cellar:
    return Cellar(tmp_path)


def test_an_edit_compresses_its_blocks_only(cellar: Cellar, tmp_path: Path) -> None:
    before = files(1200)
    first = cellar.write(tar_of(before))
    assert cellar.compressed > 8 << 20
    for number, change in enumerate([b"other", b"x" * 100_000, None]):
        after = dict(before)
        if change is None:
            del after[b"d029/f599"]
            after[b"a new one"] = b"y" * 5000
        else:
            after[b"d030/f611"] = change
        cellar.compressed = 0
        made = cellar.write(tar_of(after), feed=1 << (14 + number))
        assert cellar.compressed < 5 << 20
        anew = Cellar(tmp_path / f"empty{number}")
        anew.folder.mkdir()
        assert made == anew.write(tar_of(after))
        assert made.digest != first.digest
    cellar.compressed = 0
    assert cellar.write(tar_of(before)) == first == cellar.write(tar_of(before), reuse=False)


def test_what_is_damaged_or_gone_is_compressed(cellar: Cellar) -> None:
    tar = tar_of(files(600))
    first = cellar.write(tar)
    blob = cellar.folder / str(first.digest)[7:]
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert cellar.write(tar) == first
    assert blob.read_bytes() == whole
    blob.unlink()
    assert cellar.write(tar) == first
    table = cellar.folder / "blocks" / GZIP.name
    for damage in (b"", b"x" * 10, table.read_bytes()[:-7], table.read_bytes()[:300] + os.urandom(500)):
        table.write_bytes(damage)
        assert cellar.write(tar) == first
        cellar.compressed = 0
        assert cellar.write(tar) == first
        assert cellar.compressed < 1 << 17
    # Another compressor (as after an update of its library) takes nothing from what this one made.
    table.write_bytes(bytes([*table.read_bytes()[:20], table.read_bytes()[20] ^ 1, *table.read_bytes()[21:]]))
    cellar.compressed = 0
    assert cellar.write(tar) == first
    assert cellar.compressed > len(tar)


def test_levels_share_nothing(cellar: Cellar, tmp_path: Path) -> None:
    tar = tar_of(files(600))
    cellar.write(tar)
    plain = Cellar(tmp_path / "plain")
    plain.folder.mkdir()
    assert cellar.write(tar, how=FAST) == plain.write(tar, how=FAST, reuse=False)


@pytest.mark.slow
def test_a_table_stays_small(cellar: Cellar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aerogel.files.blocks._MAX_RECORDS", 20)
    for seed in range(8):
        cellar.write(tar_of(files(600, seed)))
        cellar.compressed = 0
        cellar.write(tar_of(files(600, seed)))
        assert cellar.compressed < 1 << 17
    assert (cellar.folder / "blocks" / GZIP.name).stat().st_size < 60 * 116


@pytest.mark.parametrize("name", ["gzip-libdeflate-3-entries", "gzip-libdeflate-3-1MiB", "gzip-zlib-1-entries"])
def test_any_place_can_be_entered(cellar: Cellar, name: str) -> None:
    tar = tar_of(files(600)) + bytes(5000)
    how = codec_named(name)
    made = cellar.write(tar, how=how)
    assert made.codec == name
    assert made.diff_id == f"sha256:{sha256(tar).hexdigest()}"
    with (cellar.folder / str(made.digest)[7:]).open("rb") as file:
        for offset in (0, 1, 1 << 18, (1 << 20) - 1, 1 << 20, 3_333_333, len(tar) - 1):
            stream = open_at(file.fileno(), how, offset)
            found = b""
            while len(found) < min(100, len(tar) - offset):
                found += stream.read(100)
            assert found[:100] == tar[offset : offset + 100]
