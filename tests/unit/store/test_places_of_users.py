"""What a user names as the place of a result is replaced only if it is a file: not a device, a pipe or a link to one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.store.disk import write_whole


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, lambda file: file.write(b"content"))
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_link_of_the_kernel_is_followed(tmp_path: Path) -> None:
    """Such as /dev/stdout, also when it leads to a file: that one is held open by somebody."""
    with (tmp_path / "held").open("w+b") as held:
        write_whole(Path(f"/proc/self/fd/{held.fileno()}"), lambda file: file.write(b"content"))
        assert held.read() == b"content"
    assert os.listdir(tmp_path) == ["held"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fails(file: object) -> None:
        raise AerogelError("no more", code="test.no-more")

    with pytest.raises(AerogelError, match="no more"):
        write_whole(target, fails)
    assert target.read_text() == "old"
    write_whole(target, lambda file: file.write(b"new"))
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AerogelError, match="directory"):
        write_whole(tmp_path, lambda file: file.write(b"new"))
    assert tmp_path.is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="devices are made by root")
def test_a_device_stays_one(tmp_path: Path) -> None:
    device, link = tmp_path / "null", tmp_path / "link"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    link.symlink_to(device)
    for place in (device, link):
        write_whole(place, lambda file: file.write(b"content"))
    assert (stat.S_ISCHR(device.stat().st_mode), device.stat().st_rdev) == (True, os.makedev(1, 3))
    assert link.is_symlink()
