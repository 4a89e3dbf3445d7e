"""`aerogel manifest rm`: lists out of the local store; their images stay."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.lookup import find_image
from aerogel.commands.manifests import find_list, list_name
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "ManifestRm", "ManifestRmResult", "run"]

EXAMPLES = (("a list", "aerogel manifest rm team/app:1"),)


class ManifestRm(Struct, frozen=True, kw_only=True):
    """Remove lists from the local store."""

    names: Annotated[tuple[str, ...], Flag("Names of lists", positional=True, metavar="LIST")]


class ManifestRmResult(Result, frozen=True, kw_only=True):
    untagged: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(f"Untagged: {one}" for one in self.untagged)


def run(options: ManifestRm, world: World) -> ManifestRmResult:
    """Raises `manifest.no-list`, `image.not-found`."""
    names = [list_name(name) for name in options.names]
    for name in options.names:
        find_list(world, name) or find_image(world.store, name)
    store = world.store.images
    for reference in names:
        record = store.find(reference)
        store.untag(reference)
        if record is not None and not any(each.references for each in store.list() if each.id == record.id):
            store.remove(record.descriptor.digest)
    return ManifestRmResult(untagged=tuple(reference.familiar() for reference in names))
