"""Unpacking layers, hostile ones above all: nothing outside the directory is ever touched."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_trees import Overlays, layer_tar, read_tar, run_job, unpack

from aerogel.errors import AerogelError
from aerogel.files import jobs
from aerogel.files.entry import BLK, CHR, DIR, FIFO, LNK, REG, SYM, Entry
from aerogel.files.index import build_index
from aerogel.files.inside import Directories
from aerogel.files.tree import LayerTree

pytestmark = [pytest.mark.host, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change owners")]

Layer = list[tuple[Entry, bytes]]


def file(path: bytes, content: bytes = b"", mode: int = 0o644) -> tuple[Entry, bytes]:
    return Entry(path, REG, mode), content


def folder(path: bytes, mode: int = 0o755) -> tuple[Entry, bytes]:
    return Entry(path, DIR, mode), b""


def symlink(path: bytes, target: bytes) -> tuple[Entry, bytes]:
    return Entry(path, SYM, 0o777, link=target), b""


def hard(path: bytes, target: bytes) -> tuple[Entry, bytes]:
    return Entry(path, LNK, 0o644, link=target), b""


def gone(path: bytes) -> tuple[Entry, bytes]:
    return Entry(path, REG, 0o644), b""


def names(root: Path) -> list[str]:
    return sorted(str(Path(at, n).relative_to(root)) for at, ds, fs in os.walk(root) for n in ds + fs)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"secret")
    return path


def check_untouched(outside: Path) -> None:
    assert names(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert (outside / "secret").stat().st_nlink == 1


def test_attributes_and_times(tmp_path: Path) -> None:
    root = tmp_path / "root"
    layer: Layer = [
        (Entry(b"d", DIR, 0o2750, 3, 4, mtime=-5), b""),
        (Entry(b"d/f", REG, 0o4755, 70000, 70001, mtime=12, xattrs=((b"user.a", b"1\0"),)), b"content"),
        (Entry(b"d/s", SYM, 0o777, 5, 6, mtime=13, link=b"/etc/x"), b""),
        (Entry(b"d/p", FIFO, 0o620, 1, 1, mtime=14), b""),
        (Entry(b"d/n", CHR, 0o666, 0, 0, mtime=15, rdev=(1, 3)), b""),
        (Entry(b"d/b", BLK, 0o660, 0, 6, mtime=15, rdev=(8, 300)), b""),
        (Entry(b"d/h", LNK, 0o644, link=b"d/f"), b""),
        (Entry(b"implied/below/f", REG, 0o644), b""),
        (Entry(b"far", REG, 0o644, mtime=1 << 60), b""),
    ]
    old = os.umask(0o077)
    try:
        assert unpack(layer_tar(layer), root) == {"entries": 9, "bytes": 7, "dropped_xattrs": 0}
    finally:
        os.umask(old)
    d, f = (root / "d").stat(), (root / "d/f").stat()
    assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_gid, d.st_mtime) == (0o2750, 3, 4, -5)
    assert (stat.S_IMODE(f.st_mode), f.st_uid, f.st_gid, f.st_mtime, f.st_nlink) == (0o4755, 70000, 70001, 12, 2)
    assert os.getxattr(root / "d/f", "user.a") == b"1\0"
    s = (root / "d/s").lstat()
    assert (os.readlink(root / "d/s"), s.st_uid, s.st_gid, s.st_mtime) == ("/etc/x", 5, 6, 13)
    assert (root / "d/n").stat().st_rdev == os.makedev(1, 3)
    assert (root / "d/b").stat().st_rdev == os.makedev(8, 300)
    assert stat.S_IMODE((root / "d/p").stat().st_mode) == 0o620
    implied = (root / "implied/below").stat()
    assert (stat.S_IMODE(implied.st_mode), implied.st_uid) == (0o755, 0)


@pytest.mark.parametrize("overlay", [None, "trusted"])
def test_symlinked_parents_never_lead_out(tmp_path: Path, outside: Path, overlay: str | None) -> None:
    up = b"../" * 30 + bytes(outside)[1:]
    layer = [
        symlink(b"abs", bytes(outside)),
        file(b"abs/new", b"x"),
        file(b"abs/secret", b"x"),
        symlink(b"up", up),
        file(b"up/secret", b"x"),
        symlink(b"a", b"b"),
        symlink(b"b", bytes(outside)),
        folder(b"a/dir"),
        symlink(b"self", b"."),
        file(b"self/self/deep", b"x"),
        symlink(b"secret", bytes(outside / "secret")),
        file(b"secret", b"x"),
    ]
    unpack(layer_tar(layer), tmp_path / "root", overlay)
    check_untouched(outside)
    assert (tmp_path / "root" / "secret").read_bytes() == b"x"


def test_in_root_links_are_followed_in_a_plain_tree_as_the_index_says(tmp_path: Path) -> None:
    layers = [
        [folder(b"usr"), folder(b"usr/lib"), symlink(b"lib", b"usr/lib"), symlink(b"abs", b"/usr")],
        [file(b"lib/x", b"1"), file(b"abs/lib/y", b"2"), file(b"lib/new/z", b"3")],
    ]
    root = tmp_path / "root"
    for layer in layers:
        unpack(layer_tar(layer), root)
    tree = LayerTree([build_index(io.BytesIO(layer_tar(layer))) for layer in layers])
    assert sorted(os.fsdecode(e.path) for e in tree.walk() if e.path) == names(root)
    assert (root / "usr/lib/new/z").read_bytes() == b"3"


@pytest.mark.parametrize("overlay", [None, "trusted", "user"])
@pytest.mark.parametrize("target", [b"../outside/secret", b"secret", b"etc/passwd", b"link/secret", b"d"])
def test_hard_links_out_or_to_nothing(tmp_path: Path, outside: Path, overlay: str | None, target: bytes) -> None:
    link = layer_tar([folder(b"d"), symlink(b"link", bytes(outside)), (Entry(b"h", LNK, 0o644, link=target), b"")])
    with pytest.raises(AerogelError) as caught:
        unpack(link, tmp_path / "root", overlay)
    assert caught.value.code in ("extract.hard-link", "tar.path")
    check_untouched(outside)


@pytest.mark.parametrize("name", ["../outside/secret", "/../outside/secret", "a/../../outside/secret"])
def test_dot_dot_and_absolute_names(tmp_path: Path, outside: Path, name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(AerogelError) as caught:
        unpack(out.getvalue(), tmp_path / "root")
    assert caught.value.code == "tar.path"
    check_untouched(outside)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(f"{outside}/new"))
    unpack(out.getvalue(), tmp_path / "root")
    check_untouched(outside)
    assert (tmp_path / "root" / str(outside)[1:] / "new").exists()


def test_whiteouts_stay_inside(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "root"
    unpack(layer_tar([symlink(b"l", bytes(outside)), symlink(b"up", b"..")]), root)
    unpack(layer_tar([gone(b"l/.wh.secret"), gone(b"up/.wh.outside"), gone(b"l/.wh..wh..opq")]), root)
    check_untouched(outside)
    for bad in (b".wh.", b".wh..", b".wh..."):
        with pytest.raises(AerogelError) as caught:
            unpack(layer_tar([gone(bad)]), root)
        assert caught.value.code == "extract.whiteout", bad
    check_untouched(outside)


def test_overlay_marks_in_a_layer(tmp_path: Path) -> None:
    for overlay in (None, "trusted"):
        with pytest.raises(AerogelError) as caught:
            unpack(layer_tar([(Entry(b"x", CHR, 0o600, rdev=(0, 0)), b"")]), tmp_path / "root", overlay)
        assert caught.value.code == "extract.device"
    marks = ((b"trusted.overlay.opaque", b"y"), (b"user.aerogel.stat", b"z"), (b"user.overlay.redirect", b"/"))
    done = unpack(layer_tar([(Entry(b"d", DIR, 0o755, xattrs=marks), b"")]), tmp_path / "root2", "trusted")
    assert done["dropped_xattrs"] == 3
    assert os.listxattr(tmp_path / "root2" / "d") == []


def test_duplicates_the_last_one_counts(tmp_path: Path) -> None:
    layer = [
        file(b"a", b"1"),
        hard(b"b", b"a"),
        file(b"a", b"2"),
        folder(b"d"),
        file(b"d/x"),
        file(b"d", b"file now"),
        symlink(b"s", b"x"),
        folder(b"s"),
        file(b"s/y"),
        folder(b"s", 0o700),
        hard(b"b", b"b"),
        hard(b"b", b"a"),
        file(b"f"),
        file(b"f/below", b"was a file"),
    ]
    root = tmp_path / "root"
    unpack(layer_tar(layer), root)
    assert names(root) == ["a", "b", "d", "f", "f/below", "s", "s/y"]
    assert (root / "a").read_bytes() == (root / "b").read_bytes() == b"2"
    assert (root / "d").read_bytes() == b"file now"
    assert stat.S_IMODE((root / "s").stat().st_mode) == 0o700


def test_names_that_no_file_system_takes(tmp_path: Path) -> None:
    for name in (b"n" * 256, b"d/" * 100 + b"n" * 100_000):
        with pytest.raises(AerogelError) as caught:
            unpack(layer_tar([file(name)]), tmp_path / "root")
        assert caught.value.code == "extract.failed"
        assert "file name too long" in caught.value.message
        assert len(caught.value.message) < 600
    deep = b"/".join([b"d" * 50] * 200)
    unpack(layer_tar([file(deep + b"/f", b"deep")]), tmp_path / "deep")
    jobs.remove({"path": str(tmp_path / "deep")}, [])
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("overlay", [None, "trusted"])
def test_a_whiteout_behind_what_the_layer_brings_itself(tmp_path: Path, overlay: str | None) -> None:
    root = tmp_path / "root"
    if overlay is None:
        unpack(layer_tar([folder(b"d"), file(b"d/old"), file(b"f"), folder(b"e"), file(b"e/old")]), root)
    layer = [
        folder(b"d"),
        file(b"d/new"),
        gone(b".wh.d"),
        file(b"f", b"2"),
        gone(b".wh.f"),
        file(b"e/n"),
        gone(b".wh.e"),
    ]
    unpack(layer_tar(layer), root, overlay)
    assert names(root) == ["d", "d/new", "e", "e/n", "f"]
    assert (root / "f").read_bytes() == b"2"
    if overlay:
        assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"
        assert os.getxattr(root / "e", "trusted.overlay.opaque") == b"y"


def test_below_a_whiteout_without_a_directory_entry(tmp_path: Path) -> None:
    root = tmp_path / "root"
    unpack(
        layer_tar([gone(b".wh.d"), file(b"d/x/new"), gone(b".wh.e"), folder(b"e"), gone(b".wh.gone")]), root, "trusted"
    )
    assert names(root) == ["d", "d/x", "d/x/new", "e", "gone"]
    assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(root / "e", "trusted.overlay.opaque") == b"y"
    assert os.listxattr(root / "d/x") == []
    mark = (root / "gone").lstat()
    assert stat.S_ISCHR(mark.st_mode)
    assert mark.st_rdev == 0


def test_opaque_root(tmp_path: Path) -> None:
    with pytest.raises(AerogelError) as caught:
        unpack(layer_tar([gone(b".wh..wh..opq")]), tmp_path / "root", "trusted")
    assert caught.value.code == "extract.opaque-root"
    unpack(layer_tar([file(b"a"), file(b"b")]), tmp_path / "plain")
    unpack(layer_tar([file(b"c"), gone(b".wh..wh..opq")]), tmp_path / "plain")
    assert names(tmp_path / "plain") == ["c"]


def test_truncated_stream(tmp_path: Path) -> None:
    data = layer_tar([file(b"a", b"x" * 5000)])
    with pytest.raises(AerogelError) as caught:
        unpack(data[:3000], tmp_path / "root")
    assert caught.value.code == "tar.truncated"


def test_full_file_system_is_the_hosts_fault(overlays: Overlays, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    from layer_trees import mount_tmpfs

    with mount_tmpfs(small, "size=64k"):
        with pytest.raises(AerogelError) as caught:
            unpack(layer_tar([file(b"a", bytes(1 << 20))]), small)
    assert (caught.value.code, caught.value.exit_status) == ("extract.failed", 3)
    assert "no space left" in caught.value.message


def test_remove_follows_nothing(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "root"
    unpack(layer_tar([symlink(b"l", bytes(outside)), folder(b"d"), file(b"d/f")]), root)
    os.chmod(root / "d", 0)
    jobs.remove({"path": str(root)}, [])
    jobs.remove({"path": str(root)}, [])
    assert not root.exists()
    check_untouched(outside)
    os.symlink(outside, tmp_path / "top")
    jobs.remove({"path": str(tmp_path / "top")}, [])
    check_untouched(outside)


def test_read(tmp_path: Path, outside: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    unpack(layer_tar([file(b"d/a", b"low"), file(b"b", b"bb"), symlink(b"l", bytes(outside))]), low)
    unpack(layer_tar([file(b"d/a", b"high!")]), high)
    args = {"lowers": [str(low), str(high)], "paths": ["d/a", "b"], "sizes": [5, 2]}
    assert run_job(jobs.read, args) == b"high!bb"
    assert run_job(jobs.read, {"root": str(low), "paths": ["d/a"], "sizes": [3]}) == b"low"
    for path, size, code in (("d/a", 2, "read.changed"), ("d/a", 4, "read.changed"), ("l/secret", 6, "read.failed")):
        with pytest.raises(AerogelError) as caught:
            run_job(jobs.read, {"root": str(low), "paths": [path], "sizes": [size]})
        assert caught.value.code == code


def test_directories_keep_few_descriptors(tmp_path: Path) -> None:
    root = tmp_path / "root"
    unpack(layer_tar([folder(b"d%d" % n) for n in range(400)]), root)
    before = len(os.listdir("/proc/self/fd"))
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    with Directories(fd) as directories:
        for _ in range(2):
            for n in range(400):
                directories.fd(b"d%d" % n)
        assert len(os.listdir("/proc/self/fd")) < before + 140
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


_name = st.sampled_from([b"a", b"b", b"c"])
_path = st.lists(_name, min_size=1, max_size=3).map(b"/".join)
_kind = st.sampled_from(["file", "dir", "link", "gone", "opaque"])


@given(st.lists(st.lists(st.tuples(_path, _kind, _path), max_size=6), min_size=1, max_size=3))
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_plain_unpacking_equals_the_merged_index(tmp_path: Path, stack: list[list[tuple[bytes, str, bytes]]]) -> None:
    """Whatever the layers, in whatever order: the tree on disk is the tree that the indexes give."""
    root = tmp_path / "root"
    jobs.remove({"path": str(root)}, [])
    tars = []
    for number, changes in enumerate(stack):
        layer: Layer = []
        for path, kind, other in {path: (path, kind, other) for path, kind, other in changes}.values():
            parent, _, name = path.rpartition(b"/")
            prefix = parent + b"/" if parent else b""
            if kind == "file":
                layer.append(file(path, b"%d" % number))
            elif kind == "dir":
                layer.append(folder(path, 0o700 + number))
            elif kind == "link":
                layer.append(symlink(path, other))
            elif kind == "gone":
                # First, because a path that the layer both hides and reaches through a link depends on the order.
                layer.insert(0, gone(prefix + b".wh." + name))
            else:
                layer.append(gone(path + b"/.wh..wh..opq"))
        tars.append(layer_tar(layer))
    try:
        expected = LayerTree([build_index(io.BytesIO(tar)) for tar in tars])
        for tar in tars:
            unpack(tar, root)
    except AerogelError:
        return
    shown = read_tar(run_job(jobs.archive, {"root": str(root)}))
    found = {path: (e.kind, e.mode, e.link) for path, (e, _) in shown.items()}
    assert found == {e.path: (e.kind, e.mode, e.link) for e in expected.walk() if e.path}
