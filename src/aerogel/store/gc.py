"""What the store takes, what of it nothing needs any more, and removing that.

Needed is what a named image reaches (manifests, configs, layers with all their blobs, indexes and snapshots), and what
the result of a remembered action names: every digest that occurs in it, whatever the record means by it. A thing's last
use is that of the newest action that names it; things that only images need are in use always.

What else lies in the cache (records of builds, logs, downloads, directories of cache mounts) was last used when it was
last written. It goes when it is old, when room is wanted, or with everything.

Removal is for a process that has the store alone (`Store.exclusive`), and goes from names to content: image,
action, layer record, snapshot, blob. Killed in between it leaves only what the next run removes.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator

import msgspec

from aerogel.decoding import parse_json
from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.image import document, images, walk
from aerogel.oci.types import Descriptor, Index
from aerogel.store.images import ImageRecord
from aerogel.store.layers import LayerRecord
from aerogel.store.mounts import CacheMounts, KeptCache
from aerogel.store.store import Store

__all__ = ["CONTAINERS", "VOLUMES", "Pruned", "Usage", "du", "prune", "tree_size"]

_LOOSE = {
    "builds-v1": 1,
    "selections-v1": 2,
    "blocks-v1": 1,
    "contents-v1": 1,
    "logs-v1": 1,
    "failed-v1": 2,
    "replays-v1": 1,
    "http-v1": 2,
    "git-v1": 1,
    "debian-v1": 3,
    "tools-v1": 1,
}
"""Folders of the cache with things that can go one by one, and how deep these lie at most."""

CONTAINERS, VOLUMES = "containers-v1", "volumes-v1"
"""Folders of the data whose content other commands remove."""

_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})")
Measure = Callable[[str], int]
_ALWAYS = math.inf
_NEVER = -math.inf


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the disk, as du(1) counts them, and how many there are."""

    images: int
    blobs: int
    blobs_bytes: int
    layers: int
    layers_bytes: int
    snapshots: int
    snapshots_bytes: int
    actions: int
    actions_bytes: int
    scratch_bytes: int
    mounts: int
    mounts_bytes: int
    records_bytes: int
    """Records of builds and logs."""
    failed: int
    """States of steps that failed."""
    failed_bytes: int
    containers: int
    containers_bytes: int
    volumes: int
    volumes_bytes: int
    other_bytes: int
    """The rest of the two folders: downloads, indexes of packages, images' names."""
    total_bytes: int
    reclaimable_bytes: int
    """What `prune` without options would free."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be."""

    images: tuple[Digest, ...] = ()
    actions: int = 0
    layers: int = 0
    snapshots: int = 0
    blobs: int = 0
    mounts: int = 0
    """Directories of cache mounts."""
    files: int = 0
    """Records of builds, logs, states of failed steps, downloads."""
    freed_bytes: int = 0
    """As du(1) counts them."""


class _Uses:
    """The last use of each thing, as seconds since 1970; what is absent was never used."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def note(self, thing: str, when: float) -> None:
        if when > self.last.get(thing, _NEVER):
            self.last[thing] = when

    def of(self, thing: str) -> float:
        return self.last.get(thing, _NEVER)


class _Survey:
    """Everything in the store with its size and last use."""

    def __init__(self, store: Store, *, keep_untagged: bool, measure: Measure | None) -> None:
        self.store = store
        self.measure = measure
        self.uses = _Uses()
        self.images: list[ImageRecord] = []
        """Those that are to go: untagged, unless these are kept."""
        self.actions: dict[Digest, float] = {}
        self.layers: dict[Digest, LayerRecord | None] = {}
        self.mounts: dict[str, KeptCache] = {}
        self.loose: dict[str, float] = {}
        self.sizes: dict[tuple[str, ...], int] = {}
        """What can go -> its bytes; keys are a kind and what the removal needs."""
        self.freed_images = 0
        self._of_images(keep_untagged)
        self._of_actions()
        self._of_layers()
        self._of_the_rest()

    def _of_images(self, keep_untagged: bool) -> None:
        for record in self.store.images.list():
            if not record.references and not keep_untagged:
                self.images.append(record)
                self.freed_images += _allocated(self.store.images.paths_of(record.descriptor.digest)[0])
                continue
            self.uses.note(record.descriptor.digest, _ALWAYS)
            try:
                for part in walk(record.descriptor, self.store.blobs):
                    self.uses.note(part.digest, _ALWAYS)
                    for artifact in self.store.referrers.of(part.digest):
                        for each in walk(artifact, self.store.blobs):
                            self.uses.note(each.digest, _ALWAYS)
                for image in images(record.descriptor, self.store.blobs):
                    for diff_id in image.config.rootfs.diff_ids:
                        self.uses.note(diff_id, _ALWAYS)
            except AerogelError:
                # A damaged image: what can be reached of it stays, the user may want to see it fail.
                continue
        self._of_indexes()
        for digest in self.store.repositories.digests():
            self.uses.note(digest, _ALWAYS)

    def _of_indexes(self) -> None:
        """What was told of an index, in whose place one image of it was pulled, stays with that image."""
        for subject in self.store.referrers.subjects():
            size = self.store.blobs.size(subject)
            if size is None or self.uses.of(subject) == _ALWAYS:
                continue
            try:
                found, _ = document(Descriptor(digest=subject, size=size), self.store.blobs)
                if isinstance(found, Index) and any(self.uses.of(each.digest) == _ALWAYS for each in found.manifests):
                    self.uses.note(subject, _ALWAYS)
                    for artifact in self.store.referrers.of(subject):
                        for each in walk(artifact, self.store.blobs):
                            self.uses.note(each.digest, _ALWAYS)
            except AerogelError:
                continue  # damaged: it may go

    def _of_actions(self) -> None:
        for key, state in self.store.actions.all():
            self.actions[key] = state.st_mtime
            self.sizes["action", key] = state.st_blocks * 512
            try:
                with open(self.store.actions.path(key), "rb") as file:
                    result = json.dumps(parse_json(file.read()).get("result"))
            except (OSError, ValueError, AttributeError):
                self.actions[key] = _NEVER
                continue
            for digest in _DIGEST.findall(result):
                self.uses.note(digest, state.st_mtime)

    def _of_layers(self) -> None:
        for diff_id, _ in self.store.layers.all():
            record = self.store.layers.record(diff_id)
            self.layers[diff_id] = record
            self.sizes["layer", diff_id] = tree_size(self.store.layers.path(diff_id))
            if record is not None:
                for blob in record.blobs.values():
                    self.uses.note(blob.digest, self.uses.of(diff_id))

    def _of_the_rest(self) -> None:
        for digest, _ in self.store.blobs.all():
            artifacts = f"{self.store.data}/images-v1/referrers/{digest.partition(':')[2]}"
            self.sizes["blob", digest] = _allocated(self.store.blobs.path(digest)) + tree_size(artifacts)
        for mapping, key, path in self.store.snapshots.all():
            self.sizes["snapshot", mapping, key] = tree_size(path, self.measure)
            # One of several layers is for those that want them all.
            self.uses.note(key, min(self.uses.of(layer) for layer in self.store.snapshots.layers(path, key)))
        for kept in CacheMounts(self.store.cache, self.store.scratch).all():
            self.mounts[kept.path] = kept
            self.sizes["mount", kept.path] = tree_size(kept.path, self.measure)
        for name, depth in _LOOSE.items():
            for path, state in _things(f"{self.store.cache}/{name}", depth):
                self.loose[path] = state.st_mtime
                self.sizes["file", path] = tree_size(path, self.measure)

    def last_use(self, thing: tuple[str, ...]) -> float:
        if thing[0] == "action":
            return self.actions[Digest(thing[1])]
        if thing[0] == "mount":
            return self.mounts[thing[1]].last_use_s
        if thing[0] == "file":
            return self.loose[thing[1]]
        return self.uses.of(thing[-1])

    def cutoff_for(self, max_size: int, fixed: int) -> float:
        """The last use before which all must go, so that no more than `max_size` bytes stay (if that is enough)."""
        left = fixed + sum(self.sizes.values())
        order = sorted(self.sizes, key=self.last_use)
        for number, thing in enumerate(order):
            if left <= max_size:
                if not number:
                    return _NEVER
                # What was used at the same moment goes together.
                last = self.last_use(order[number - 1])
                return math.nextafter(last, _ALWAYS) if last != _NEVER else _NEVER
            if self.last_use(thing) == _ALWAYS:
                break
            left -= self.sizes[thing]
        return _ALWAYS

    def doomed(self, cutoff: float) -> list[tuple[str, ...]]:
        """What goes: never used, or last used before `cutoff`."""
        return [thing for thing in sorted(self.sizes) if (last := self.last_use(thing)) < cutoff or last == _NEVER]


def du(store: Store, measure: Measure | None = None) -> Usage:
    """What the store takes. Reads names and sizes, and the documents of images.

    `measure` gives the bytes of a directory that this process may not list.
    """
    survey = _Survey(store, keep_untagged=False, measure=measure)
    places = {
        "blobs": f"{store.data}/blobs",
        "layers": f"{store.data}/layers-v1",
        "snapshots": f"{store.cache}/snapshots-v1",
        "actions": f"{store.cache}/actions-v1",
        "mounts": f"{store.cache}/mounts-v1",
        "failed": f"{store.cache}/failed-v1",
        "containers": f"{store.data}/{CONTAINERS}",
        "volumes": f"{store.data}/{VOLUMES}",
    }
    sizes = {name: tree_size(path, measure) for name, path in places.items()}
    records = sum(tree_size(f"{store.cache}/{name}") for name in ("builds-v1", "selections-v1", "logs-v1"))
    scratch = sum(tree_size(f"{root}/scratch", measure) for root in {store.data, store.cache})
    total = _total(store, measure)
    kinds = [thing[0] for thing in survey.sizes]
    return Usage(
        images=len(store.images.list()),
        blobs=kinds.count("blob"),
        blobs_bytes=sizes["blobs"],
        layers=kinds.count("layer"),
        layers_bytes=sizes["layers"],
        snapshots=kinds.count("snapshot"),
        snapshots_bytes=sizes["snapshots"],
        actions=kinds.count("action"),
        actions_bytes=sizes["actions"],
        scratch_bytes=scratch,
        mounts=kinds.count("mount"),
        mounts_bytes=sizes["mounts"],
        records_bytes=records,
        failed=sum(1 for _ in store.failed.all()),
        failed_bytes=sizes["failed"],
        containers=_folders(places["containers"]),
        containers_bytes=sizes["containers"],
        volumes=_folders(places["volumes"]),
        volumes_bytes=sizes["volumes"],
        other_bytes=total - scratch - records - sum(sizes.values()),
        total_bytes=total,
        reclaimable_bytes=_leftover(store, measure)
        + survey.freed_images
        + sum(survey.sizes[thing] for thing in survey.doomed(_NEVER)),
    )


def prune(
    store: Store,
    *,
    cutoff_s: float | None = None,
    max_size_bytes: int | None = None,
    whole_cache: bool = False,
    keep_untagged: bool = False,
    dry_run: bool = False,
    remove: Callable[[str], object] | None = None,
    measure: Measure | None = None,
    needed: Iterable[str] = (),
) -> Pruned:
    """Removes what nothing needs; raises `store.busy` while another process uses the store, `store.*`.

    Besides what is never used: results last used before `cutoff_s` (seconds since 1970, last uses are known to six
    hours), the oldest results until `max_size_bytes` are not exceeded, or all (`whole_cache`). Named images always
    stay; untagged ones go unless `keep_untagged`. `needed` are keys of snapshots that stay too, since containers that
    have ended are made of them. `remove` as in `Store.reclaim`, `measure` as in `du`; a pinned
    snapshot stays.
    """
    with store.exclusive():
        left_over = _leftover(store, measure)
        if not dry_run:
            store.reclaim(remove, parts=True)
        survey = _Survey(store, keep_untagged=keep_untagged, measure=measure)
        for key in needed:
            survey.uses.note(key, _ALWAYS)
        cutoff = _ALWAYS if whole_cache else (_NEVER if cutoff_s is None else cutoff_s)
        if max_size_bytes is not None:
            total = _total(store, measure)
            fixed = total - sum(survey.sizes.values()) - survey.freed_images - (left_over if dry_run else 0)
            cutoff = max(cutoff, survey.cutoff_for(max_size_bytes, fixed))
        doomed = survey.doomed(cutoff)
        if not dry_run:
            doomed = _remove(store, survey, doomed, remove)
        kinds = [thing[0] for thing in doomed]
        return Pruned(
            images=tuple(record.descriptor.digest for record in survey.images),
            actions=kinds.count("action"),
            layers=kinds.count("layer"),
            snapshots=kinds.count("snapshot"),
            blobs=kinds.count("blob"),
            mounts=kinds.count("mount"),
            files=kinds.count("file"),
            freed_bytes=left_over + survey.freed_images + sum(survey.sizes[thing] for thing in doomed),
        )


def _folders(path: str) -> int:
    try:
        with os.scandir(path) as entries:
            return sum(entry.is_dir(follow_symlinks=False) for entry in entries)
    except OSError:
        return 0


def _leftover(store: Store, measure: Measure | None) -> int:
    """The bytes of what dead processes left."""
    paths = {*store.data_scratch.leftovers(), *store.scratch.leftovers()}
    return sum(tree_size(path, measure) for path in paths)


def _remove(
    store: Store, survey: _Survey, doomed: list[tuple[str, ...]], remove: Callable[[str], object] | None
) -> list[tuple[str, ...]]:
    """Removes from names to content; returns what is gone."""
    for record in survey.images:
        store.images.remove(record.descriptor.digest)
    store.origins.keep(survey.uses.last)
    gone = []
    mounts = CacheMounts(store.cache, store.scratch)
    for kind in ("file", "action", "layer", "snapshot", "blob", "mount"):
        for thing in doomed:
            if thing[0] != kind:
                continue
            if kind == "action":
                store.actions.remove(Digest(thing[1]))
            elif kind == "layer":
                store.layers.remove(Digest(thing[1]))
            elif kind == "blob":
                store.blobs.remove(Digest(thing[1]))
                store.referrers.forget(Digest(thing[1]))
            elif kind == "mount":
                mounts.remove(survey.mounts[thing[1]], remove)
            elif kind == "file":
                store.scratch.discard(thing[1], remove)
            elif not store.snapshots.remove(thing[1], thing[2], remove):
                continue
            gone.append(thing)
    return gone


def _total(store: Store, measure: Measure | None) -> int:
    """The bytes of the whole store, without what the helper of this very process has in its folder."""
    own = f"{store.cache}/sandbox"
    inside = tree_size(own) - _allocated(own) if os.path.isdir(own) else 0
    return sum(tree_size(root, measure) for root in _roots(store)) - inside


def _roots(store: Store) -> set[str]:
    """The folders of the store, without one that lies in another."""
    both = {store.data, store.cache}
    return {path for path in both if not any(path.startswith(f"{other}/") for other in both)}


def _things(path: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a folder, and what lies `depth` levels deep, whatever it is."""
    try:
        with os.scandir(path) as entries:
            found = [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return
    for name, state in found:
        if depth > 1 and stat.S_ISDIR(state.st_mode):
            yield from _things(name, depth - 1)
        else:
            yield name, state


def tree_size(path: str, measure: Measure | None = None) -> int:
    """Bytes on the disk of a file or directory with all in it, hard links once, as `du -s` counts.

    `measure` is asked for directories that this process may not list, those of mapped owners; without it what is in
    them is left out.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    todo = [path]
    while todo:
        name = todo.pop()
        try:
            state = os.lstat(name)
        except OSError:
            continue
        is_directory = stat.S_ISDIR(state.st_mode)
        if state.st_nlink > 1 and not is_directory:
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
        if is_directory:
            try:
                todo += [f"{name}/{child}" for child in os.listdir(name)]
            except PermissionError:
                total += measure(name) if measure is not None else state.st_blocks * 512
                continue
            except OSError:
                continue
        total += state.st_blocks * 512
    return total


def _allocated(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0
