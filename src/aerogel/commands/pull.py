"""`aerogel pull`: images from registries into the local store."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.registries import open_registries, pull_image, pull_referrers
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import Descriptor

__all__ = ["EXAMPLES", "Pull", "PullResult", "Referrer", "run"]

EXAMPLES = (
    ("the image of this machine's platform", "aerogel pull alpine:3.20"),
    ("of another platform", "aerogel pull --platform linux/arm64 alpine"),
    ("with its SBOM, provenance and signatures", "aerogel pull --referrers registry.example/team/app"),
)


class Pull(Struct, frozen=True, kw_only=True):
    """Bring an image from a registry into the local store."""

    name: Annotated[str, Flag("Name of an image", positional=True, metavar="NAME[:TAG|@DIGEST]")]
    platform: Annotated[
        str | None, Flag("Platform to take from a multi-platform image", metavar="OS/ARCH", setting="platform")
    ] = None
    quiet: Annotated[bool, Flag("Show no progress", short="q")] = False
    referrers: Annotated[bool, Flag("Also bring what refers to the image: SBOM, provenance, signatures")] = False
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class Referrer(Struct, frozen=True, kw_only=True):
    """An artifact that refers to the image."""

    digest: str
    artifact_type: str
    annotations: dict[str, str]


class PullResult(Result, frozen=True, kw_only=True):
    reference: str
    digest: str
    """Of what the name means at the registry: the index of a multi-platform image."""
    image_id: str
    platform: str
    transferred: int
    """Bytes of the image that came from the registry."""
    referrers: tuple[Referrer, ...] = ()
    """With `--referrers`."""

    def text(self) -> str:
        return self.reference


def run(options: Pull, world: World) -> PullResult:
    """Pulls and names the image. Raises `registry.*`, `net.*`, `oci.*`, `store.*`."""
    try:
        reference = Reference.parse(options.name)
        platform = Platform.parse(world.settings.platform or str(Platform.host()))
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise
    with closing(open_registries(world)) as registries:
        pulled = pull_image(world, registries, reference, platform, number=world.take_numbers())
        found: tuple[Descriptor, ...] = ()
        if options.referrers:
            found = pull_referrers(world, registries, pulled, number=world.take_numbers())
    world.store.sync()
    return PullResult(
        reference=str(reference),
        digest=pulled.served.digest,
        image_id=pulled.image.id,
        platform=str(pulled.image.config.platform.normal()),
        transferred=pulled.size,
        referrers=tuple(
            Referrer(digest=one.digest, artifact_type=one.artifact_type, annotations=dict(one.annotations))
            for one in found
        ),
    )
