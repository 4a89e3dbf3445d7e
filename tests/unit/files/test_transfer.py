"""What comes out of a container is not believed."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, REG, Entry
from aerogel.files.tar import TarWriter
from aerogel.files.transfer import pack, read_head, unpack

SOUND = {"name": "file", "kind": REG, "mode": 0o644, "uid": 0, "gid": 0, "mtime": 0}


def stream(data: bytes) -> int:
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb") as file:
            file.write(data)

    threading.Thread(target=feed).start()
    return read


def framed(head: object) -> bytes:
    data = json.dumps(head).encode()
    return struct.pack(">I", len(data)) + data


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../evil"}, {"name": ".."}, {"name": "."}, {"name": "a\0b"}, {"name": 7}, {"kind": 0x39},
        {"kind": None}, {"mode": "755"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_head_that_lies(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    read = stream(framed({**SOUND, **change}))
    with pytest.raises(AerogelError) as caught:
        unpack({"path": f"{tmp_path}/in", "plain": True, "owner": [os.getuid(), os.getgid()]}, [read, -1])
    assert caught.value.code == "cp.stream"
    assert os.listdir(tmp_path) == ["in"]
    os.close(read)


@pytest.mark.parametrize(
    "data", [struct.pack(">I", 1 << 31), framed([1, 2]), framed("x"), struct.pack(">I", 3) + b"{{{"]
)
def test_what_is_no_head(data: bytes) -> None:
    read = stream(data)
    with pytest.raises(AerogelError) as caught:
        read_head(read)
    assert caught.value.code == "cp.stream"
    os.close(read)


@pytest.mark.parametrize("data", [b"", b"\0\0", struct.pack(">I", 9) + b"{"])
def test_one_that_ended_early(data: bytes) -> None:
    read = stream(data)
    assert read_head(read) is None
    os.close(read)


@pytest.mark.parametrize("is_folder", [False, True])
def test_no_file_on_this_host_gets_the_rights_of_another_user(tmp_path: Path, is_folder: bool) -> None:
    data = io.BytesIO()
    writer = TarWriter(data.write)
    writer.entry(Entry(b"su", REG, 0o6755, 0, 0))
    writer.close()
    kind = {"name": "dir", "kind": DIR, "mode": 0o2755} if is_folder else {"name": "su", "mode": 0o6755}
    read = stream(framed({**SOUND, **kind}) + data.getvalue() + b"complete")
    unpack({"path": str(tmp_path), "plain": True, "owner": [os.getuid(), os.getgid()]}, [read, -1])
    os.close(read)
    made = tmp_path / "dir/su" if is_folder else tmp_path / "su"
    assert stat.S_IMODE(made.stat().st_mode) == 0o755


def test_a_file_that_changes_is_called_by_its_name() -> None:
    read, write = os.pipe()
    with pytest.raises(AerogelError) as caught:
        pack({"path": "/proc/self/status"}, [-1, write])
    assert caught.value.message.startswith("file `status` changed while it was read")
    os.close(read)
    os.close(write)


def packed(path: Path) -> bytes:
    read, write = os.pipe()
    data: list[bytes] = []

    def collect() -> None:
        with open(read, "rb") as file:
            data.append(file.read())

    thread = threading.Thread(target=collect)
    thread.start()
    pack({"path": str(path)}, [-1, write])
    os.close(write)
    thread.join()
    return data[0]


def take(data: bytes, target: Path) -> None:
    read = stream(data)
    try:
        unpack({"path": str(target), "plain": True, "owner": [os.getuid(), os.getgid()]}, [read, -1])
    finally:
        os.close(read)


@pytest.mark.parametrize("is_there", [False, True])
def test_what_is_cut_off_leaves_nothing(tmp_path: Path, is_there: bool) -> None:
    """Wherever the other side ends: between two files, within one, after the last one."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "zeros").write_bytes(bytes(2048))
    whole, one = packed(source), packed(source / "zeros")
    target = tmp_path / "target"
    for data in (whole, one):
        body = data.index(b"}") + 1
        for end in (
            body,
            body + 512,
            body + 1024,
            body + 1536,
            body + 2560,
            len(data) - 1024,
            len(data) - 8,
            len(data) - 1,
        ):
            target.mkdir()
            if is_there and data is one:
                (target / "zeros").write_text("old")
            with pytest.raises(AerogelError) as caught:
                take(data[:end], target)
            assert caught.value.code in ("cp.stream", "tar.truncated"), caught.value.code
            left = os.listdir(target)
            assert left == (["zeros"] if is_there and data is one else []), end
            assert not left or (target / "zeros").read_text() == "old"
            shutil.rmtree(target)
    target.mkdir()
    take(whole, target)
    take(one, target / "new")
    assert os.listdir(target / "source") == ["zeros"]
    assert (target / "new").read_bytes() == bytes(2048)
