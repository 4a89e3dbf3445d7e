"""Layers, actions, snapshots and images: what they keep, and what they refuse to believe."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, digest_of
from aerogel.oci.reference import Reference
from aerogel.oci.types import OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from aerogel.store.images import ImageMeta
from aerogel.store.store import Store

LAYER = digest_of(b"layer")
KEY = digest_of(b"key")


# Layers


def test_a_layer_grows(store: Store) -> None:
    assert store.layers.record(LAYER) is None
    store.layers.save(LAYER, size=1024, index=b"index bytes")
    record = store.layers.record(LAYER)
    assert record is not None
    assert (record.size, record.blobs, record.index) == (1024, {}, True)
    blob = store.blobs.put(b"gz", OCI_LAYER_GZIP)
    store.layers.save(LAYER, size=1024, blobs={"gzip-libdeflate-3-1MiB": blob})
    store.layers.save(LAYER, size=1024, blobs={"zstd-3": store.blobs.put(b"zst")})
    record = store.layers.record(LAYER)
    assert record is not None
    assert set(record.blobs) == {"gzip-libdeflate-3-1MiB", "zstd-3"}
    assert record.blobs["gzip-libdeflate-3-1MiB"] == blob
    assert store.layers.index_bytes(LAYER) == b"index bytes"
    assert [digest for digest, _ in store.layers.all()] == [LAYER]
    store.layers.remove(LAYER)
    assert store.layers.record(LAYER) is None
    assert list(store.layers.all()) == []


def test_a_layer_never_names_a_missing_blob(store: Store) -> None:
    absent = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"gz"), size=2)
    with pytest.raises(AerogelError) as caught:
        store.layers.save(LAYER, size=1, blobs={"gzip": absent})
    assert caught.value.code == "store.missing"
    assert store.layers.record(LAYER) is None
    blob = store.blobs.put(b"gz", OCI_LAYER_GZIP)
    store.layers.save(LAYER, size=1, blobs={"gzip": blob})
    # A power cut may leave the name and lose the content.
    path = Path(store.blobs.path(blob.digest))
    path.unlink()
    path.touch()
    record = store.layers.record(LAYER)
    assert record is not None
    assert record.blobs == {}
    store.blobs.put(b"gz")
    record = store.layers.record(LAYER)
    assert record is not None
    assert record.blobs == {"gzip": blob}


def test_damaged_layer_files_are_dropped(store: Store) -> None:
    store.layers.save(LAYER, size=1, blobs={"gzip": store.blobs.put(b"gz")}, index=b"x" * 100)
    [folder] = Path(store.data, "layers-v1").glob("*/*")
    (folder / "blob.gzip").write_bytes(b"")
    (folder / "index").write_bytes((folder / "index").read_bytes()[:-1])
    record = store.layers.record(LAYER)
    assert record is not None
    assert record.blobs == {}
    with pytest.raises(AerogelError) as caught:
        store.layers.index_bytes(LAYER)
    assert caught.value.code == "store.corrupt"
    with pytest.raises(AerogelError) as caught:
        store.layers.index_bytes(LAYER)
    assert caught.value.code == "store.missing"
    (folder / "meta").write_bytes(b"{}")
    assert store.layers.record(LAYER) is None


# Actions


def test_actions(store: Store) -> None:
    assert store.actions.get(KEY) is None
    store.actions.put(KEY, {"op": "run"}, {"layers": [LAYER], "odd": "caf\udce9"})
    assert store.actions.get(KEY) == {"layers": [LAYER], "odd": "caf\udce9"}
    assert store.actions.record(KEY) == {"facts": {"op": "run"}, "key": KEY, "result": store.actions.get(KEY)}
    assert [key for key, _ in store.actions.all()] == [KEY]
    assert store.actions.remove(KEY)
    assert store.actions.get(KEY) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"key":"sha256:0","result":{},"facts":{}}', b"\0" * 4096])
def test_a_damaged_action_is_a_miss(store: Store, damage: bytes) -> None:
    store.actions.put(KEY, {}, {"a": 1})
    Path(store.actions.path(KEY)).write_bytes(damage)
    assert store.actions.get(KEY) is None
    assert not Path(store.actions.path(KEY)).exists()
    store.actions.put(KEY, {}, {"a": 1})
    assert store.actions.get(KEY) == {"a": 1}


def test_use_of_an_old_action_is_noted(store: Store) -> None:
    store.actions.put(KEY, {}, {})
    os.utime(store.actions.path(KEY), (1_000_000_000, 1_000_000_000))
    store.actions.get(KEY)
    [(_, state)] = store.actions.all()
    assert state.st_mtime > 1_500_000_000


# Snapshots


def make_snapshot(store: Store, key: str, content: bytes = b"x") -> str:
    made = store.snapshots.new("root")
    Path(made, "fs").mkdir()
    Path(made, "fs", "file").write_bytes(content)
    return store.snapshots.commit(made, "root", key)


def test_a_snapshot_is_there_when_committed(store: Store) -> None:
    assert store.snapshots.dir_for("root", KEY) is None
    path = make_snapshot(store, KEY)
    assert store.snapshots.dir_for("root", KEY) == path
    assert Path(path, "fs", "file").read_bytes() == b"x"
    assert store.snapshots.dir_for("u100000-65536", KEY) is None
    assert list(store.snapshots.all()) == [("root", KEY, path)]
    assert store.snapshots.remove("root", KEY)
    assert store.snapshots.dir_for("root", KEY) is None
    assert store.snapshots.remove("root", KEY)


def test_the_first_of_two_snapshots_stays(store: Store) -> None:
    first = make_snapshot(store, KEY, b"first")
    second = make_snapshot(store, KEY, b"second")
    assert first == second
    assert Path(first, "fs", "file").read_bytes() == b"first"
    made = store.snapshots.new("root")
    assert store.snapshots.discard(made)
    assert not Path(made).exists()


def test_a_snapshot_of_another_boot_is_trusted_only_when_durable(store: Store) -> None:
    for key, durable in ((LAYER, True), (KEY, False)):
        path = make_snapshot(store, key)
        if durable:
            store.sync()
        meta = json.loads(Path(path, "snapshot.json").read_bytes())
        assert meta["durable"] is durable
        meta["boot"] = "another"
        Path(path, "snapshot.json").write_text(json.dumps(meta))
    with Store.open(store.data, store.cache) as later:
        assert later.snapshots.dir_for("root", KEY) is None
        assert later.snapshots.dir_for("root", LAYER) is not None
        assert Path(make_snapshot(later, KEY, b"new"), "fs", "file").read_bytes() == b"new"


def test_a_copied_snapshot_is_not_trusted(store: Store, tmp_path: Path) -> None:
    make_snapshot(store, KEY)
    shutil.copytree(store.cache, tmp_path / "copy", ignore=shutil.ignore_patterns("scratch"))
    with Store.open(tmp_path / "data2", tmp_path / "copy") as copied:
        assert copied.snapshots.dir_for("root", KEY) is None
        assert make_snapshot(copied, KEY)
        assert copied.snapshots.dir_for("root", KEY) is not None


def test_a_pinned_snapshot_is_not_removed(store: Store) -> None:
    path = make_snapshot(store, KEY)
    with store.snapshots.pinned("root", KEY) as pinned:
        assert pinned == path
        with Store.open(store.data, store.cache) as other:
            assert not other.snapshots.remove("root", KEY)
        assert Path(path).exists()
    with store.snapshots.pinned("root", LAYER) as pinned:
        assert pinned is None
    assert store.snapshots.remove("root", KEY)


@pytest.mark.parametrize(("mapping", "key"), [("..", "a"), ("a", ".."), ("a/b", "c"), ("", "a"), ("a", "")])
def test_names_stay_inside(store: Store, mapping: str, key: str) -> None:
    with pytest.raises(ValueError, match="cannot name a snapshot"):
        store.snapshots.dir_for(mapping, key)


# Images


def image(store: Store, text: bytes, created: str = "2024-01-01T00:00:00Z") -> tuple[Descriptor, ImageMeta]:
    descriptor = store.blobs.put(text, OCI_MANIFEST)
    return descriptor, ImageMeta(
        image_id=digest_of(b"config of " + text), created=created, size=10, platforms=("linux/amd64",)
    )


def test_tag_resolve_untag(store: Store) -> None:
    descriptor, meta = image(store, b"one")
    name = Reference.parse("app:1")
    assert store.images.resolve(name) is None
    store.images.tag(name, descriptor, meta)
    for text in (name, "app:1", "docker.io/library/app:1", descriptor.digest, meta.image_id, meta.image_id[7:19]):
        assert store.images.resolve(text) == descriptor
    assert store.images.resolve(descriptor.digest[7:]) == descriptor
    assert store.images.resolve(f"app@{descriptor.digest}") == descriptor
    assert store.images.resolve("app") is None
    assert store.images.resolve("abc") is None
    assert store.images.resolve("sha256:" + "0" * 64) is None
    [record] = store.images.list()
    assert record.references == (name,)
    assert record.meta == meta
    assert record.id == meta.image_id
    assert store.images.untag(name)
    assert not store.images.untag(name)
    assert store.images.resolve(name) is None
    assert store.images.list()[0].references == ()
    assert store.images.resolve(meta.image_id) == descriptor
    assert store.images.remove(descriptor.digest) == ()
    assert store.images.list() == []


@pytest.mark.damage
def test_a_tag_moves_and_the_old_image_stays(store: Store) -> None:
    one, two = image(store, b"one", "2024-01-01T00:00:00Z"), image(store, b"two", "2024-01-02T00:00:00Z")
    name = Reference.parse("app")
    store.images.tag(name, *one)
    store.images.tag(name, *two)
    assert store.images.resolve(name) == two[0]
    assert [record.references for record in store.images.list()] == [(name,), ()]
    store.images.tag(Reference.parse("app:old"), *two)
    assert set(store.images.remove(two[0].digest)) == {name, Reference.parse("app:old")}
    assert [record.references for record in store.images.list()] == [()]
    assert store.images.resolve(name) is None


@pytest.mark.damage
def test_a_name_wins_over_an_id_and_doubt_is_told(store: Store) -> None:
    images = [image(store, str(number).encode()) for number in range(40)]
    for each in images:
        store.images.add(*each)
    digits = images[0][1].image_id[7:10]
    named = image(store, b"named")
    store.images.tag(Reference.parse(digits), *named)
    assert store.images.resolve(digits) == named[0]
    meta = ImageMeta(image_id="sha256:abc" + "0" * 61)
    store.images.add(store.blobs.put(b"a", OCI_MANIFEST), meta)
    store.images.add(store.blobs.put(b"b", OCI_MANIFEST), ImageMeta(image_id="sha256:abc" + "1" * 61))
    with pytest.raises(AerogelError) as caught:
        store.images.resolve("abc")
    assert caught.value.code == "store.ambiguous"
    assert store.images.resolve("abc0") is not None


def test_an_image_whose_manifest_is_gone_is_absent(store: Store) -> None:
    descriptor, meta = image(store, b"one")
    name = Reference.parse("app")
    store.images.tag(name, descriptor, meta)
    store.blobs.remove(descriptor.digest)
    assert store.images.resolve(name) is None
    assert store.images.list() == []
    with pytest.raises(AerogelError) as caught:
        store.images.tag(name, descriptor, meta)
    assert caught.value.code == "store.missing"


@pytest.mark.damage
def test_tagging_the_same_again_writes_nothing(store: Store) -> None:
    descriptor, meta = image(store, b"one")
    name = Reference.parse("app")
    store.images.tag(name, descriptor, meta)
    [path] = Path(store.data, "images-v1", "refs").iterdir()
    before = path.stat().st_ino
    with Store.open(store.data, store.cache) as other:
        other.images.tag(name, descriptor, meta)
        assert not any(Path(other.data, "scratch").glob(f"s-{os.getpid()}-*/f-*"))
    assert path.stat().st_ino == before


def test_a_tag_needs_a_tag(store: Store) -> None:
    descriptor, meta = image(store, b"one")
    digest_only = Reference.parse(f"app@{Digest(descriptor.digest)}")
    with pytest.raises(AerogelError) as caught:
        store.images.tag(digest_only, descriptor, meta)
    assert caught.value.code == "store.name"
