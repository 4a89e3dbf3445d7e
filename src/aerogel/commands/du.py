"""`aerogel du`: what the local store takes on the disk, by kind."""

from __future__ import annotations

from msgspec import Struct

from aerogel.commands.format import columns, size
from aerogel.commands.result import Result
from aerogel.commands.world import World

__all__ = ["EXAMPLES", "Du", "DuResult", "measured", "run"]

EXAMPLES = (("as numbers", "aerogel du --json"),)


class Du(Struct, frozen=True, kw_only=True):
    """Show what the local store takes on the disk."""


class DuResult(Result, frozen=True, kw_only=True):
    """Numbers of things and bytes on the disk, as du(1) counts them."""

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
    failed: int
    failed_bytes: int
    containers: int
    containers_bytes: int
    volumes: int
    volumes_bytes: int
    other_bytes: int
    reclaimable_bytes: int
    total_bytes: int

    def text(self) -> str:
        rows = [
            ("blobs", str(self.blobs), size(self.blobs_bytes), f"of {self.images} images and of steps"),
            ("layer indexes", str(self.layers), size(self.layers_bytes), "what each layer holds"),
            ("snapshots", str(self.snapshots), size(self.snapshots_bytes), "unpacked layers, for RUN"),
            ("step results", str(self.actions), size(self.actions_bytes), ""),
            ("cache mounts", str(self.mounts), size(self.mounts_bytes), "of RUN; `aerogel cache ls` lists them"),
            (
                "containers",
                str(self.containers),
                size(self.containers_bytes),
                "`aerogel container prune` removes ended ones",
            ),
            ("volumes", str(self.volumes), size(self.volumes_bytes), "`aerogel volume prune` removes unused ones"),
            ("failed steps", str(self.failed), size(self.failed_bytes), "for `aerogel debug last` and `build --retry`"),
            ("records", "", size(self.records_bytes), "of past builds, and logs"),
            ("scratch", "", size(self.scratch_bytes), "work that is going on"),
            ("other", "", size(self.other_bytes), "downloaded packages and indexes"),
            ("total", "", size(self.total_bytes), f"`aerogel prune` frees {size(self.reclaimable_bytes)} of it"),
        ]
        return columns(("KIND", "NUMBER", "SIZE", "WHAT"), rows)


def measured(path: str, world: World) -> int:
    """The bytes of a directory that only the helper may list."""
    found = world.helper().call("measure", {"path": path})["bytes"]
    return int(found)


def run(options: Du, world: World) -> DuResult:
    """Counts. Raises `store.*`."""
    del options
    from aerogel.store.gc import du

    used = du(world.store, lambda path: measured(path, world))
    return DuResult(**{name: getattr(used, name) for name in DuResult.__struct_fields__})
