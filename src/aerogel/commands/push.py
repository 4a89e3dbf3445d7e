"""`aerogel push`: images of the local store to registries."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.lookup import find_image
from aerogel.commands.platforms import find_chosen, parse_choice
from aerogel.commands.pushing import push_image
from aerogel.commands.registries import open_registries
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.reference import Reference
from aerogel.store.images import ImageRecord

__all__ = ["EXAMPLES", "Push", "PushResult", "PushedImage", "run"]

EXAMPLES = (
    ("under the name that it has", "aerogel push registry.example/team/app:1.2"),
    ("of an index the image of one platform", "aerogel push --platform linux/arm64 registry.example/team/app:1.2"),
    ("all tags of a repository", "aerogel push --all-tags registry.example/team/app"),
)


class Push(Struct, frozen=True, kw_only=True):
    """Send an image of the local store to a registry."""

    name: Annotated[str, Flag("Name of an image", positional=True, metavar="NAME[:TAG]")]
    all_tags: Annotated[bool, Flag("Every tag of the repository that the local store has", short="a")] = False
    platform: Annotated[str, Flag("Only the image of one platform", metavar="OS/ARCH")] = ""
    all_platforms: Annotated[bool, Flag("The whole index, when the name means one: the default")] = False
    referrers: Annotated[bool, Flag("With signatures, SBOMs and provenance that the store has")] = True
    quiet: Annotated[bool, Flag("Show no progress", short="q")] = False
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class PushedImage(Struct, frozen=True, kw_only=True):
    """One name that the registry has now."""

    reference: str
    digest: str
    transferred: int
    """Bytes of blobs that were sent."""


class PushResult(Result, frozen=True, kw_only=True):
    images: tuple[PushedImage, ...]

    def text(self) -> str:
        return "\n".join(f"{image.reference}@{image.digest}" for image in self.images)


def run(options: Push, world: World) -> PushResult:
    """Sends what the registry lacks, then the tag. Raises `image.*`, `cli.platforms`, `oci.*`, `registry.*`, `net.*`."""
    reference = Reference.parse(options.name)
    if reference.digest is not None:
        raise AerogelError(
            f"`{options.name}` has a digest; what is pushed gets a tag",
            code="push.digest",
            hints=[f"name it first: `aerogel tag {options.name} {reference.name}:TAG`"],
            exit_status=EXIT_USAGE,
        )
    platform = parse_choice(options.platform, is_all=options.all_platforms)

    def chosen(one: Reference) -> ImageRecord:
        return find_chosen(world.store, one.familiar(), platform, is_all=options.all_platforms)

    if options.all_tags:
        records = world.store.images.list()
        names = {one for record in records for one in record.references if one.name == reference.name}
        wanted = [(one, chosen(one)) for one in sorted(names)]
        if not wanted:
            find_image(world.store, options.name)
    else:
        wanted = [(reference, chosen(reference))]
    images = []
    with closing(open_registries(world)) as registries:
        for number, (name, record) in enumerate(sorted(wanted, key=lambda each: each[0]), 1):
            sent = push_image(
                world, registries, record.descriptor, name, number=number, with_referrers=options.referrers
            )
            images.append(PushedImage(reference=str(name), digest=record.descriptor.digest, transferred=sent))
    return PushResult(images=tuple(images))
