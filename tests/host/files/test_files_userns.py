"""The file jobs as mapped root of a user namespace: the same tars as under real root."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from layer_trees import Overlays, layer_tar, read_tar, run_job, unpack

from aerogel.errors import AerogelError
from aerogel.files import jobs
from aerogel.files.entry import CHR, DIR, FIFO, LNK, REG, SYM, Entry

pytestmark = [pytest.mark.host, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to map ids")]

BASE = 700_000
_NEWUSER, _NEWNS, _PRIVATE = 0x10000000, 0x20000, 0x44000
_libc = ctypes.CDLL(None, use_errno=True)


def as_mapped_root(action: Callable[[], None]) -> None:
    """Runs a function in a child that is root of a user namespace of 65,536 ids."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if _libc.unshare(_NEWUSER | _NEWNS) != 0:
                os._exit(77)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            os.setgroups([])
            _libc.mount(b"none", b"/", None, _PRIVATE, None)
            action()
            status = 0
        except BaseException:  # noqa: BLE001 - the child of a test
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(ready[1])
    if os.read(ready[0], 1):
        Path(f"/proc/{child}/uid_map").write_text(f"0 {BASE} 65536")
        Path(f"/proc/{child}/gid_map").write_text(f"0 {BASE} 65536")
    os.write(go[1], b"x")
    _, status = os.waitpid(child, 0)
    for fd in (ready[0], *go):
        os.close(fd)
    if os.waitstatus_to_exitcode(status) == 77:
        pytest.skip("no user namespaces here")
    assert os.waitstatus_to_exitcode(status) == 0


BELOW = [
    (Entry(b"d", DIR, 0o755, 3, 4), b""),
    (Entry(b"d/f", REG, 0o4755, 5, 6), b"f"),
    (Entry(b"d/gone", REG, 0o644), b"x"),
    (Entry(b"swap", DIR, 0o755), b""),
    (Entry(b"swap/a", REG, 0o644), b"a"),
]

CAPABILITY = bytes.fromhex("0000000200040000000000000000000000000000")


def changed(root: Path) -> None:
    (root / "d/gone").unlink()
    (root / "swap/a").unlink()
    (root / "swap").rmdir()
    (root / "swap").mkdir()
    (root / "swap/b").write_bytes(b"b")
    os.chown(root / "d/f", 65535, 1000)
    (root / "cap").write_bytes(b"")
    os.setxattr(root / "cap", "security.capability", CAPABILITY)
    os.mkfifo(root / "p")
    os.symlink("x", root / "s")
    os.lchown(root / "s", 7, 8)
    os.link(root / "cap", root / "cap2")


def layer_of(root: Path, options: str, kind: str) -> bytes:
    """Changes an overlay mount and gives its layer; then stacks the layer as unpacked and expects nothing new."""
    unpack(layer_tar(BELOW), root / "base", kind)
    overlays = Overlays(root)
    changed(overlays.mount([root / "base"], options=options))
    args = {"upper": str(root / "m-upper"), "lowers": [str(root / "base")], "epoch": 5}
    tar = run_job(jobs.diff, args)
    unpack(tar, root / "again", kind)
    merged = overlays.mount([root / "base", root / "again"], "check", options)
    assert sorted(os.listdir(merged)) == ["cap", "cap2", "d", "p", "s", "swap"]
    assert os.listdir(merged / "swap") == ["b"]
    assert os.listdir(merged / "d") == ["f"]
    overlays.close()
    return tar


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory of the mapped root; pytest's own are closed to other users."""
    path = Path(tempfile.mkdtemp())
    os.chown(path, BASE, BASE)
    yield path
    jobs.remove({"path": str(path)}, [])


def test_the_same_layer_as_under_real_root(tmp_path: Path, shared: Path) -> None:
    mapped = shared / "mapped"

    def action() -> None:
        mapped.mkdir()
        (mapped / "layer.tar").write_bytes(layer_of(mapped, ",userxattr", "user"))

    as_mapped_root(action)
    root = tmp_path / "root"
    root.mkdir()
    tar = layer_of(root, "", "trusted")
    assert tar == (mapped / "layer.tar").read_bytes()
    found = read_tar(tar)
    assert list(found) == [
        b"cap",
        b"cap2",
        b"d",
        b"d/.wh.gone",
        b"d/f",
        b"p",
        b"s",
        b"swap",
        b"swap/.wh..wh..opq",
        b"swap/b",
    ]
    assert found[b"cap"][0].xattrs == ((b"security.capability", CAPABILITY),)
    assert found[b"cap2"][0].kind == LNK
    assert (found[b"d/f"][0].uid, found[b"d/f"][0].gid, found[b"d/f"][0].mode) == (65535, 1000, 0o755)
    assert (found[b"s"][0].kind, found[b"s"][0].uid, found[b"p"][0].kind) == (SYM, 7, FIFO)


def test_what_a_user_namespace_cannot_do(shared: Path) -> None:
    def action() -> None:
        with pytest.raises(AerogelError) as caught:
            unpack(layer_tar([(Entry(b"null", CHR, 0o666, rdev=(1, 3)), b"")]), shared / "a")
        assert caught.value.code == "extract.device"
        assert "without real root" in caught.value.message
        with pytest.raises(AerogelError) as caught:
            unpack(layer_tar([(Entry(b"f", REG, 0o644, 65536, 0), b"")]), shared / "b")
        assert caught.value.code == "extract.owner"
        with pytest.raises(AerogelError) as caught:
            unpack(layer_tar([(Entry(b"s", SYM, 0o777, 1 << 31, 0, link=b"x"), b"")]), shared / "c")
        assert caught.value.code == "extract.owner"
        dropped = unpack(layer_tar([(Entry(b"f", REG, 0o644, xattrs=((b"trusted.x", b"1"),)), b"")]), shared / "d")
        assert dropped["dropped_xattrs"] == 1
        (shared / "d" / "closed").mkdir(mode=0)
        jobs.remove({"path": str(shared / "d")}, [])
        assert not (shared / "d").exists()

    as_mapped_root(action)
