"""Images of the local store by what users type, for the commands that take image names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aerogel.errors import AerogelError, nearest
from aerogel.store.images import ImageRecord
from aerogel.store.store import Store

if TYPE_CHECKING:
    from aerogel.commands.world import World

__all__ = ["find_image", "is_composed", "nearest_name"]


def find_image(store: Store, name: str) -> ImageRecord:
    """The image of a name or id. Raises `image.not-found` with the nearest name, `store.ambiguous`, `oci.reference`."""
    record = store.images.find(name)
    if record is None:
        guess = nearest_name(store, name)
        raise AerogelError(
            f"there is no image `{name}` in the local store",
            code="image.not-found",
            hints=[f"did you mean `{guess}`?" if guess else "`aerogel images` lists what is there"],
        )
    return record


def nearest_name(store: Store, name: str) -> str | None:
    """The name in the store that was most likely meant."""
    names = (reference.familiar() for record in store.images.list() for reference in record.references)
    known = {one.removesuffix(":latest"): one for one in names}
    return nearest(name.removesuffix(":latest"), known)


def is_composed(name: str, world: World) -> bool:
    """Whether a name is one of aerogel's own, which no registry has: it is composed where an image is fetched."""
    from aerogel.distroless.catalogue import choose
    from aerogel.oci.reference import is_own_name

    if world.settings.bases == "registry":
        return False
    return is_own_name(name) or (name.startswith("aerogel/") and choose(name) is not None)
