"""A record of the store that is no more what was written counts as missing, whatever stands in it now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from store_images import make_image

from aerogel.errors import AerogelError
from aerogel.oci.digest import digest_of
from aerogel.oci.reference import Reference
from aerogel.store.failed import FailedState
from aerogel.store.gc import du, prune
from aerogel.store.images import describe
from aerogel.store.load import load_layout
from aerogel.store.mounts import CacheAbout, CacheMounts
from aerogel.store.store import Store

pytestmark = pytest.mark.damage

KEY, LAYER, BLOB = (digest_of(text) for text in (b"key", b"layer", b"blob"))
NAME = Reference.parse("app:1")
DEEP = b"[" * 100_000
"""Python's reader of JSON ends at its own limit."""
TALL = b'{"a":' * 300 + b"1" + b"}" * 300
"""It does not here, but what goes through the value would."""
BAD = {
    "deep": DEEP,
    "tall": TALL,
    "bytes": b'{"id": "\xff"}',
    "torn": b'{"id"',
    "list": b"[]",
    "number": b"7",
    "empty": b"{}",
}


def failed() -> FailedState:
    return FailedState(
        key=KEY,
        layers=(LAYER,),
        stage="app",
        title="RUN x",
        place="Dockerfile:1",
        message="it failed",
        log="",
        platform="linux/amd64",
        since_ns=0,
        sandbox=msgspec.Raw(b"{}"),
    )


def fill(store: Store) -> None:
    """One record of each kind."""
    made = make_image(store, text=b"one")
    store.images.tag(NAME, made.descriptor, describe(made.descriptor, store.blobs), is_own=True)
    store.actions.put(KEY, {}, {"layers": [LAYER]})
    store.layers.save(LAYER, size=1, blobs={"gzip": store.blobs.put(b"gz")})
    store.snapshots.commit(store.snapshots.new("root"), "root", KEY, layers=(LAYER, BLOB))
    store.sync()
    store.origins.note(BLOB, "example.org/app")
    store.referrers.add(made.digest, make_image(store, text=b"two").descriptor)
    repository = store.repositories.of("app")
    repository.add_manifest(made.descriptor, "")
    repository.set_tag("1", made.digest)
    store.builds.put({"id": store.builds.new_id(1_700_000_000.0), "steps": []})
    with CacheMounts(store.cache, store.scratch).hold(
        "root", CacheAbout("go"), "shared", lambda _: None, lambda _: None
    ):
        pass
    store.failed.keep(store.snapshots.new("root"), "root", failed())


READ: dict[str, tuple[str, Callable[[Store], object]]] = {
    "action": ("actions-v1/*/*", lambda store: store.actions.record(KEY)),
    "layer": (f"layers-v1/*/{LAYER[9:]}/meta", lambda store: store.layers.record(LAYER)),
    "blob of a layer": (f"layers-v1/*/{LAYER[9:]}/blob.*", lambda store: store.layers.record(LAYER).blobs),  # type: ignore[union-attr]  # it is there
    "snapshot": ("snapshots-v1/root/*/snapshot.json", lambda store: store.snapshots.dir_for("root", KEY)),
    "layers of a snapshot": (
        "snapshots-v1/root/*/snapshot.json",
        lambda store: store.snapshots.layers(next(store.snapshots.all())[2], "") != [""],
    ),
    "image": ("images-v1/by-digest/*", lambda store: store.images.list()),
    "name": ("images-v1/refs/*", lambda store: store.images.digests(NAME)),
    "owner": (
        "images-v1/refs/*",
        lambda store: store.images.is_own(NAME, next(iter(store.images.list())).descriptor.digest),
    ),
    "names": ("images-v1/refs/*", lambda store: [name for each in store.images.list() for name in each.references]),
    "origin": ("origins-v1/*/*", lambda store: store.origins.of(BLOB)),
    "referrer": (
        "images-v1/referrers/*/*",
        lambda store: [each for subject in store.referrers.subjects() for each in store.referrers.of(subject)],
    ),
    "manifest": ("registry-v1/*/manifests/*", lambda store: store.repositories.of("app").manifests()),
    "build": ("builds-v1/*.json", lambda store: list(store.builds.newest())),
    "cache": ("mounts-v*/*/*/about.json", lambda store: list(CacheMounts(store.cache, store.scratch).all())),
    "failed step": ("failed-v1/*/*/failed.json", lambda store: list(store.failed.all())),
}


@pytest.mark.parametrize("kind", READ)
def test_what_is_damaged_is_missing(tmp_path: Path, kind: str) -> None:
    """Each time for one who opens the store anew; who lists or prunes all of it goes on too."""
    folders = tmp_path / "data", tmp_path / "cache"
    pattern, read = READ[kind]
    with Store.open(*folders) as store:
        fill(store)
        assert read(store)
    (path,) = (each for folder in folders for each in folder.glob(pattern))
    good = path.read_bytes()
    for name, damage in BAD.items():
        path.write_bytes(damage)
        with Store.open(*folders) as store:
            assert not read(store), name
            path.write_bytes(damage)
            du(store)
            prune(store, dry_run=True)
        path.write_bytes(good)
        with Store.open(*folders) as store:
            assert read(store), name


@pytest.mark.parametrize(
    ("field", "value"), [("own", [["a"], 7]), ("name", "../A"), ("others", [{}]), ("digest", "sha256:x"), ("name", 7)]
)
def test_a_name_with_odd_fields(store: Store, field: str, value: object) -> None:
    fill(store)
    (path,) = Path(store.data, "images-v1/refs").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    (image,) = store.images.list()
    store.images.is_own(NAME, image.descriptor.digest)
    store.images.tag(NAME, image.descriptor, image.meta, is_own=True)
    assert store.images.digests(NAME) == (image.descriptor.digest,)
    assert store.images.is_own(NAME, image.descriptor.digest)


@pytest.mark.parametrize("value", [{"id": 7}, {"id": "go", "odd": 1}, {"id": "go", "uid": True}, {"uid": 1}])
def test_a_cache_with_odd_fields(store: Store, value: object) -> None:
    fill(store)
    (path,) = Path(store.cache).glob("mounts-v*/*/*/about.json")
    path.write_text(json.dumps(value))
    assert list(CacheMounts(store.cache, store.scratch).all()) == []


def test_a_snapshot_that_is_damaged_while_it_is_used(store: Store) -> None:
    """Of what cannot be read nothing is said to the disk; the next run makes it anew."""
    path = store.snapshots.commit(store.snapshots.new("root"), "root", KEY)
    Path(path, "snapshot.json").write_bytes(DEEP)
    store.sync()
    assert Path(path, "snapshot.json").read_bytes() == DEEP
    with Store.open(store.data, store.cache) as other:
        assert other.snapshots.dir_for("root", KEY) is None


@pytest.mark.parametrize("damage", [DEEP, b"[" * 300 + b"]" * 300, b'["\xff"]'])
def test_the_list_of_an_archive(store: Store, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image/manifest.json").write_bytes(damage)
    with pytest.raises(AerogelError, match=r"`manifest.json` is not JSON"):
        load_layout(str(tmp_path / "image"), store)
