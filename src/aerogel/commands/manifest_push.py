"""`aerogel manifest push`: a list of the local store, with all its images, to a registry."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.lookup import find_image
from aerogel.commands.manifests import find_list, list_name, open_registries
from aerogel.commands.push import PushedImage, PushResult
from aerogel.commands.pushing import push_image
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "ManifestPush", "run"]

EXAMPLES = (("a list and its images", "aerogel manifest push registry.example/team/app:1"),)


class ManifestPush(Struct, frozen=True, kw_only=True):
    """Send a list and its images to a registry; what the registry has is mounted or left out."""

    name: Annotated[str, Flag("Name of the list", positional=True, metavar="LIST")]
    target: Annotated[str, Flag("Another name for the registry", positional=True, metavar="NAME")] = ""
    purge: Annotated[bool, Flag("Remove the list from the local store afterwards", short="p")] = False
    quiet: Annotated[bool, Flag("Show no progress", short="q")] = False
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


def run(options: ManifestPush, world: World) -> PushResult:
    """Raises `manifest.*`, `image.not-found`, `registry.*`, `net.*`."""
    own = list_name(options.name)
    record = find_list(world, options.name) or find_image(world.store, options.name)
    reference = list_name(options.target.removeprefix("docker://")) if options.target else own
    with closing(open_registries(world)) as registries:
        sent = push_image(world, registries, record.descriptor, reference, number=world.take_numbers())
    if options.purge:
        world.store.images.untag(own)
    return PushResult(
        images=(PushedImage(reference=str(reference), digest=record.descriptor.digest, transferred=sent),)
    )
