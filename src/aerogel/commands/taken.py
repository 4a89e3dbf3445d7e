"""The image that FROM would take for a name, for commands that take what a build takes: run, pull, inspect."""

from __future__ import annotations

from aerogel.commands.bases import Bases
from aerogel.commands.lookup import nearest_name
from aerogel.commands.world import World
from aerogel.errors import AerogelError, Source, Span
from aerogel.graph.stages import ImageRef
from aerogel.graph.steps import BaseImage
from aerogel.oci.digest import Digest
from aerogel.oci.platform import Platform
from aerogel.solve.materials import Materials

__all__ = ["base_of"]


def base_of(
    name: str, world: World, materials: Materials, *, platform: str = "", pull: bool = False, will_run: bool = False
) -> tuple[BaseImage, Digest | None]:
    """The image that FROM would take, and what the name meant: an image's digest, or that of a composed layer.

    Raises what finding a base raises, with the words of an image and the nearest name of the store.
    """
    wanted = Platform.parse(platform or world.settings.platform or str(Platform.host()))
    typed = Source("command line", name.encode("utf-8", "surrogateescape"))
    span = Span(typed, 0, len(typed.data))
    try:
        bases = Bases(world, materials, {}, pull=pull)
        bases.is_quiet = True
        bases.will_run = will_run
        return bases.resolve(ImageRef(name), str(wanted), span), bases.digests.get(name)
    except AerogelError as error:
        if error.message.startswith("base image "):
            error.message = error.message.removeprefix("base ")
            guess = nearest_name(world.store, name)
            if guess is not None and guess.removesuffix(":latest") == name.removesuffix(":latest"):
                hint = f"the local store has `{guess}` for another platform than {wanted}"
                error.hints = (hint, *(each for each in error.hints if "is not in the local store" not in each))
                raise
            others = [hint for hint in error.hints if not (guess and hint.startswith("did you mean"))]
            error.hints = (f"did you mean `{guess}`?", *others) if guess else error.hints
        raise
