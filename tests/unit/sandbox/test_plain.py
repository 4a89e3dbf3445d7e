"""What is put into a tree where nothing can be mounted, and taken out again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aerogel.sandbox.plain import Filling

SECRET = b"correct horse"


@pytest.mark.parametrize(
    ("act", "is_left"),
    [
        (lambda _place, _other: None, False),
        (os.replace, True),  # a leak, which the search of the layer has to see
        (os.link, True),
        (lambda place, _other: os.unlink(place), False),
    ],
    ids=["left", "moved", "linked", "removed"],
)
def test_the_file_of_a_secret_is_overwritten(tmp_path: Path, act: Callable[[str, str], None], is_left: bool) -> None:
    for name in ("tree", "aside"):
        (tmp_path / name).mkdir()
    filling = Filling(f"{tmp_path}/tree", f"{tmp_path}/aside")
    root = os.open(filling.tree, os.O_PATH)
    place = filling.place(root, "/run/secrets/s")
    filling.write(place, SECRET)
    filling.placed()
    os.close(root)
    with open(place, "rb") as disk:
        assert disk.read() == SECRET
        act(place, f"{tmp_path}/tree/other")
        filling.give_back()
        disk.seek(0)
        assert disk.read() == (SECRET if is_left else bytes(len(SECRET)))
    filling.restore()
    assert not os.path.exists(place)
