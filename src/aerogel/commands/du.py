"""`aerogel du`: what the local store takes on the disk, by kind."""

from __future__ import annotations

from msgspec import Struct

from aerogel.commands.format import columns, size
from aerogel.commands.result import Result
from aerogel.commands.world import World

__all__ = ["EXAMPLES", "Du", "DuResult", "run"]

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
    other_bytes: int
    total_bytes: int

    def text(self) -> str:
        rows = [
            ("blobs", str(self.blobs), size(self.blobs_bytes), f"of {self.images} images and of steps"),
            ("layer indexes", str(self.layers), size(self.layers_bytes), "what each layer holds"),
            ("snapshots", str(self.snapshots), size(self.snapshots_bytes), "unpacked layers, for RUN"),
            ("step results", str(self.actions), size(self.actions_bytes), ""),
            ("scratch", "", size(self.scratch_bytes), "work that is going on"),
            ("other", "", size(self.other_bytes), "downloaded packages and indexes"),
            ("total", "", size(self.total_bytes), ""),
        ]
        return columns(("KIND", "NUMBER", "SIZE", "WHAT"), rows)


def run(options: Du, world: World) -> DuResult:
    """Counts. Raises `store.*`."""
    del options
    from aerogel.store.gc import du

    used = du(world.store)
    return DuResult(**{name: getattr(used, name) for name in DuResult.__struct_fields__})
