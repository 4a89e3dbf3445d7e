"""What is put into a tree where nothing can be mounted, and taken out again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aerogel.errors import AerogelError
from aerogel.sandbox.plain import Filling

SECRET = b"correct horse"
MOUNT = {"target": "/run/secrets/s", "uid": 0, "gid": 0, "mode": 0o400}


def move_above(place: str, other: str) -> None:
    os.replace(os.path.dirname(place), other)


@pytest.mark.parametrize(
    ("act", "is_moved"),
    [
        (lambda _place, _other: None, False),
        (os.replace, True),
        (os.link, True),
        (move_above, True),
        (lambda place, _other: os.unlink(place), False),
    ],
    ids=["left", "moved", "linked", "moved with its folder", "removed"],
)
def test_a_secret_is_in_no_file_of_the_tree(tmp_path: Path, act: Callable[[str, str], None], is_moved: bool) -> None:
    for name in ("tree", "aside"):
        (tmp_path / name).mkdir()
    filling = Filling(f"{tmp_path}/tree", f"{tmp_path}/aside")
    root = os.open(filling.tree, os.O_PATH)
    place = filling.place(root, "/run/secrets/s")
    filling.show(place, MOUNT, SECRET, is_bare=True)
    filling.placed()
    os.close(root)
    about = os.stat(place)
    assert (about.st_size, about.st_blocks, about.st_mode & 0o777) == (0, 0, 0)
    file = filling.unwritten.of(about)
    assert file is not None
    assert Path(os.fsdecode(file.path)).read_bytes() == SECRET
    act(place, f"{tmp_path}/tree/other")
    if is_moved:
        with pytest.raises(AerogelError, match="the step moved the file that is shown at `/run/secrets/s`") as caught:
            filling.check()
        assert caught.value.code == "sandbox.mount-moved"
    else:
        filling.check()
    filling.give_back()
    assert not filling.unwritten
    assert all(not path.stat().st_size for path in (tmp_path / "tree").rglob("*") if path.is_file())
    filling.restore()
    assert not os.path.exists(place)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (os.O_WRONLY, "Read-only file system"),
        (os.O_RDONLY | os.O_TRUNC, "Read-only file system"),
        (os.O_RDWR | os.O_CREAT, "Read-only file system"),
        (os.O_CREAT | os.O_EXCL | os.O_WRONLY, "File exists"),
        (os.O_RDONLY | os.O_DIRECTORY, "Not a directory"),
    ],
)
def test_opened_as_what_a_mount_would_be(shown: Any, flags: int, error: str) -> None:
    with pytest.raises(OSError, match=error):
        shown.opened(flags)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_NOFOLLOW, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC])
def test_opened_for_reading_each_has_its_own_place(shown: Any, flags: int) -> None:
    for _ in range(2):
        with open(shown.opened(flags), "rb") as file:
            assert file.read() == SECRET


def test_nobody_can_change_the_memory(shown: Any) -> None:
    fd = os.open(shown.path, os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


@pytest.fixture
def shown(tmp_path: Path) -> Any:
    filling = Filling(str(tmp_path), "")
    yield filling.unwritten.put(f"{tmp_path}/s", SECRET, 0, 0, 0o400, is_bare=True)
    filling.give_back()
