"""Results of makers that are kept: used again, checked, and made anew when they are damaged."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from aerogel.distroless.layout import Item, Layout
from aerogel.distroless.made import FOLDER, contents_digest, made_once
from aerogel.files.entry import LNK, REG, SYM, Entry


class Counted:
    """Makes two files, one of them under two names, and a link; counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, layout: Layout) -> None:
        self.times += 1
        layout.write(b"a/one", b"first")
        layout.write(b"a/two", b"x" * 100_000, mode=0o755)
        layout.link(b"b", b"a/one")


def read(cache: Path, make: Counted, key: bytes = b"k", epoch: int = 7) -> dict[bytes, tuple[int, int, bytes]]:
    with ExitStack() as stack:
        found = made_once(cache, (key,), epoch, stack, make)
        layout = Layout()
        return {path: (item.entry.mode, item.entry.mtime, layout.read(item)) for path, item in found.items()}


def test_a_result_is_made_once(tmp_path: Path) -> None:
    make = Counted()
    first = read(tmp_path, make)
    assert first[b"a/one"] == (0o644, 7, b"first")
    assert first[b"a/two"] == (0o755, 7, b"x" * 100_000)
    assert read(tmp_path, make) == first
    assert make.times == 1
    read(tmp_path, make, key=b"other")
    read(tmp_path, make, epoch=8)
    assert make.times == 3
    assert len(list((tmp_path / FOLDER).iterdir())) == 3


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:0], lambda data: data[:600] + b"y" + data[601:]]
)
def test_a_damaged_result_is_made_anew(tmp_path: Path, damage) -> None:
    make = Counted()
    first = read(tmp_path, make)
    (kept,) = (tmp_path / FOLDER).iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    assert read(tmp_path, make) == first
    assert make.times == 2


def test_nothing_is_kept_of_what_fails(tmp_path: Path) -> None:
    def make(layout: Layout) -> None:
        layout.write(b"a", b"")
        layout.write(b"a/b", b"")

    with ExitStack() as stack, pytest.raises(Exception, match="cannot be placed"):
        made_once(tmp_path, (b"k",), 0, stack, make)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_contents_decide_and_times_do_not() -> None:
    def digest(**changes: object) -> bytes:
        entry = Entry(b"a", REG, 0o644, size=3, mtime=1)._replace(**changes)
        return contents_digest({b"a": Item(entry, b"abc" if entry.kind in (REG, LNK) else b"")})

    assert digest() == digest(mtime=2)
    assert digest() != digest(size=2)
    assert digest(kind=SYM, link=b"x") != digest(kind=SYM, link=b"y")
