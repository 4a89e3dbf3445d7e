"""Images of the local store by what users type, for the commands that take image names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aerogel.errors import AerogelError, Source, Span, nearest
from aerogel.oci.digest import Digest
from aerogel.store.images import ImageRecord
from aerogel.store.store import Store

if TYPE_CHECKING:
    from aerogel.commands.world import World
    from aerogel.graph.steps import BaseImage
    from aerogel.solve.materials import Materials

__all__ = ["base_of", "find_image", "is_composed", "nearest_name"]


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


def base_of(
    name: str, world: World, materials: Materials, *, pull: bool = False, will_run: bool = False
) -> tuple[BaseImage, Digest | None]:
    """The image that FROM would take, and what the name meant: an image's digest, or that of a composed layer.

    Raises what finding a base raises, with the words of an image and the nearest name of the store.
    """
    from aerogel.commands.bases import Bases
    from aerogel.graph.stages import ImageRef
    from aerogel.oci.platform import Platform

    platform = Platform.parse(world.settings.platform or str(Platform.host()))
    typed = Source("command line", name.encode("utf-8", "surrogateescape"))
    span = Span(typed, 0, len(typed.data))
    try:
        bases = Bases(world, materials, {}, pull=pull)
        bases.is_quiet = True
        bases.will_run = will_run
        return bases.resolve(ImageRef(name), str(platform), span), bases.digests.get(name)
    except AerogelError as error:
        if error.message.startswith("base image "):
            error.message = error.message.removeprefix("base ")
            guess = nearest_name(world.store, name)
            if guess is not None and guess.removesuffix(":latest") == name.removesuffix(":latest"):
                hint = f"the local store has `{guess}` for another platform than {platform}"
                error.hints = (hint, *(each for each in error.hints if "is not in the local store" not in each))
                raise
            others = [hint for hint in error.hints if not (guess and hint.startswith("did you mean"))]
            error.hints = (f"did you mean `{guess}`?", *others) if guess else error.hints
        raise
