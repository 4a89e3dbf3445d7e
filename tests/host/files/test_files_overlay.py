"""Layers out of real overlay mounts and back into them."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
from pathlib import Path

import pytest
from layer_trees import Overlays, layer_tar, read_tar, run_job, unpack

from aerogel.errors import AerogelError
from aerogel.files import jobs
from aerogel.files.entry import CHR, DIR, FIFO, LNK, REG, SYM, Entry

pytestmark = pytest.mark.host

CAPABILITY = struct.pack("<IIIII", 0x02000000, 0x400, 0, 0, 0)
EPOCH = 1_000_000_000


def base(path: Path) -> Path:
    content = [
        (Entry(b"d", DIR, 0o755, mtime=5), b""),
        (Entry(b"d/deep", DIR, 0o755), b""),
        (Entry(b"d/deep/file", REG, 0o644), b"deep"),
        (Entry(b"d/gone", REG, 0o644), b"x"),
        (Entry(b"d/linked", REG, 0o644), b"linked"),
        (Entry(b"etc", DIR, 0o755), b""),
        (Entry(b"etc/conf", REG, 0o644, 1, 2), b"conf"),
        (Entry(b"file", REG, 0o644), b"file"),
        (Entry(b"fold", DIR, 0o755), b""),
        (Entry(b"fold/in", REG, 0o644), b"in"),
        (Entry(b"swap", DIR, 0o755), b""),
        (Entry(b"swap/a", REG, 0o644), b"a"),
    ]
    unpack(layer_tar(content), path)
    return path


def diff(overlays: Overlays, lowers: list[Path], name: str = "m", epoch: int | None = EPOCH) -> bytes:
    args = {"upper": str(overlays.root / f"{name}-upper"), "lowers": list(map(str, lowers)), "epoch": epoch}
    first = run_job(jobs.diff, args)
    assert run_job(jobs.diff, args) == first
    return first


def test_untouched_mount_gives_an_empty_layer(overlays: Overlays) -> None:
    lower = base(overlays.root / "base")
    overlays.mount([lower])
    assert diff(overlays, [lower]) == bytes(1024)


def test_every_kind_of_change(overlays: Overlays) -> None:
    lower = base(overlays.root / "base")
    m = overlays.mount([lower])
    (m / "new").mkdir()
    (m / "new" / "file").write_bytes(b"new")
    os.utime(m / "new" / "file", (7, -7))
    (m / "d" / "gone").unlink()
    (m / "file").write_bytes(b"changed")
    os.chown(m / "etc" / "conf", 70000, 70001)
    shutil.rmtree(m / "swap")
    (m / "swap").mkdir()
    (m / "swap" / "b").write_bytes(b"b")
    shutil.rmtree(m / "fold")
    (m / "fold").write_bytes(b"now a file")
    os.link(m / "d" / "linked", m / "a-link")
    os.symlink("/etc/conf", m / "sym")
    os.mkfifo(m / "pipe")
    os.mknod(m / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(m / "socket"))
    sock.close()
    os.setxattr(m / "etc" / "conf", "security.capability", CAPABILITY)
    os.setxattr(m / "etc" / "conf", "user.note", b"a\0b")
    os.setxattr(m / "etc" / "conf", "trusted.other", b"x")
    (m / os.fsdecode(b"n\xff\xfe")).write_bytes(b"")
    long = m
    for _ in range(3):
        long = long / ("l" * 100)
        long.mkdir()
    (long / "f").write_bytes(b"long")
    (m / "passing").write_bytes(b"")
    (m / "passing").unlink()
    with (m / "sparse").open("wb") as file:
        file.truncate(100_000)

    found = read_tar(diff(overlays, [lower]))
    names = [name for name in found if not name.startswith(b"lll")]
    assert names == [
        b"a-link",
        b"d",
        b"d/.wh.gone",
        b"d/linked",
        b"etc",
        b"etc/conf",
        b"file",
        b"fold",
        b"new",
        b"new/file",
        b"null",
        b"n\xff\xfe",
        b"pipe",
        b"sparse",
        b"swap",
        b"swap/.wh..wh..opq",
        b"swap/b",
        b"sym",
    ]
    assert found[b"new/file"] == (Entry(b"new/file", REG, 0o644, size=3, mtime=-7), b"new")
    assert found[b"d"][0].mtime <= EPOCH
    assert found[b"file"][0].mtime == EPOCH
    conf = found[b"etc/conf"][0]
    assert (conf.uid, conf.gid) == (70000, 70001)
    assert conf.xattrs == ((b"security.capability", CAPABILITY), (b"user.note", b"a\0b"))
    assert found[b"a-link"] == (found[b"a-link"][0], b"linked")
    assert found[b"d/linked"][0]._replace(mtime=0) == Entry(b"d/linked", LNK, 0o644, link=b"a-link")
    assert (found[b"sym"][0].kind, found[b"sym"][0].link) == (SYM, b"/etc/conf")
    assert (found[b"pipe"][0].kind, found[b"null"][0].kind, found[b"null"][0].rdev) == (FIFO, CHR, (1, 3))
    assert found[b"sparse"][1] == bytes(100_000)
    assert found[b"fold"][0].kind == REG


def test_directories_are_written_only_for_a_reason(overlays: Overlays) -> None:
    lower = base(overlays.root / "base")
    m = overlays.mount([lower])
    (m / "etc" / "x").write_bytes(b"")
    (m / "etc" / "x").unlink()
    os.utime(m / "d", (1, 1))
    os.chmod(m / "fold", 0o700)
    (m / "d" / "deep" / "more").write_bytes(b"1")
    found = read_tar(diff(overlays, [lower]))
    assert list(found) == [b"d", b"d/deep", b"d/deep/more", b"fold"]
    assert found[b"fold"][0].mode == 0o700


@pytest.mark.parametrize("kind", ["trusted", "user"])
def test_layers_stack_as_they_were_made(overlays: Overlays, kind: str) -> None:
    """diff -> extract in overlay form -> mount on top again shows what the first mount showed; diffs are equal."""
    options = ",userxattr" if kind == "user" else ""
    lower = base(overlays.root / "base")
    m = overlays.mount([lower], options=options)
    shutil.rmtree(m / "swap")
    (m / "swap").mkdir()
    (m / "swap" / "b").write_bytes(b"b")
    (m / "d" / "gone").unlink()
    shutil.rmtree(m / "fold")
    (m / "x").write_bytes(b"x")
    os.link(m / "x", m / "y")
    tar = diff(overlays, [lower])

    second = overlays.root / "second"
    unpack(tar, second, kind)
    again = overlays.mount([lower, second], "again", options)
    assert _listing(again) == _listing(m)
    assert diff(overlays, [lower, second], "again") == bytes(1024)
    # a change on top of the stack sees whiteouts and opaque directories of the middle layer as absence
    (again / "d" / "gone").write_bytes(b"back")
    (again / "d" / "gone").unlink()
    (again / "swap" / "a").write_bytes(b"back")
    (again / "swap" / "a").unlink()
    assert diff(overlays, [lower, second], "again") == bytes(1024)
    (again / "swap" / "b").unlink()
    shutil.rmtree(again / "d")
    assert list(read_tar(diff(overlays, [lower, second], "again"))) == [b".wh.d", b"swap", b"swap/.wh.b"]

    plain = base(overlays.root / "plain")
    unpack(tar, plain)
    assert _listing(plain) == _listing(m)


def _listing(root: Path) -> list[tuple[object, ...]]:
    found = []
    for folder, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = Path(folder, name)
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found.append((str(path.relative_to(root)), status.st_mode, status.st_uid, status.st_gid, content))
    return sorted(found)


def test_directory_over_a_file_and_over_a_whiteout(overlays: Overlays) -> None:
    lower = base(overlays.root / "base")
    m = overlays.mount([lower])
    (m / "file").unlink()
    (m / "file").mkdir()
    (m / "file" / "x").write_bytes(b"")
    found = read_tar(diff(overlays, [lower]))
    assert list(found) == [b"file", b"file/x"]
    assert found[b"file"][0].kind == DIR


def test_redirect_and_whiteout_names_are_refused(overlays: Overlays) -> None:
    lower = base(overlays.root / "base")
    m = overlays.mount([lower])
    (m / ".wh.x").write_bytes(b"")
    with pytest.raises(AerogelError) as caught:
        diff(overlays, [lower])
    assert caught.value.code == "diff.whiteout-name"
    (m / ".wh.x").unlink()
    upper = overlays.root / "m-upper"
    (upper / "moved").mkdir()
    os.setxattr(upper / "moved", "trusted.overlay.redirect", b"d")
    with pytest.raises(AerogelError) as caught:
        diff(overlays, [lower])
    assert caught.value.code == "diff.redirect"


def test_archive_and_exclude(overlays: Overlays) -> None:
    lower = base(overlays.root / "base")
    found = read_tar(run_job(jobs.archive, {"root": str(lower), "epoch": 3, "exclude": ["/etc/", "swap/a"]}))
    assert list(found) == [
        b"d",
        b"d/deep",
        b"d/deep/file",
        b"d/gone",
        b"d/linked",
        b"file",
        b"fold",
        b"fold/in",
        b"swap",
    ]
    assert found[b"d"][0].mtime == 3
    assert found[b"fold/in"][0].mtime == 0
