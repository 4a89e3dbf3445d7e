"""Indexes and the merged view of layers."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aerogel.errors import AerogelError
from aerogel.files.codec import LayerWriter
from aerogel.files.entry import CHR, DIR, LNK, REG, SYM, Entry, sort_key
from aerogel.files.index import LayerIndex, build_index
from aerogel.files.tar import TarWriter
from aerogel.files.tree import LayerTree


def file(path: bytes, size: int = 0, mode: int = 0o644) -> Entry:
    return Entry(path, REG, mode, size=size)


def link(path: bytes, target: bytes) -> Entry:
    return Entry(path, LNK, 0o644, link=target)


def symlink(path: bytes, target: bytes) -> Entry:
    return Entry(path, SYM, 0o777, link=target)


def folder(path: bytes, mode: int = 0o755) -> Entry:
    return Entry(path, DIR, mode)


def layers(*lists: list[Entry]) -> LayerTree:
    return LayerTree([LayerIndex(entries, list(range(len(entries)))) for entries in lists])


def paths(tree: LayerTree, top: bytes = b"") -> list[bytes]:
    return [entry.path for entry in tree.walk(top)]


def test_build_index_tees_every_byte_and_keeps_accounts() -> None:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    contents = {b"etc/group": b"root:x:0:\n", b"etc/passwd": b"root:x:0:0::/:\n", b"etc/x": b"x" * 700}
    for path, content in contents.items():
        writer.entry(file(path, len(content)))
        writer.content(content)
        writer.pad()
    writer.close()
    data = out.getvalue() + bytes(8192)
    with LayerWriter(None, None) as layer:
        index = build_index(io.BytesIO(data), layer.write)
        assert layer.finish().size_uncompressed == len(data)
    assert index.small == {k: v for k, v in contents.items() if k != b"etc/x"}
    for entry, offset in zip(index.entries, index.offsets, strict=True):
        assert data[offset : offset + entry.size] == contents[entry.path]
    assert LayerIndex.loads(index.dumps()) == index
    assert LayerIndex.loads(index.dumps()).dumps() == index.dumps()
    assert LayerIndex.loads(LayerIndex([], []).dumps()) == LayerIndex([], [])
    tree = LayerTree([index])
    assert tree.small(b"etc/passwd") == contents[b"etc/passwd"]
    assert tree.small(b"etc/x") is None


def test_more_entries_than_a_layer_has(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    for number in range(101):
        writer.entry(file(b"%03d" % number))
    writer.close()
    monkeypatch.setattr("aerogel.files.index.MAX_ENTRIES", 101)
    assert len(build_index(io.BytesIO(out.getvalue())).entries) == 101
    monkeypatch.setattr("aerogel.files.index.MAX_ENTRIES", 100)
    with pytest.raises(AerogelError, match="a layer has more than 100 entries") as caught:
        build_index(io.BytesIO(out.getvalue()))
    assert caught.value.code == "tar.too-many-entries"


@pytest.mark.parametrize("data", [b"", b"\0", b"(", LayerIndex([], []).dumps()[:-3], b"i\1\0\0\0"])
def test_damaged_index(data: bytes) -> None:
    with pytest.raises(AerogelError) as caught:
        LayerIndex.loads(data)
    assert caught.value.code == "index.damaged"


def test_merge_replaces_and_hides() -> None:
    tree = layers(
        [folder(b"a"), file(b"a/1"), file(b"a/2"), folder(b"b"), file(b"b/x"), file(b"c"), folder(b"d"), file(b"d/x")],
        [
            folder(b"a", 0o700),
            file(b"a/.wh.1"),
            file(b"a/3"),
            file(b"b", 7),
            folder(b"c"),
            file(b"c/new"),
            folder(b"d"),
            file(b"d/y"),
            file(b"d/.wh..wh..opq"),
        ],
    )
    assert paths(tree) == [b"", b"a", b"a/2", b"a/3", b"b", b"c", b"c/new", b"d", b"d/y"]
    assert tree.lookup(b"a") == folder(b"a", 0o700)
    assert tree.lookup(b"b") == file(b"b", 7)
    assert tree.lookup(b"b/x") is None
    assert tree.children(b"a") == [b"2", b"3"]
    assert tree.children(b"b") == tree.children(b"nothing") == []


def test_a_whiteout_does_not_hide_its_own_layer() -> None:
    tree = layers([file(b"a/1"), file(b"x")], [file(b"a/1", 5), file(b"a/.wh.1"), file(b"x", 6), file(b".wh.x")])
    assert tree.lookup(b"a/1") == file(b"a/1", 5)
    assert tree.lookup(b"x") == file(b"x", 6)


def test_hard_links_keep_the_file_they_were_made_of() -> None:
    tree = layers(
        [file(b"a", 3), link(b"b", b"a"), file(b"single")],
        [file(b"a", 9), link(b"c", b"b")],
    )
    assert tree.lookup(b"b") == file(b"b", 3)
    assert tree.lookup(b"c") == file(b"c", 3)
    assert tree.lookup(b"a") == file(b"a", 9)
    origin = tree.origin(b"c")
    assert origin is not None
    assert (origin.layer, origin.entry.path, origin.offset) == (0, b"a", 0)
    assert tree.inode(b"b") == tree.inode(b"c") is not None
    assert tree.inode(b"a") is None
    assert tree.inode(b"single") is None


def test_a_hard_link_to_nothing_is_refused() -> None:
    for target in (b"none", b"d"):
        with pytest.raises(AerogelError) as caught:
            layers([folder(b"d"), link(b"b", target)])
        assert caught.value.code == "tree.hard-link"


def test_missing_parents_go_through_symbolic_links_like_an_unpacker() -> None:
    tree = layers([folder(b"usr"), folder(b"usr/lib"), symlink(b"lib", b"usr/lib")], [file(b"lib/x/y", 4)])
    assert paths(tree) == [b"", b"lib", b"usr", b"usr/lib", b"usr/lib/x", b"usr/lib/x/y"]
    replaced = layers(
        [folder(b"usr"), folder(b"usr/lib"), symlink(b"lib", b"usr/lib")], [folder(b"lib"), file(b"lib/x")]
    )
    assert paths(replaced) == [b"", b"lib", b"lib/x", b"usr", b"usr/lib"]


def test_resolve() -> None:
    tree = layers(
        [
            folder(b"a"),
            symlink(b"a/up", b"../../../b"),
            symlink(b"abs", b"/b/c"),
            folder(b"b"),
            folder(b"b/c"),
            symlink(b"chain", b"abs/../x"),
            symlink(b"loop", b"loop"),
            symlink(b"dangling", b"/no/where"),
        ]
    )
    assert tree.resolve(b"a/up/c") == b"b/c"
    assert tree.resolve(b"abs") == b"b/c"
    assert tree.resolve(b"abs", follow_last=False) == b"abs"
    assert tree.resolve(b"abs/", follow_last=False) == b"abs"
    assert tree.resolve(b"abs/z", follow_last=False) == b"b/c/z"
    assert tree.resolve(b"chain") == b"b/x"
    assert tree.resolve(b"../../x/./y//z") == b"x/y/z"
    assert tree.resolve(b"dangling/more") == b"no/where/more"
    assert tree.resolve(b"") == b""
    with pytest.raises(AerogelError) as caught:
        tree.resolve(b"loop/x")
    assert caught.value.code == "tree.loop"


def test_device_is_no_whiteout_in_an_index() -> None:
    tree = layers([file(b"x")], [Entry(b"x", CHR, 0o644, rdev=(0, 0))])
    assert tree.lookup(b"x") is not None


_name = st.sampled_from([b"a", b"b", b"c"])
_path = st.lists(_name, min_size=1, max_size=3).map(b"/".join)
_layer = st.dictionaries(_path, st.sampled_from(["file", "dir", "gone", "opaque"]), max_size=6)


@given(st.lists(_layer, max_size=4))
@settings(max_examples=200, deadline=None)
def test_merge_against_a_plain_model(stack: list[dict[bytes, str]]) -> None:
    """The model applies each layer to a flat dictionary, as the words of the specification say."""
    model: dict[bytes, tuple[str, int]] = {}
    lists = []
    for number, layer in enumerate(stack):
        lists.append(_entries(layer, number))
        whiteouts = [(path, kind) for path, kind in layer.items() if kind in ("gone", "opaque")]
        for path, kind in whiteouts:
            for known in list(model):
                below = known.startswith(path + b"/")
                if (kind == "gone" and (known == path or below)) or (kind == "opaque" and below):
                    del model[known]
        for entry in lists[-1]:
            if b".wh." in entry.path:
                continue
            if entry.kind == REG:
                for known in [k for k in model if k.startswith(entry.path + b"/")]:
                    del model[known]
            model[entry.path] = ("dir" if entry.kind == DIR else "file", entry.mode)
    found = {e.path: ("dir" if e.kind == DIR else "file", e.mode) for e in layers(*lists).walk() if e.path}
    assert found == model


def _entries(layer: dict[bytes, str], number: int) -> list[Entry]:
    """A well-formed layer: every parent a directory that is listed, no file with something below it."""
    found: dict[bytes, Entry] = {}
    for path in sorted(layer, key=lambda p: p.count(b"/")):
        kind = layer[path]
        above = [path.rsplit(b"/", n)[0] for n in range(path.count(b"/"), 0, -1)]
        if any(p in found and found[p].kind != DIR for p in above):
            continue
        for parent in above:
            found.setdefault(parent, folder(parent, number))
        parent, _, name = path.rpartition(b"/")
        if kind == "file":
            if not any(p.startswith(path + b"/") for p in layer):
                found[path] = file(path, mode=number)
        elif kind == "gone":
            marker = (parent + b"/" if parent else b"") + b".wh." + name
            found[marker] = file(marker)
        else:
            found[path] = folder(path, number)
            if kind == "opaque":
                marker = path + b"/.wh..wh..opq"
                found[marker] = file(marker)
    return sorted(found.values(), key=sort_key)
