"""What is removed and what stays, and that sizes are those of du."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_images import add_layer, layer_tar, make_image

from aerogel.errors import AerogelError
from aerogel.files.codec import select
from aerogel.oci.digest import Digest, digest_of
from aerogel.oci.image import load
from aerogel.oci.reference import Reference
from aerogel.oci.validate import validate
from aerogel.store.gc import du, prune, tree_size
from aerogel.store.images import describe
from aerogel.store.mounts import CacheAbout, CacheMounts
from aerogel.store.store import Store

DAY = 86_400.0
NOW = 1_700_000_000.0


def tag(store: Store, name: str, text: bytes) -> Digest:
    image = make_image(store, text=text)
    store.images.tag(Reference.parse(name), image.descriptor, describe(image.descriptor, store.blobs))
    return image.digest


def action(store: Store, text: bytes, age_days: float, *, snapshot: bool = False) -> tuple[Digest, Digest]:
    """A step's result of some age: a layer of 200 kB and, if asked, its snapshot."""
    _, diff_id = add_layer(store, layer_tar({"data": os.urandom(200_000), "text": text}), select("uncompressed"))
    if snapshot:
        made = store.snapshots.new("root")
        Path(made, "file").write_bytes(bytes(100_000))
        store.snapshots.commit(made, "root", diff_id)
    key = digest_of(b"key " + text)
    store.actions.put(key, {"text": text.decode()}, {"layers": [diff_id]})
    when = NOW - age_days * DAY
    os.utime(store.actions.path(key), (when, when))
    return key, diff_id


def images_are_whole(store: Store) -> None:
    for record in store.images.list():
        image = load(record.descriptor, store.blobs)
        assert validate(image) == []
        for layer in image.layers():
            assert store.layers.record(layer.diff_id) is not None


def test_only_what_nothing_needs_goes(store: Store) -> None:
    tag(store, "app", b"one")
    _, kept = action(store, b"kept", 100, snapshot=True)
    orphan = store.blobs.put(b"orphan").digest
    unnamed = make_image(store, text=b"unnamed")
    store.images.add(unnamed.descriptor, describe(unnamed.descriptor, store.blobs))
    assert prune(store, dry_run=True).images == (unnamed.digest,)
    assert store.images.resolve(unnamed.digest) is not None
    kept_untagged = prune(store, keep_untagged=True)
    assert (kept_untagged.images, kept_untagged.blobs) == ((), 1)
    assert not store.blobs.has(orphan)
    pruned = prune(store)
    assert pruned.images == (unnamed.digest,)
    assert pruned.actions == pruned.snapshots == 0
    assert store.layers.record(kept) is not None
    assert store.snapshots.dir_for("root", kept)
    assert store.images.resolve(unnamed.digest) is None
    images_are_whole(store)
    again = prune(store)
    assert (again.blobs, again.layers, again.freed_bytes) == (0, 0, 0)


def test_old_results_go_and_named_images_stay(store: Store) -> None:
    tag(store, "app", b"one")
    old_key, old = action(store, b"old", 30, snapshot=True)
    new_key, new = action(store, b"new", 1, snapshot=True)
    pruned = prune(store, cutoff_s=NOW - 7 * DAY)
    assert (pruned.actions, pruned.layers, pruned.snapshots, pruned.blobs) == (1, 1, 1, 1)
    assert pruned.freed_bytes > 300_000
    assert store.actions.get(old_key) is None
    assert store.layers.record(old) is None
    assert store.snapshots.dir_for("root", old) is None
    assert store.actions.get(new_key) == {"layers": [new]}
    assert store.snapshots.dir_for("root", new)
    record = store.layers.record(new)
    assert record is not None
    assert record.blobs
    images_are_whole(store)
    assert prune(store, whole_cache=True).actions == 1
    assert list(store.snapshots.all()) == []
    images_are_whole(store)


def test_the_oldest_go_until_it_fits(store: Store) -> None:
    tag(store, "app", b"one")
    keys = [action(store, str(age).encode(), age)[0] for age in (5, 3, 1, 4, 2)]
    total = du(store).total_bytes
    pruned = prune(store, max_size_bytes=total - 500_000)
    assert pruned.actions == 3
    assert [store.actions.get(key) is not None for key in keys] == [False, False, True, False, True]
    assert du(store).total_bytes <= total - 500_000
    assert prune(store, max_size_bytes=total).actions == 0
    prune(store, max_size_bytes=0)
    assert list(store.actions.all()) == []
    images_are_whole(store)


def test_a_layer_of_an_image_outlives_its_action(store: Store) -> None:
    image = make_image(store, text=b"shared")
    key = digest_of(b"k")
    store.actions.put(key, {}, {"layers": list(image.config.rootfs.diff_ids)})
    os.utime(store.actions.path(key), (0, 0))
    store.images.tag(Reference.parse("app"), image.descriptor, describe(image.descriptor, store.blobs))
    pruned = prune(store, whole_cache=True)
    assert (pruned.actions, pruned.layers, pruned.blobs) == (1, 0, 0)
    images_are_whole(store)


def test_sizes_are_those_of_du(store: Store) -> None:
    tag(store, "app", b"one")
    action(store, b"a", 1, snapshot=True)
    Path(store.cache, "debs").mkdir()
    Path(store.cache, "debs", "x.deb").write_bytes(bytes(50_000))
    os.link(Path(store.cache, "debs", "x.deb"), Path(store.cache, "debs", "y.deb"))
    usage = du(store)
    for size, path in (
        (usage.blobs_bytes, f"{store.data}/blobs"),
        (usage.layers_bytes, f"{store.data}/layers-v1"),
        (usage.snapshots_bytes, f"{store.cache}/snapshots-v1"),
        (usage.actions_bytes, f"{store.cache}/actions-v1"),
    ):
        told = subprocess.run(["du", "-sB1", path], capture_output=True, text=True, check=True).stdout
        assert size == int(told.split()[0])
        assert size == tree_size(path)
    assert usage.other_bytes >= 50_000
    assert (usage.images, usage.actions, usage.snapshots) == (1, 1, 1)
    assert usage.reclaimable_bytes == 0
    store.blobs.put(b"orphan" * 1000)
    assert du(store).reclaimable_bytes >= 6000


def test_a_busy_store_is_left_alone(store: Store) -> None:
    store.blobs.put(b"orphan")
    with Store.open(store.data, store.cache):
        with pytest.raises(AerogelError) as caught:
            prune(store)
        assert caught.value.code == "store.busy"
    assert prune(store).blobs == 1


def test_a_pinned_snapshot_stays(store: Store) -> None:
    _, diff_id = action(store, b"a", 1, snapshot=True)
    with store.snapshots.pinned("root", diff_id) as path:
        assert prune(store, whole_cache=True).snapshots == 0
        assert path is not None
        assert Path(path, "file").exists()
    assert prune(store).snapshots == 1


@pytest.mark.damage
def test_damaged_records_do_not_stop_it(store: Store) -> None:
    digest = tag(store, "app", b"one")
    key, _ = action(store, b"a", 1)
    Path(store.actions.path(key)).write_bytes(b"\0")
    config = load(store.images.resolve("app"), store.blobs).manifest.config.digest  # type: ignore[arg-type]  # it is there
    store.blobs.remove(config)
    pruned = prune(store)
    assert pruned.blobs >= 1
    assert pruned.actions == 1
    assert store.blobs.has(digest)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 3_000_000),
    st.booleans(),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_images_and_what_is_kept_are_always_whole(
    store: Store, results: list[tuple[int, bool]], cutoff_days: int | None, max_size: int | None, whole: bool
) -> None:
    tag(store, "app", b"one")
    for number, (age, snapshot) in enumerate(results):
        action(store, str(number).encode(), age, snapshot=snapshot)
    cutoff = None if cutoff_days is None else NOW - cutoff_days * DAY
    expected = prune(store, cutoff_s=cutoff, max_size_bytes=max_size, whole_cache=whole, dry_run=True)
    assert prune(store, cutoff_s=cutoff, max_size_bytes=max_size, whole_cache=whole) == expected
    images_are_whole(store)
    for key, _ in store.actions.all():
        result = store.actions.get(key)
        assert result is not None
        for diff_id in result["layers"]:
            record = store.layers.record(diff_id)
            assert record is not None
            assert record.blobs


def real(store: Store) -> int:
    """What du(1) says of the two folders."""
    told = subprocess.run(["du", "-sB1", store.data, store.cache], capture_output=True, text=True, check=True).stdout
    return sum(int(line.split()[0]) for line in told.splitlines())


def other_things(store: Store) -> None:
    """Records, logs, downloads, cache mounts, an unnamed image, and scratch space of a process that is dead."""
    store.builds.put({"id": store.builds.new_id(NOW), "steps": []})
    store.builds.selections.keep("sha256:" + "5" * 64, lambda: [(b"a", 0x30, 0o644, 0, 0, 0, b"", b"")])
    for name in (
        "logs-v1/20200101/1.log",
        "http-v1/content/abc",
        "debian-v1/debs-v1/ab/x.deb",
        "git-v1/r.git/objects/x",
    ):
        path = Path(store.cache, name)
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(70_000))
    about = CacheAbout("go")
    with CacheMounts(store.cache, store.scratch).hold(
        "root", about, "shared", lambda path: Path(path, "f").write_bytes(bytes(50_000)), lambda _: None
    ):
        pass
    unnamed = make_image(store, text=b"unnamed")
    store.images.add(unnamed.descriptor, describe(unnamed.descriptor, store.blobs))
    dead = Path(store.cache, "scratch", "s-1-dead", "d-1")
    dead.mkdir(parents=True)
    (dead / "x").write_bytes(bytes(30_000))
    Path(store.data, "scratch").mkdir(exist_ok=True)
    Path(store.data, "scratch", "p-sha256-" + "6" * 64).write_bytes(bytes(20_000))


@pytest.mark.parametrize("how", [{}, {"whole_cache": True}, {"cutoff_s": NOW}, {"max_size_bytes": 600_000}], ids=str)
def test_what_is_freed_is_what_the_disk_gets_back(store: Store, how: dict[str, object]) -> None:
    tag(store, "app", b"one")
    for age in (1, 2, 3):
        action(store, str(age).encode(), age, snapshot=True)
    other_things(store)
    expected = prune(store, dry_run=True, **how)  # type: ignore[arg-type]  # one of the options
    before = real(store)
    assert du(store).total_bytes == before
    assert du(store).reclaimable_bytes == prune(store, dry_run=True).freed_bytes
    done = prune(store, **how)  # type: ignore[arg-type]  # one of the options
    assert done == expected
    assert before - real(store) == done.freed_bytes
    assert du(store).reclaimable_bytes == 0
    if "max_size_bytes" in how:
        assert real(store) <= 600_000
    if "whole_cache" in how:
        assert (done.mounts, list(store.builds.ids()), list(store.actions.all())) == (1, [], [])
        assert not list(Path(store.cache, "debian-v1").rglob("*.deb"))
    images_are_whole(store)


def test_things_of_one_moment_go_together(store: Store) -> None:
    """A limit that falls between a result and its layer is kept."""
    action(store, b"a", 3, snapshot=True)
    action(store, b"b", 2, snapshot=True)
    total = du(store).total_bytes
    for less in (1, 5000, 90_000, 150_000, 320_000, 400_000):
        prune(store, max_size_bytes=total - less)
        assert du(store).total_bytes <= total - less
