"""An index that is written entry by entry is byte for byte the one of a list, and tells its summary without it."""

from __future__ import annotations

from io import BytesIO

import pytest

from aerogel.files.entry import CHR, DIR, REG, SYM, Entry
from aerogel.files.index import IndexWriter, LayerIndex, Summary, read_summary


def entries(count: int) -> list[Entry]:
    """Files of many kinds, sizes and times."""
    made = [Entry(b"", DIR, 0o755), Entry(b"dev", CHR, 0o600, rdev=(1, 3)), Entry(b"l", SYM, 0o777, link=b"../x")]
    for number in range(count):
        path = b"folder%d/%s" % (number // 7, b"x" * (number % 300))
        size = number * 1000
        made.append(Entry(path, REG, 0o644 | number % 2, number % 3, 5, size, number % 5 - 1))
    made.append(Entry(b"z", REG, 0o4755, xattrs=((b"user.a", b"\0" * 300),)))
    return made


@pytest.mark.parametrize("count", [0, 3, 5000])
@pytest.mark.parametrize("mark", [None, 0, 1_700_000_000, 1 << 40])
def test_written_as_a_list_is(count: int, mark: int | None) -> None:
    rows = entries(count)
    offsets = [number * 7_000_000 for number in range(len(rows))]
    index = LayerIndex(rows, offsets, {b"etc/passwd": b"root", b"etc/group": b""}, mark)
    writer = IndexWriter()
    writer.mark = mark
    for entry, offset in zip(rows, offsets, strict=True):
        writer.add(entry, offset)
    writer.small.update(index.small)
    saved = b"".join(writer.pieces())
    assert saved == index.dumps()
    assert saved == b"".join(writer.pieces())
    assert LayerIndex.loads(saved) == index
    assert writer.summary() == index.summary()
    assert read_summary(BytesIO(saved)) == (index.summary() if mark is None else None)
    assert len(writer) == len(index) == len(rows)


def test_no_entries() -> None:
    assert b"".join(IndexWriter().pieces()) == LayerIndex([], []).dumps()
    assert read_summary(BytesIO(LayerIndex([], []).dumps())) is None


@pytest.mark.parametrize(
    "odd",
    [
        Entry(b"big", REG, 0o644, size=1 << 31),
        Entry(b"id", REG, 0o644, uid=1 << 31),
        Entry(b"t", REG, 0, mtime=1 << 33),
    ],
)
def test_wide_numbers_take_the_entries(odd: Entry) -> None:
    rows = [*entries(1500), odd]
    assert read_summary(BytesIO(LayerIndex(rows, [0] * len(rows)).dumps())) is None


def test_compiled_files_are_seen() -> None:
    index = LayerIndex([Entry(b"a", REG, 0o644, mtime=5), Entry(b"a.pyc", REG, 0o644, mtime=-7)], [0, 1])
    assert (
        read_summary(BytesIO(index.dumps())) == index.summary() == Summary(None, frozenset({5, -7}), has_compiled=True)
    )
