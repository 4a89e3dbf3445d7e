"""Several layers as one give the same files, whatever the layers do to each other, and the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.export.squash import squash
from aerogel.export.tree import Layers, write_folder, write_tar
from aerogel.files.codec import GZIP, UNCOMPRESSED
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry, sort_key
from aerogel.files.tar import TarWriter, read_entries
from aerogel.files.tree import LayerTree
from aerogel.oci.digest import Digest
from aerogel.oci.edit import add_layer, empty_config
from aerogel.oci.platform import Platform
from aerogel.oci.types import History, ImageConfig
from aerogel.solve.materials import Materials, take_tar
from aerogel.store.store import Store

File = tuple[Entry, bytes]


def no_helper() -> None:
    raise AssertionError("files are read from blobs")


@pytest.fixture
def materials(tmp_path: Path) -> Iterator[Materials]:
    with Store.open(tmp_path / "data", tmp_path / "cache") as store:
        yield Materials(store, no_helper, 0)


def add(materials: Materials, files: list[File], *, shuffled: bool = False) -> Digest:
    """A layer in the store; `shuffled` as other tools make them, not in the order of paths."""
    out = io.BytesIO()
    writer = TarWriter(out.write)
    files = sorted(files, key=lambda each: sort_key(each[0]))
    if shuffled:
        folders = [each for each in files if each[0].kind == DIR]
        links = [each for each in files if each[0].kind == LNK]
        files = [*folders, *reversed([each for each in files if each[0].kind not in (DIR, LNK)]), *links]
    for entry, content in files:
        writer.entry(entry._replace(size=len(content)))
        if entry.kind == REG:
            writer.content(content)
            writer.pad()
    writer.close()
    made, _ = take_tar(materials.store, io.BytesIO(out.getvalue()), GZIP)
    return Digest(made.diff_id)


def reg(path: str, content: bytes = b"x", **fields: object) -> File:
    return Entry(path.encode(), REG, 0o644, mtime=5)._replace(**fields), content


def folder(path: str, mode: int = 0o755) -> File:
    return Entry(path.encode(), DIR, mode, mtime=7), b""


def picture(materials: Materials, layers: list[Digest]) -> dict[bytes, object]:
    """Every path with what it is, its content, and the other names of the same file."""
    tree = materials.tree(layers)
    found: dict[bytes, object] = {}
    names: dict[object, list[bytes]] = {}
    for entry in tree.walk():
        content = None
        origin = tree.origin(entry.path)
        if entry.kind == REG and origin is not None:
            with materials.open_tar(layers[origin.layer]) as stream:
                content = next(
                    hashlib.sha256(data.read()).hexdigest()
                    for inner, data in read_entries(stream)
                    if data.offset == origin.offset and inner == origin.entry
                )
        found[entry.path] = [entry, content]
        inode = tree.inode(entry.path)
        if inode is not None:
            names.setdefault(inode, []).append(entry.path)
    for group in names.values():
        for path in group if len(group) > 1 else ():
            found[path].append(tuple(group))  # type: ignore[attr-defined]  # a list
    return found


def config_of(layers: list[Digest]) -> ImageConfig:
    config = empty_config(Platform.parse("linux/amd64"), "2024-05-06T07:08:09Z")
    for number, layer in enumerate(layers):
        config = add_layer(config, layer, History(created_by=f"step {number}"))
    return config


CASES: dict[str, list[list[File]]] = {
    "whiteout": [[folder("a"), reg("a/one"), reg("a/two")], [folder("a"), reg("a/.wh.one")], [reg("b")]],
    "directory goes": [[folder("a"), folder("a/b"), reg("a/b/c")], [folder("a"), reg("a/.wh.b")], [reg("z")]],
    "directory becomes file": [[folder("a"), reg("a/x")], [reg("a", b"file")], [reg("y")]],
    "file becomes directory": [[reg("a")], [folder("a"), reg("a/x")], [reg("y")]],
    "opaque": [
        [folder("a"), reg("a/x"), reg("a/y")],
        [folder("a", 0o700), reg("a/.wh..wh..opq"), reg("a/y", b"new")],
        [reg("c")],
    ],
    "link into the layers below": [
        [reg("one", b"content")],
        [(Entry(b"two", LNK, 0o644, link=b"one"), b"")],
        [reg("other")],
    ],
    "links in one layer": [
        [reg("first")],
        [reg("a", b"data"), (Entry(b"b", LNK, 0o644, link=b"a"), b""), (Entry(b"c", SYM, 0o777, link=b"a"), b"")],
        [reg("last", xattrs=((b"user.k", b"v"),), uid=7, gid=8, mode=0o4711)],
    ],
    "mode of a directory": [[folder("a"), reg("a/x")], [folder("a", 0o711)], [reg("q")]],
    "gone and back": [[reg("a", b"1")], [reg(".wh.a")], [reg("a", b"2")]],
    "gone for good": [[reg("a", b"1")], [reg(".wh.a")], [reg("b")], [reg(".wh.b")]],
}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_same_files(materials: Materials, name: str, shuffled: bool) -> None:
    layers = [add(materials, files, shuffled=shuffled) for files in CASES[name]]
    before = picture(materials, layers)
    for keep in range(len(layers)):
        config, squashed = squash(config_of(layers), layers, keep, materials, GZIP)
        assert len(squashed) <= keep + 1
        assert squashed[:keep] == tuple(layers[:keep])
        assert config.rootfs.diff_ids == squashed
        assert sum(not entry.empty_layer for entry in config.history) == len(squashed)
        assert picture(materials, list(squashed)) == before
        if keep == 0:
            assert not any(b".wh." in entry.path for layer in squashed for entry in materials.index(layer).entries)


def test_random_layers_give_the_same_files(materials: Materials) -> None:
    rng = random.Random(4)
    for _ in range(25):
        layers = [add(materials, random_layer(materials, rng, []), shuffled=rng.random() < 0.5)]
        for _ in range(rng.randrange(1, 5)):
            layers.append(add(materials, random_layer(materials, rng, layers), shuffled=rng.random() < 0.5))
        keep = rng.randrange(len(layers))
        _, squashed = squash(config_of(layers), layers, keep, materials, GZIP)
        assert picture(materials, list(squashed)) == picture(materials, layers)


def random_layer(materials: Materials, rng: random.Random, below: list[Digest]) -> list[File]:
    """Files, directories, links and whiteouts over what is there."""
    tree = materials.tree(below)
    there = [entry.path for entry in tree.walk() if entry.path]
    files: dict[bytes, File] = {}

    def put(path: bytes, file: File) -> None:
        parent = path.rpartition(b"/")[0]
        if parent and parent not in files:
            put(parent, (Entry(parent, DIR, rng.choice([0o755, 0o700]), mtime=rng.randrange(9)), b""))
        if not parent or (parent in files and files[parent][0].kind == DIR):
            files.setdefault(path, file)

    for _ in range(rng.randrange(1, 8)):
        path = b"/".join(rng.choice([b"a", b"b", b"c", b"d"]) for _ in range(rng.randrange(1, 4)))
        content = rng.randbytes(rng.randrange(2000))
        put(path, (Entry(path, REG, 0o644, uid=rng.randrange(3), mtime=rng.randrange(9)), content))
    for path in rng.sample(there, min(len(there), 2)):
        parent, _, name = path.rpartition(b"/")
        white = (parent + b"/" if parent else b"") + b".wh." + name
        if path not in files and not any(one.startswith(path + b"/") for one in files):
            put(white, (Entry(white, REG, 0o644), b""))
    regular = [path for path, (entry, _) in files.items() if entry.kind == REG and b".wh." not in path]
    if regular:
        put(b"zz", (Entry(b"zz", LNK, 0o644, link=rng.choice(regular)), b""))
    return list(files.values())


def test_the_same_bytes_each_time(materials: Materials, tmp_path: Path) -> None:
    files = [[reg("a", b"1" * 5000), reg("b", b"2")], [reg("c"), reg(".wh.b")], [reg("d", b"4")]]
    layers = [add(materials, each) for each in files]
    _, first = squash(config_of(layers), layers, 0, materials, GZIP)
    with Store.open(tmp_path / "data2", tmp_path / "cache2") as store:
        again = Materials(store, no_helper, 0)
        others = [add(again, each, shuffled=True) for each in files]
        assert others != layers
        assert squash(config_of(others), others, 0, again, UNCOMPRESSED)[1] == first
    # What is remembered is the same as what was made.
    assert squash(config_of(layers), layers, 0, materials, GZIP)[1] == first


def test_one_layer_is_left_alone(materials: Materials) -> None:
    layers = [add(materials, [reg("a")]), add(materials, [reg("b")])]
    config = config_of(layers)
    assert squash(config, layers, 1, materials, GZIP) == (config, tuple(layers))


def test_a_tar_of_a_layer_that_is_cut_off(materials: Materials) -> None:
    layer = add(materials, [reg("a", b"x" * 10_000)])
    tree = materials.tree([layer])

    class Short:
        def __enter__(self) -> io.BytesIO:
            return io.BytesIO(bytes(600))

        def __exit__(self, *_: object) -> None:
            return

    with pytest.raises(AerogelError, match="is cut off"):
        write_tar(io.BytesIO().write, [Layers(tree, [layer], lambda _: Short())], materials.store)


def test_a_folder_keeps_what_is_there(materials: Materials, tmp_path: Path) -> None:
    layers = [
        add(materials, [folder("d", 0o711), reg("d/x", b"old"), reg("gone")]),
        add(materials, [folder("d", 0o711), reg("d/x", b"new", mode=0o600), reg(".wh.gone")]),
        add(materials, [reg("n", b"1"), (Entry(b"o", LNK, 0o644, link=b"n"), b"")]),
    ]
    target = tmp_path / "out"
    target.mkdir()
    (target / "kept").write_text("mine")
    (target / "n").mkdir()
    parts = [Layers(LayerTree([materials.index(layer) for layer in layers]), layers, materials.open_tar)]
    assert write_folder(str(target), parts, materials.store) == ()
    assert (target / "kept").read_text() == "mine"
    assert (target / "d/x").read_bytes() == b"new"
    assert (target / "d/x").stat().st_mode & 0o7777 == 0o600
    assert (target / "d").stat().st_mode & 0o7777 == 0o711
    assert (target / "d").stat().st_mtime == 7
    assert not (target / "gone").exists()
    assert (target / "n").stat().st_ino == (target / "o").stat().st_ino
