"""Keys of steps: every input that counts changes them, nothing else does; golden ones, so that a new format is seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import Source
from aerogel.files.entry import DIR, REG, SYM, Entry
from aerogel.files.hashing import DigestCache
from aerogel.files.host import HostTree
from aerogel.files.index import LayerIndex
from aerogel.files.pattern import IgnoreMatcher
from aerogel.graph.ops import Base, Copy, CopySource, InlineFile, Local, Mkdir, Mount, Node, Run
from aerogel.oci.digest import Digest
from aerogel.solve.file import copying, making
from aerogel.solve.keys import Keys
from aerogel.solve.materials import Materials
from aerogel.solve.stepkey import key_of
from aerogel.solve.times import Times
from aerogel.store.store import Store

ROOT = Digest("sha256:" + "1" * 64)
OTHER = Digest("sha256:" + "2" * 64)
RUN = Run(argv=("/bin/sh", "-c", "true"), env=(("PATH", "/bin"), ("A", "1")), cwd="/")
COPY = Copy(sources=(CopySource(1, "d"), CopySource(1, "one.txt")), dest="/to/")


def no_helper() -> None:
    raise AssertionError("no command runs here")


class Setup(NamedTuple):
    """A context, and a root with accounts, a link and a directory that is there."""

    context: Path
    materials: Materials

    def tree(self) -> HostTree:
        ignore = self.context / ".dockerignore"
        matcher = IgnoreMatcher.parse(Source(".dockerignore", ignore.read_bytes())) if ignore.exists() else None
        return HostTree(self.context, ignore=matcher, digests=DigestCache(self.context.parent / "digests"))

    def keys(self, times: int = Times().kind) -> Keys:
        return Keys({"context": self.tree(), "other": self.tree()}, None, times, None)  # type: ignore[arg-type]  # nothing remote

    def definition(self, op: Copy | Run = COPY, times: int = Times().kind, context: str = "context") -> Digest:
        return self.keys(times).definition(Node(op, (Node(Base((ROOT,))), Node(Local(context)))))

    def layer(self, op: Copy | Mkdir = COPY, root: tuple[Digest, ...] = (ROOT,), *, keep: bool = False) -> Digest:
        """The content key."""
        materials = Materials(self.materials.store, self.materials.helper, Times(keep=keep))
        if isinstance(op, Mkdir):
            return making(op, root, materials).key()
        node = Node(op, (Node(Base(root)), Node(Local("context"))))
        trees = {"context": self.tree()}
        with copying(node, op, (root, ()), trees, None, materials, origin="x") as plan:  # type: ignore[arg-type]  # nothing remote
            assert plan.is_known
            return plan.key()


def root_index(uid: int = 7, extra: tuple[Entry, ...] = ()) -> LayerIndex:
    passwd = b"app:x:%d:%d::/:/bin/sh\n" % (uid, uid)
    entries = [
        Entry(b"etc", DIR, 0o755, 0, 0, 0, 0, b"", (0, 0)),
        Entry(b"etc/passwd", REG, 0o644, 0, 0, len(passwd), 0, b"", (0, 0)),
        Entry(b"link", SYM, 0o777, 0, 0, 0, 0, b"etc", (0, 0)),
        *extra,
    ]
    return LayerIndex(entries, [512] * len(entries), {b"etc/passwd": passwd})


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    context = tmp_path / "context"
    (context / "d" / "sub").mkdir(parents=True)
    (context / "d" / "a.txt").write_text("a")
    (context / "d" / "b.log").write_text("b")
    (context / "d" / "link").symlink_to("a.txt")
    (context / "one.txt").write_text("one")
    (context / "unselected").write_text("u")
    with Store.open(tmp_path / "data", tmp_path / "cache") as store:
        store.layers.save(ROOT, size=1024, index=root_index())
        store.layers.save(OTHER, size=1024, index=root_index(9, (Entry(b"x", REG, 0o644, 0, 0, 0, 0, b"", (0, 0)),)))
        yield Setup(context, Materials(store, no_helper))  # type: ignore[arg-type]  # it has none


def same_size_and_time(context: Path) -> None:
    path = context / "d" / "a.txt"
    before = path.stat()
    path.write_text("A")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def to_link(context: Path) -> None:
    (context / "one.txt").unlink()
    (context / "one.txt").symlink_to("d/a.txt")


COUNTS: dict[str, Callable[[Path], object]] = {
    "content of the same size and time": same_size_and_time,
    "size": lambda context: (context / "d/a.txt").write_text("aa"),
    "mode": lambda context: (context / "d/a.txt").chmod(0o755),
    "mode of a folder": lambda context: (context / "d/sub").chmod(0o700),
    "name": lambda context: (context / "d/a.txt").rename(context / "d/c.txt"),
    "one more": lambda context: (context / "d/z").touch(),
    "one less": lambda context: (context / "d/b.log").unlink(),
    "an empty folder": lambda context: (context / "d/empty").mkdir(),
    "link": lambda context: ((context / "d/link").unlink(), (context / "d/link").symlink_to("b.log")),
    "ignored now": lambda context: (context / ".dockerignore").write_text("d/b.log\n"),
}


@pytest.mark.parametrize("change", list(COUNTS.values()), ids=list(COUNTS))
def test_every_change_of_a_selected_file_counts(setup: Setup, change: Callable[[Path], object]) -> None:
    definition, layer = setup.definition(), setup.layer()
    change(setup.context)
    assert setup.definition() != definition
    assert setup.layer() != layer


COUNTS_NOT: dict[str, Callable[[Path], object]] = {
    "times": lambda context: os.utime(context / "d/a.txt", (1, 1)),
    "owner": lambda context: os.chown(context / "d/a.txt", 12, 34),
    "a file that is not selected": lambda context: (context / "unselected").write_text("changed"),
    "a new file that is not selected": lambda context: (context / "new").write_text("new"),
    "a new file that is ignored": lambda context: (
        (context / ".dockerignore").write_text("d/*.tmp\n"),
        (context / "d/x.tmp").write_text("x"),
    ),
    "the same content again": lambda context: (context / "d/a.txt").write_text("a"),
    "another file with the same content": lambda context: (
        (context / "new").write_text("a"),
        (context / "new").replace(context / "d/a.txt"),
    ),
    "a target of a followed link": to_link,
}


@pytest.mark.parametrize("change", [name for name in COUNTS_NOT if name != "a target of a followed link"])
def test_nothing_else_of_a_context_counts(setup: Setup, change: str) -> None:
    definition, layer = setup.definition(), setup.layer()
    COUNTS_NOT[change](setup.context)
    assert setup.definition() == definition
    assert setup.layer() == layer


def test_a_followed_link_counts_as_what_it_leads_to(setup: Setup) -> None:
    (setup.context / "one.txt").write_text("a")
    definition, layer = setup.definition(), setup.layer()
    to_link(setup.context)
    assert setup.definition() == definition
    assert setup.layer() == layer


@pytest.mark.parametrize(
    "change",
    [
        {"dest": "/elsewhere/"},
        {"chown": "5"},
        {"chmod": "600"},
        {"exclude": ("*.log",)},
        {"parents": True},
        {"sources": (CopySource(1, "d"),)},
        {"sources": (*COPY.sources, CopySource(-1, inline=InlineFile("doc", b"text")))},
    ],
    ids=str,
)
def test_what_changes_the_layer_changes_both_keys(setup: Setup, change: dict[str, object]) -> None:
    changed = msgspec.structs.replace(COPY, **change)
    assert setup.definition(changed) != setup.definition()
    assert setup.layer(changed) != setup.layer()


@pytest.mark.parametrize(
    "change", [{"exclude": ("*.none",)}, {"dest": "/to//"}, {"chown": "0:0"}, {"link": True}], ids=str
)
def test_what_changes_the_words_only_changes_the_definition_only(setup: Setup, change: dict[str, object]) -> None:
    changed = msgspec.structs.replace(COPY, **change)
    assert setup.definition(changed) != setup.definition()
    assert setup.layer(changed) == setup.layer()


def test_the_root_counts_where_the_copy_touches_it(setup: Setup) -> None:
    assert setup.layer(root=(OTHER,)) == setup.layer()
    owned = msgspec.structs.replace(COPY, chown="app")
    assert setup.layer(owned) == setup.layer(msgspec.structs.replace(COPY, chown="7:7"))
    assert setup.layer(owned, root=(OTHER,)) == setup.layer(msgspec.structs.replace(COPY, chown="9:9"))
    through = msgspec.structs.replace(COPY, dest="/link/")
    assert setup.layer(through) == setup.layer(msgspec.structs.replace(COPY, dest="/etc/"))
    assert setup.layer(through) != setup.layer(msgspec.structs.replace(through, link=True))
    assert setup.layer(Mkdir("/new")) == setup.layer(Mkdir("/new"), root=(OTHER,))
    assert setup.layer(Mkdir("/new", "app")) != setup.layer(Mkdir("/new", "app"), root=(OTHER,))


def test_the_kind_of_times_counts(setup: Setup) -> None:
    assert setup.definition(times=Times(keep=True).kind) != setup.definition()
    assert setup.definition(times=Times(keep_volatile=True).kind) != setup.definition()
    assert setup.definition(times=Times(epoch_s=5).kind) == setup.definition(), "the date of the image does not"
    kept = setup.layer(keep=True)
    assert kept != setup.layer()
    os.utime(setup.context / "d" / "a.txt", (7, 7))
    assert setup.layer(keep=True) != kept


def test_a_mount_counts_by_what_it_shows(setup: Setup) -> None:
    def definition(source: str) -> Digest:
        mounted = msgspec.structs.replace(RUN, mounts=(Mount("bind", "/src", input=1, source=source),))
        return setup.definition(mounted)

    before = definition("/d"), definition("/one.txt"), definition("/")
    (setup.context / "d" / "a.txt").write_text("changed")
    os.utime(setup.context / "one.txt", (1, 1))
    after = definition("/d"), definition("/one.txt"), definition("/")
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]


RUN_CHANGES: tuple[dict[str, object], ...] = (
    {"argv": ("/bin/sh", "-c", "false")},
    {"argv": ("/bin/sh", "-ctrue")},
    {"env": (("PATH", "/bin"), ("A", "2"))},
    {"env": (("PATH", "/bin"), ("B", "1"))},
    {"env": (("PATH", "/bin"),)},
    {"cwd": "/w"},
    {"user": "app"},
    {"network": "none"},
    {"security": "insecure"},
    {"hostname": "other"},
    {"hosts": (("db", "10.0.0.1"),)},
    {"inline": (InlineFile("doc", b"#!/bin/sh\n"),)},
    {"mounts": (Mount("secret", "/run/secrets/one", id="one"),)},
    {"mounts": (Mount("secret", "/run/secrets/one", id="two"),)},
    {"mounts": (Mount("cache", "/cache", id="one"),)},
    {"mounts": (Mount("tmpfs", "/cache"),)},
)


def run_key(setup: Setup, op: Run = RUN, *layers: tuple[Digest, ...], platform: str = "linux/amd64") -> Digest:
    return setup.keys().run(Node(op, (Node(Base(())),), platform), layers or ((ROOT,),))


def test_every_field_of_a_command_counts(setup: Setup) -> None:
    changed = [run_key(setup, msgspec.structs.replace(RUN, **change)) for change in RUN_CHANGES]
    everything = [run_key(setup), *changed, run_key(setup, platform="linux/arm64"), run_key(setup, RUN, (OTHER,))]
    everything += [run_key(setup, RUN, (ROOT, OTHER)), run_key(setup, RUN, (OTHER, ROOT)), run_key(setup, RUN, ())]
    everything += [run_key(setup, RUN, (ROOT,), (OTHER,)), run_key(setup, RUN, (ROOT,), ())]
    assert len(set(everything)) == len(everything)
    assert run_key(setup) == run_key(setup)


def test_golden_keys(setup: Setup) -> None:
    """A change here makes every kept result worthless: raise KEY_VERSION, and say so in the changelog."""
    os.umask(umask := os.umask(0))
    for folder in ("d", "d/sub"):
        (setup.context / folder).chmod(0o755)
    for name in ("d/a.txt", "d/b.log", "one.txt"):
        (setup.context / name).chmod(0o644)
    os.umask(umask)
    found = {
        "definition": setup.definition(),
        "run": run_key(setup),
        "layer": setup.layer(),
        "mkdir": setup.layer(Mkdir("/a/b", "app")),
        "copy": setup.keys().copy(Node(COPY, (Node(Base((ROOT,))), Node(Local("context")))), ((ROOT,), ())),
    }
    assert found == GOLDEN


GOLDEN = {
    "copy": "sha256:cd95bd927f8df370e107666c6a626e311796e0a5568b3708f0646c151aa74e3f",
    "definition": "sha256:15c192b30523cb5ed2217c05756d133792da15aa9b15d87bd118ab1d307c49ae",
    "layer": "sha256:eca6b9d71f48ffa9302f0f51a02234a12ac855cb1d61c5d40fcfefedb7ac873f",
    "mkdir": "sha256:883820b8a917b8893f6969d3f6ad7e9df0ffacfadcb497061776f4a0e90cc7d1",
    "run": "sha256:b9265065cc8e242638e4502cbe5b80793400bf39f88d9ebe0116eb3f038d894f",
}


@given(st.lists(st.binary(max_size=6), max_size=5), st.lists(st.binary(max_size=6), max_size=5))
def test_parts_never_run_into_each_other(one: list[bytes], other: list[bytes]) -> None:
    assert (key_of(b"kind", *one) == key_of(b"kind", *other)) is (one == other)
    assert key_of(b"kind", *one) != key_of(b"kin", b"d", *one)


def test_a_file_that_was_just_written_is_read_again(setup: Setup) -> None:
    """Many edits of one size within a few ticks of the clock, the time put back: none is missed."""
    path = setup.context / "d" / "a.txt"
    status = path.stat()
    seen = set()
    until = time.monotonic() + 0.4
    number = 0
    while number <= 20 or time.monotonic() < until:
        path.write_text(f"{number:06}")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        tree = setup.tree()
        keys = Keys({"context": tree}, None, Times().kind, None)  # type: ignore[arg-type]  # nothing remote
        seen.add(keys.definition(Node(COPY, (Node(Base((ROOT,))), Node(Local("context"))))))
        tree.close()
        number += 1
    assert len(seen) == number
