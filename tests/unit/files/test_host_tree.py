"""The build context as a tree, its ignore file and its remembered digests."""

from __future__ import annotations

import os
import socket
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest

from aerogel.errors import AerogelError, Source
from aerogel.files import hashing
from aerogel.files.entry import DIR, FIFO, REG, SYM
from aerogel.files.hashing import DigestCache
from aerogel.files.host import HostTree
from aerogel.files.pattern import IgnoreMatcher, PatternMatcher
from aerogel.witness import RACY_NS, is_racy


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(name.encode())
    return root


def ignore(text: str) -> IgnoreMatcher:
    return IgnoreMatcher.parse(Source(".dockerignore", text.encode()))


def paths(tree: HostTree) -> list[bytes]:
    return [entry.path for entry in tree.walk() if entry.path]


def test_walk_is_sorted_and_knows_every_kind(tmp_path: Path) -> None:
    root = make(tmp_path / "c", "b/z", "b/a", "b.txt", "B", "empty/")
    os.symlink("/etc/passwd", root / "link")
    os.symlink("b", root / "dirlink")
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"\xff")).write_bytes(b"")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(root / "s"))
    sock.close()
    tree = HostTree(root)
    assert paths(tree) == [
        b"B", b"b", b"b/a", b"b/z", b"b.txt", b"dirlink", b"empty", b"fifo", b"link", b"\xff",
    ]  # fmt: skip
    kinds = {entry.path: entry.kind for entry in tree.walk()}
    assert (kinds[b""], kinds[b"link"], kinds[b"fifo"], kinds[b"b/a"]) == (DIR, SYM, FIFO, REG)
    assert tree.lookup(b"dirlink/a") is None
    assert tree.lookup(b"B/x") is None
    assert tree.resolve(b"dirlink/a") == b"b/a"
    assert tree.resolve(b"link") == b"etc/passwd"
    with pytest.raises(AerogelError) as caught:
        tree.open(b"dirlink/a")
    assert caught.value.code == "context.unreadable"
    with pytest.raises(AerogelError) as caught:
        tree.open(b"link")
    assert caught.value.code == "context.unreadable"
    fd = tree.open(b"b/a")
    assert os.read(fd, 10) == b"b/a"
    os.close(fd)
    tree.close()


def test_ignored_directories_show_only_what_is_excepted(tmp_path: Path) -> None:
    root = make(tmp_path / "c", "node_modules/x/deep/f", "docs/keep/a", "docs/drop", "README.md", "src/a.md")
    tree = HostTree(root, ignore=ignore("node_modules\ndocs\n!docs/keep\n**/*.md\n!README.md\n"))
    assert paths(tree) == [b"README.md", b"docs", b"docs/keep", b"docs/keep/a", b"src"]
    assert b"node_modules" not in tree._listed
    assert tree.explain(b"docs/drop") == "`.dockerignore` removes it: line 2, `docs`"
    assert tree.explain(b"src/a.md") == "`.dockerignore` removes it: line 4, `**/*.md`"
    assert tree.explain(b"never/was") == ""


def test_may_except_below_is_never_wrong() -> None:
    patterns = ["*", "!a/b", "!c*/d", "!**/e", "!f[/]g", "!h"]
    cases = {b"a": True, b"x": True, b"c1": True, b"a/b": True}
    matcher = PatternMatcher(patterns)
    assert {path: matcher.may_except_below(path) for path in cases} == cases
    narrow = PatternMatcher(["*", "!a/b", "!c*/d"])
    assert not narrow.may_except_below(b"x")
    assert not narrow.may_except_below(b"a/c")
    assert not narrow.may_except_below(b"a/b")
    assert narrow.may_except_below(b"c9")


def test_parallel_reading_never_mixes_files(tmp_path: Path) -> None:
    root = make(tmp_path / "c", *(f"d{n}/f" for n in range(300)))
    tree = HostTree(root)
    wrong: list[bytes] = []

    def read(start: int) -> None:
        for n in range(300):
            name = b"d%d/f" % ((n * 7 + start) % 300)
            fd = tree.open(name)
            if os.read(fd, 50) != name:
                wrong.append(name)
            os.close(fd)

    threads = [threading.Thread(target=read, args=(31 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def settle(path: Path) -> None:
    """Waits until a change of the file is old enough to be remembered."""
    while time.time_ns() - path.stat().st_ctime_ns <= RACY_NS:
        time.sleep(0.01)


def test_digests_are_remembered_and_never_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "c", "f")
    store = tmp_path / "cache" / "digests"
    reads = []
    plain = hashing._hash
    monkeypatch.setattr(hashing, "_hash", lambda fd: reads.append(1) or plain(fd))

    def ask() -> bytes:
        tree = HostTree(root, digests=DigestCache(store))
        assert paths(tree) == [b"f"]
        try:
            return tree.digest(b"f")
        finally:
            tree.close()

    settle(root / "f")
    assert ask() == ask() == sha256(b"f").digest()
    assert len(reads) == 1
    before = (root / "f").stat()
    (root / "f").write_bytes(b"g")
    os.utime(root / "f", ns=(before.st_atime_ns, before.st_mtime_ns))
    settle(root / "f")
    assert ask() == sha256(b"g").digest()
    store.write_bytes(store.read_bytes()[:-5])
    assert ask() == ask() == sha256(b"g").digest()
    store.write_bytes(b"garbage")
    assert ask() == sha256(b"g").digest()


def test_a_change_in_the_same_clock_tick_is_not_missed(tmp_path: Path) -> None:
    root = make(tmp_path / "c", "f")
    cache = DigestCache(tmp_path / "digests")
    for number in range(200):
        content = b"%03d" % number
        (root / "f").write_bytes(content)
        tree = HostTree(root, digests=cache)
        tree.lookup(b"f")
        try:
            found = tree.digest(b"f")
        except AerogelError as error:
            assert error.code == "context.changed"  # noqa: PT017 - also right
            continue
        assert found == sha256(content).digest()


def test_slow_reading_does_not_make_a_fresh_file_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "c", "f")
    plain = hashing._hash

    def slow(fd: int) -> bytes:
        found = plain(fd)
        time.sleep(0.08)
        return found

    monkeypatch.setattr(hashing, "_hash", slow)
    cache = DigestCache(tmp_path / "digests")
    os.utime(root / "f")
    tree = HostTree(root, digests=cache)
    tree.lookup(b"f")
    tree.digest(b"f")
    assert not cache._new


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "c", "f")
    tree = HostTree(root, digests=DigestCache(tmp_path / "digests"))
    tree.lookup(b"f")
    (root / "f").write_bytes(b"longer than before")
    with pytest.raises(AerogelError) as caught:
        tree.digest(b"f")
    assert (caught.value.code, caught.value.temporary) == ("context.changed", True)


def test_a_file_system_that_keeps_seconds_is_not_trusted_so_soon(tmp_path: Path) -> None:
    """The next change within the second would have the same time stamp."""
    now_ns = 1_700_000_000_900_000_000
    assert is_racy(1_700_000_000_000_000_000, now_ns)
    assert is_racy(1_699_999_999_000_000_000, now_ns), "vfat keeps even seconds"
    assert not is_racy(1_699_999_998_000_000_000, now_ns)
    assert not is_racy(1_700_000_000_800_000_001, now_ns)
    path, store = tmp_path / "f", tmp_path / "digests"
    path.write_text("text")
    settle(path)
    opened = []

    def ask() -> None:
        cache = DigestCache(store)
        status = path.lstat()
        cache.digest(status, lambda: opened.append(1) or os.open(path, os.O_RDONLY), b"f")
        cache.save()

    os.utime(path, (1_000_000_000, 1_000_000_000))
    settle(path)
    ask()
    ask()
    assert len(opened) == 1
    os.utime(path, (time.time() // 1, time.time() // 1))
    settle(path)
    ask()
    ask()
    assert len(opened) == 3
