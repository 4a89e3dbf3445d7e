"""`aerogel tag`: one more name for an image."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.lookup import find_image
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.oci.reference import Reference

__all__ = ["EXAMPLES", "Tag", "TagResult", "run"]

EXAMPLES = (("a version of what was built", "aerogel tag app registry.example/app:1.2"),)


class Tag(Struct, frozen=True, kw_only=True):
    """Give an image one more name."""

    source: Annotated[str, Flag("Name or id of an image", positional=True, metavar="IMAGE")]
    target: Annotated[str, Flag("The new name", positional=True, metavar="NAME[:TAG]")]


class TagResult(Result, frozen=True, kw_only=True):
    reference: str
    """The new name, whole."""
    digest: str
    image_id: str


def run(options: Tag, world: World) -> TagResult:
    """Names the image; what had the name before keeps its other names. Raises `image.not-found`, `oci.reference`."""
    record = find_image(world.store, options.source)
    target = Reference.parse(options.target)
    world.store.images.tag(target, record.descriptor, record.meta, is_own=True)
    return TagResult(reference=str(target), digest=record.descriptor.digest, image_id=record.id)
