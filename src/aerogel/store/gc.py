"""What the store takes, what of it nothing needs any more, and removing that.

Needed is what a named image reaches (manifests, configs, layers with all their blobs, indexes and snapshots), and what
the result of a remembered action names: every digest that occurs in it, whatever the record means by it. A thing's last
use is that of the newest action that names it; things that only images need are in use always.

Removal is for a process that has the store alone (`Store.exclusive`), and goes from names to content: image,
action, layer record, snapshot, blob. Killed in between it leaves only what the next run removes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable

import msgspec

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.image import images, walk
from aerogel.store.images import ImageRecord
from aerogel.store.layers import LayerRecord
from aerogel.store.store import Store

__all__ = ["Pruned", "Usage", "du", "prune", "tree_size"]

_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})")
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
    other_bytes: int
    """The rest of the two folders: downloads, indexes of packages."""
    total_bytes: int
    reclaimable_bytes: int
    """What `prune` without options would free, about: directories are not counted."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be."""

    images: tuple[Digest, ...] = ()
    actions: int = 0
    layers: int = 0
    snapshots: int = 0
    blobs: int = 0
    freed_bytes: int = 0


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

    def __init__(self, store: Store, *, keep_untagged: bool) -> None:
        self.store = store
        self.uses = _Uses()
        self.images: list[ImageRecord] = []
        """Those that are to go: untagged, unless these are kept."""
        self.actions: dict[Digest, float] = {}
        self.layers: dict[Digest, LayerRecord | None] = {}
        self.sizes: dict[tuple[str, ...], int] = {}
        """What can go -> its bytes; keys are a kind and what the removal needs."""
        self._of_images(keep_untagged)
        self._of_actions()
        self._of_layers()
        self._of_the_rest()

    def _of_images(self, keep_untagged: bool) -> None:
        for record in self.store.images.list():
            if not record.references and not keep_untagged:
                self.images.append(record)
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

    def _of_actions(self) -> None:
        for key, state in self.store.actions.all():
            self.actions[key] = state.st_mtime
            self.sizes["action", key] = state.st_blocks * 512
            try:
                with open(self.store.actions.path(key), encoding="utf-8") as file:
                    result = json.dumps(json.load(file).get("result"))
            except (OSError, ValueError, AttributeError):
                self.actions[key] = _NEVER
                continue
            for digest in _DIGEST.findall(result):
                self.uses.note(digest, state.st_mtime)

    def _of_layers(self) -> None:
        for diff_id, size in self.store.layers.all():
            record = self.store.layers.record(diff_id)
            self.layers[diff_id] = record
            self.sizes["layer", diff_id] = size
            if record is not None:
                for blob in record.blobs.values():
                    self.uses.note(blob.digest, self.uses.of(diff_id))

    def _of_the_rest(self) -> None:
        for digest, _ in self.store.blobs.all():
            self.sizes["blob", digest] = _allocated(self.store.blobs.path(digest))
        for mapping, key, path in self.store.snapshots.all():
            self.sizes["snapshot", mapping, key] = tree_size(path)

    def last_use(self, thing: tuple[str, ...]) -> float:
        if thing[0] == "action":
            return self.actions[Digest(thing[1])]
        return self.uses.of(thing[-1])

    def cutoff_for(self, max_size: int, fixed: int) -> float:
        """The last use before which all must go, so that no more than `max_size` bytes stay (if that is enough)."""
        left = fixed + sum(self.sizes.values())
        order = sorted(self.sizes, key=self.last_use)
        for number, thing in enumerate(order):
            if left <= max_size:
                return self.last_use(thing) if number else _NEVER
            if self.last_use(thing) == _ALWAYS:
                break
            left -= self.sizes[thing]
        return _ALWAYS

    def doomed(self, cutoff: float) -> list[tuple[str, ...]]:
        """What goes: never used, or last used before `cutoff`."""
        return [thing for thing in sorted(self.sizes) if (last := self.last_use(thing)) < cutoff or last == _NEVER]


def du(store: Store) -> Usage:
    """What the store takes. Reads names and sizes, and the documents of images."""
    survey = _Survey(store, keep_untagged=True)
    places = {
        "blobs": f"{store.data}/blobs",
        "layers": f"{store.data}/layers-v1",
        "snapshots": f"{store.cache}/snapshots-v1",
        "actions": f"{store.cache}/actions-v1",
    }
    sizes = {name: tree_size(path) for name, path in places.items()}
    scratch = sum(tree_size(f"{root}/scratch") for root in {store.data, store.cache})
    total = sum(tree_size(root) for root in _roots(store))
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
        other_bytes=total - scratch - sum(sizes.values()),
        total_bytes=total,
        reclaimable_bytes=sum(survey.sizes[thing] for thing in survey.doomed(_NEVER)),
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
) -> Pruned:
    """Removes what nothing needs; raises `store.busy` while another process uses the store, `store.*`.

    Besides what is never used: results last used before `cutoff_s` (seconds since 1970, last uses are known to six
    hours), the oldest results until `max_size_bytes` are not exceeded, or all (`whole_cache`). Named images always
    stay; untagged ones go unless `keep_untagged`. `remove` as in `Store.reclaim`; a pinned snapshot stays.
    """
    with store.exclusive():
        if not dry_run:
            store.reclaim(remove)
        survey = _Survey(store, keep_untagged=keep_untagged)
        cutoff = _ALWAYS if whole_cache else (_NEVER if cutoff_s is None else cutoff_s)
        if max_size_bytes is not None:
            fixed = sum(tree_size(root) for root in _roots(store)) - sum(survey.sizes.values())
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
            freed_bytes=sum(survey.sizes[thing] for thing in doomed),
        )


def _remove(
    store: Store, survey: _Survey, doomed: list[tuple[str, ...]], remove: Callable[[str], object] | None
) -> list[tuple[str, ...]]:
    """Removes from names to content; returns what is gone."""
    for record in survey.images:
        store.images.remove(record.descriptor.digest)
    gone = []
    for kind in ("action", "layer", "snapshot", "blob"):
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
            elif not store.snapshots.remove(thing[1], thing[2], remove):
                continue
            gone.append(thing)
    return gone


def _roots(store: Store) -> set[str]:
    """The folders of the store, without one that lies in another."""
    both = {store.data, store.cache}
    return {path for path in both if not any(path.startswith(f"{other}/") for other in both)}


def tree_size(path: str) -> int:
    """Bytes on the disk of a file or directory with all in it, hard links once, as `du -s` counts.

    What may not be read (files of mapped owners, in directories that only they may list) is left out.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    todo = [path]
    while todo:
        name = todo.pop()
        try:
            state = os.lstat(name)
            if state.st_nlink > 1 and (state.st_mode & 0o170000) != 0o040000:
                if (state.st_dev, state.st_ino) in seen:
                    continue
                seen.add((state.st_dev, state.st_ino))
            total += state.st_blocks * 512
            if (state.st_mode & 0o170000) == 0o040000:
                todo += [f"{name}/{child}" for child in os.listdir(name)]
        except OSError:
            continue
    return total


def _allocated(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0
