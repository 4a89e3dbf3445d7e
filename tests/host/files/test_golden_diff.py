"""Each kind of change gives the layer that stands here: from an overlay's upper directory, and from the walk of a copied tree.

The two tars are equal byte for byte, a second run gives the same bytes, and the layer unpacked on its base is the changed
tree.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from layer_trees import Overlays, layer_tar, read_tar, run_job, unpack

from aerogel.files import jobs
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry
from aerogel.sandbox import copied

pytestmark = pytest.mark.host

EPOCH = 1_000_000_000
CAPABILITY = struct.pack("<IIIII", 0x02000000, 0x400, 0, 0, 0)
NOTE = ((b"user.note", b"kept"),)
BASE = [
    (Entry(b"deep", DIR, 0o750, 3, 4, mtime=5), b""),
    (Entry(b"deep/er", DIR, 0o755, mtime=6), b""),
    (Entry(b"deep/er/file", REG, 0o644, 5, 6, mtime=7), b"deep"),
    (Entry(b"dir", DIR, 0o755, mtime=8), b""),
    (Entry(b"dir/a", REG, 0o644, mtime=9), b"a"),
    (Entry(b"dir/b", DIR, 0o700, mtime=10), b""),
    (Entry(b"dir/b/c", REG, 0o600, mtime=11), b"c"),
    (Entry(b"file", REG, 0o4755, mtime=12, xattrs=NOTE), b"file"),
    (Entry(b"one", REG, 0o644, mtime=13), b"linked"),
    (Entry(b"two", LNK, 0o644, link=b"one", mtime=13), b""),
    (Entry(b"way", SYM, 0o777, link=b"dir", mtime=14), b""),
]
LONG = "/".join("n" * 99 for _ in range(3))


def add(at: Path) -> None:
    (at / "new").mkdir(mode=0o700)
    (at / "new/file").write_bytes(b"new")
    (at / "deep/er/more").write_bytes(b"")
    (at / "new/link").symlink_to("/nowhere")


def rewrite(at: Path) -> None:
    (at / "file").write_bytes(b"FILE")  # of the same size, and the time is put back
    os.chmod(at / "file", 0o4755)
    os.utime(at / "file", (12, 12))


def write_the_same(at: Path) -> None:
    (at / "dir/a").write_bytes(b"a")
    os.utime(at / "dir/a", (9, 9))


def chown_both(at: Path) -> None:
    os.chown(at / "one", 8, 9)
    os.chown(at / "two", 8, 9)


def set_capability(at: Path) -> None:
    os.setxattr(at / "file", "security.capability", CAPABILITY)


def recreate(at: Path) -> None:
    shutil.rmtree(at / "dir")
    (at / "dir").mkdir(mode=0o755)
    (at / "dir/b").write_bytes(b"now a file")


def rename(at: Path) -> None:
    shutil.move(at / "dir", at / "moved")  # an overlay says EXDEV, so that it is copied


def file_of_directory(at: Path) -> None:
    shutil.rmtree(at / "dir")
    (at / "dir").write_bytes(b"file")


def directory_of_file(at: Path) -> None:
    (at / "file").unlink()
    (at / "file").mkdir(mode=0o755)
    (at / "file/x").write_bytes(b"")


def link_of_file(at: Path) -> None:
    (at / "file").unlink()
    (at / "file").symlink_to("dir/a")


def directory_of_link(at: Path) -> None:
    (at / "way").unlink()
    (at / "way").mkdir(mode=0o755)


def fifo(at: Path) -> None:
    os.mkfifo(at / "pipe")
    os.chmod(at / "pipe", 0o620)
    os.chown(at / "pipe", 7, 8)


def link_to_new(at: Path) -> None:
    (at / "m").write_bytes(b"new")
    os.link(at / "m", at / "b")
    os.link(at / "m", at / "dir/z")


def link_to_lower(at: Path) -> None:
    os.link(at / "deep/er/file", at / "a-link")


def sparse(at: Path) -> None:
    with (at / "holes").open("wb") as file:
        file.truncate(300_000)
        file.seek(150_000)
        file.write(b"x")


def odd_name(at: Path) -> None:
    (at / os.fsdecode(b"n\xff\xfe\nx")).write_bytes(b"odd")
    (at / os.fsdecode(b"l\xe4")).symlink_to(os.fsdecode(b"\xff"))


def long_path(at: Path) -> None:
    (at / LONG).mkdir(parents=True)
    (at / LONG / "f").write_bytes(b"long")
    (at / LONG / "l").symlink_to("t" * 200)


def owners(at: Path) -> None:
    os.chown(at / "file", 70000, 70001)
    os.chmod(at / "file", 0o4755)
    os.chown(at / "way", 70002, 70003, follow_symlinks=False)
    (at / "big").write_bytes(b"")
    os.chown(at / "big", 4_000_000_000, 3_000_000)


def before_1970(at: Path) -> None:
    (at / "old").write_bytes(b"old")
    os.utime(at / "old", (-7, -7))
    (at / "future").write_bytes(b"")
    os.utime(at / "future", (2**33, 2**33))


def nothing_lasting(at: Path) -> None:
    (at / "dir/passing").write_bytes(b"x")
    (at / "dir/passing").unlink()
    os.utime(at / "deep", (1, 1))


def device(at: Path) -> None:
    os.mknod(at / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(at / "null", 0o666)


Change = Callable[[Path], object]
CASES: dict[str, tuple[Change, list[str]]] = {
    "add": (add, [
        "deep d750 3:4 @5", "deep/er d755 0:0 @now", "deep/er/more f644 0:0 @now 0",
        "new d700 0:0 @now", "new/file f644 0:0 @now 3", "new/link l777 0:0 @now -> /nowhere",
    ]),
    "modify": (rewrite, ["file f4755 0:0 @12 4 user.note"]),
    "write the same again": (write_the_same, []),
    "chmod only": (lambda at: os.chmod(at / "deep/er/file", 0o600), [
        "deep d750 3:4 @5", "deep/er d755 0:0 @6", "deep/er/file f600 5:6 @7 4",
    ]),
    "chmod of a directory": (lambda at: os.chmod(at / "dir", 0o1777), ["dir d1777 0:0 @8"]),
    "chown only": (lambda at: os.chown(at / "dir/a", 8, 9), ["dir d755 0:0 @8", "dir/a f644 8:9 @9 1"]),
    "chown of a file and its other name": (chown_both, ["one f644 8:9 @13 6", "two f644 8:9 @13 6"]),
    "xattr only": (lambda at: os.setxattr(at / "dir/a", "user.note", b"x"), ["dir d755 0:0 @8", "dir/a f644 0:0 @9 1 user.note"]),
    "xattr removed": (lambda at: os.removexattr(at / "file", "user.note"), ["file f4755 0:0 @12 4"]),
    "capability": (set_capability, ["file f4755 0:0 @12 4 security.capability user.note"]),
    "delete file": (lambda at: (at / "dir/a").unlink(), ["dir d755 0:0 @now", "dir/.wh.a"]),
    "delete directory": (lambda at: shutil.rmtree(at / "dir"), [".wh.dir"]),
    "delete and make again": (recreate, ["dir d755 0:0 @now", "dir/.wh..wh..opq", "dir/b f644 0:0 @now 10"]),
    "rename directory": (rename, [
        ".wh.dir", "moved d755 0:0 @8", "moved/a f644 0:0 @9 1", "moved/b d700 0:0 @10", "moved/b/c f600 0:0 @11 1",
    ]),
    "directory to file": (file_of_directory, ["dir f644 0:0 @now 4"]),
    "file to directory": (directory_of_file, ["file d755 0:0 @now", "file/x f644 0:0 @now 0"]),
    "file to symlink": (link_of_file, ["file l777 0:0 @now -> dir/a"]),
    "symlink to directory": (directory_of_link, ["way d755 0:0 @now"]),
    "fifo": (fifo, ["pipe p620 7:8 @now"]),
    "device": (device, ["null c666 0:0 @now 1,3"]),
    "hard link to a new file": (link_to_new, [
        "b f644 0:0 @now 3", "dir d755 0:0 @now", "dir/z h644 0:0 @now -> b", "m h644 0:0 @now -> b",
    ]),
    "hard link to a lower file": (link_to_lower, [
        "a-link f644 5:6 @7 4", "deep d750 3:4 @5", "deep/er d755 0:0 @6", "deep/er/file h644 5:6 @7 -> a-link",
    ]),
    "sparse file": (sparse, ["holes f644 0:0 @now 300000"]),
    "name that is not UTF-8": (odd_name, [r"l\xe4 l777 0:0 @now -> \xff", r"n\xff\xfe\nx f644 0:0 @now 3"]),
    "path of 300 characters": (long_path, [
        f"{LONG[:99]} d755 0:0 @now", f"{LONG[:199]} d755 0:0 @now", f"{LONG} d755 0:0 @now",
        f"{LONG}/f f644 0:0 @now 4", f"{LONG}/l l777 0:0 @now -> {'t' * 200}",
    ]),
    "uid 70000": (owners, ["big f644 4000000000:3000000 @now 0", "file f4755 70000:70001 @12 4 user.note", "way l777 70002:70003 @14 -> dir"]),
    "mtime before 1970": (before_1970, ["future f644 0:0 @now 0", "old f644 0:0 @-7 3"]),
    "nothing that lasts": (nothing_lasting, []),
}  # fmt: skip
"""Name: what is done to a tree, and the entries of the layer. `@now` is the epoch, which stands for all later times."""
LETTERS = {REG: "f", DIR: "d", SYM: "l", LNK: "h"}


def line_of(entry: Entry, content: bytes) -> str:
    name = entry.path.decode("ascii", "backslashreplace").replace("\n", "\\n")
    if entry.path.rpartition(b"/")[2].startswith(b".wh."):
        assert (entry.kind, entry.size, entry.uid, entry.gid) == (REG, 0, 0, 0)
        return name
    letter = LETTERS.get(entry.kind) or {0x33: "c", 0x36: "p"}[entry.kind]
    when = "now" if entry.mtime == EPOCH else entry.mtime
    words = [f"{name} {letter}{entry.mode:o} {entry.uid}:{entry.gid} @{when}"]
    if entry.kind == REG:
        assert len(content) == entry.size
        words.append(str(entry.size))
    if entry.link:
        words.append("-> " + entry.link.decode("ascii", "backslashreplace"))
    if entry.rdev != (0, 0):
        words.append("{},{}".format(*entry.rdev))
    return " ".join([*words, *(key.decode() for key, _ in entry.xattrs)])


def listing(root: Path) -> list[tuple[object, ...]]:
    """All that a layer can say of a tree, but for the times that the epoch stands for."""
    found = []
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            mode = about.st_mode
            content = os.readlink(path) if stat.S_ISLNK(mode) else b""
            if stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    content = file.read()
            attributes = [
                (key, os.getxattr(path, key))
                for key in sorted(os.listxattr(path, follow_symlinks=False))
                if key in ("user.note", "security.capability")
            ]
            when = 0 if stat.S_ISDIR(mode) else min(int(about.st_mtime_ns // 10**9), EPOCH)
            found.append(
                (
                    path[len(os.fsencode(root)) :],
                    mode,
                    about.st_uid,
                    about.st_gid,
                    about.st_rdev,
                    when,
                    content,
                    attributes,
                )
            )
    return sorted(found)


def from_overlay(place: Path, lower: Path, change: Change, options: str = "") -> tuple[bytes, list[tuple[object, ...]]]:
    place.mkdir()
    overlays = Overlays(place)
    try:
        merged = overlays.mount([lower], options=options)
        change(merged)
        seen = listing(merged)
    finally:
        overlays.close()
    args = {"upper": str(place / "m-upper"), "lowers": [str(lower)], "epoch": EPOCH}
    return run_job(jobs.diff, args), seen


def from_walk(place: Path, lower: Path, change: Change) -> tuple[bytes, list[tuple[object, ...]]]:
    (place / "upper").mkdir(parents=True)
    args = {
        "lowers": [str(lower)], "tree": str(place / "tree"), "upper": str(place / "upper"), "baseline": str(place / "known"),
        "places": [], "exclude": [], "made": [], "bare": False, "owners": "", "over": False,
    }  # fmt: skip
    copied.build(args, [])
    change(place / "tree")
    seen = listing(place / "tree")
    copied.harvest(args, [])
    told = {"upper": str(place / "upper"), "lowers": [str(lower)], "epoch": EPOCH, "copied": True}
    return run_job(jobs.diff, told), seen


@pytest.mark.parametrize("name", CASES)
def test_the_layer_of(overlays: Overlays, name: str) -> None:
    change, wanted = CASES[name]
    lower = overlays.root / "base"
    unpack(layer_tar(BASE), lower)
    tar, changed = from_overlay(overlays.root / "one", lower, change)
    assert [line_of(*found) for found in read_tar(tar).values()] == wanted
    walked, walked_tree = from_walk(overlays.root / "walk", lower, change)
    assert [line_of(*found) for found in read_tar(walked).values()] == wanted
    assert walked == tar, "from the walk"
    assert walked_tree == changed
    assert from_overlay(overlays.root / "two", lower, change)[0] == tar, "from a second run"
    assert from_overlay(overlays.root / "user", lower, change, ",userxattr")[0] == tar, "from an overlay of users"
    again = overlays.root / "again"
    unpack(layer_tar(BASE), again)
    unpack(tar, again)
    assert listing(again) == changed
    unpack(tar, overlays.root / "above", "trusted")
    overlays.mount([lower, overlays.root / "above"], "stack")
    assert listing(overlays.root / "stack") == changed


def test_one_of_two_names_of_a_lower_file(overlays: Overlays) -> None:
    """The one known difference, told in docs/concepts/isolation.md: an overlay parts the names, a copied tree does not."""
    lower = overlays.root / "base"
    unpack(layer_tar(BASE), lower)

    def change(at: Path) -> None:
        os.chmod(at / "one", 0o600)

    tar, _ = from_overlay(overlays.root / "one", lower, change)
    assert [line_of(*found) for found in read_tar(tar).values()] == ["one f600 0:0 @13 6"]
    tar, _ = from_walk(overlays.root / "walk", lower, change)
    assert [line_of(*found) for found in read_tar(tar).values()] == ["one f600 0:0 @13 6", "two f600 0:0 @13 6"]
