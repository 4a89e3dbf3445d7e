"""`aerogel rmi`: takes names away, and images without names out of the store."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.lookup import find_image
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import AerogelError, Faults
from aerogel.flag import Flag
from aerogel.store.images import ImageRecord

__all__ = ["EXAMPLES", "Rmi", "RmiResult", "run"]

EXAMPLES = (("one name", "aerogel rmi app:old"), ("an image with all its names", "aerogel rmi -f 4f3c2b1a0987"))


class Rmi(Struct, frozen=True, kw_only=True):
    """Remove images, or some of their names."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of images", positional=True, metavar="IMAGE")]
    force: Annotated[bool, Flag("Remove an image by id although it has several names", short="f")] = False
    no_prune: Annotated[bool, Flag("Accepted for docker's sake")] = False


class RmiResult(Result, frozen=True, kw_only=True):
    untagged: tuple[str, ...]
    deleted: tuple[str, ...]

    def text(self) -> str:
        return "\n".join([*(f"Untagged: {one}" for one in self.untagged), *(f"Deleted: {one}" for one in self.deleted)])


def run(options: Rmi, world: World) -> RmiResult:
    """Removes what can be removed, then raises for the rest: `image.not-found`, `rmi.several-names`."""
    untagged: list[str] = []
    deleted: list[str] = []
    faults: list[AerogelError] = []
    for name in options.names:
        try:
            _remove(find_image(world.store, name), name, options, world, untagged, deleted)
        except AerogelError as error:
            faults.append(error)
    if faults:
        raise faults[0] if len(faults) == 1 else Faults(faults)
    return RmiResult(untagged=tuple(untagged), deleted=tuple(deleted))


def _remove(
    record: ImageRecord, name: str, options: Rmi, world: World, untagged: list[str], deleted: list[str]
) -> None:
    store = world.store.images
    asked = [one for one in record.references if one.tag is not None and one.digest is None]
    names = next(
        (one.references for one in store.list() if one.descriptor.digest == record.descriptor.digest), record.references
    )
    if asked:
        digests = store.digests(asked[0])
        store.untag(asked[0])
        untagged.append(asked[0].familiar())
        left = {one.descriptor.digest: one for one in store.list()}
        for each in (left.get(digest) for digest in digests):
            if each is not None and not each.references:
                store.remove(each.descriptor.digest)
                deleted.append(each.id)
        return
    if len(names) > 1 and not options.force:
        raise AerogelError(
            f"image `{name}` has {len(names)} names: {', '.join(f'`{one.familiar()}`' for one in names)}",
            code="rmi.several-names",
            hints=["remove it with all of them by `-f`, or one name after the other"],
        )
    untagged += [one.familiar() for one in store.remove(record.descriptor.digest)]
    deleted.append(record.id)
