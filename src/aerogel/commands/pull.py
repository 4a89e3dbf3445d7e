"""`aerogel pull`: images from registries into the local store."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.endpoints import open_origin
from aerogel.commands.lookup import is_composed
from aerogel.commands.platforms import parse_choice
from aerogel.commands.registries import Pulled, open_registries, pull_image, pull_referrers
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic
from aerogel.events import Warned
from aerogel.flag import Flag
from aerogel.oci.ends import End
from aerogel.oci.image import images
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import Descriptor
from aerogel.registry.client import Registries

__all__ = ["EXAMPLES", "Pull", "PullResult", "Referrer", "run"]

EXAMPLES = (
    ("the image of this machine's platform", "aerogel pull alpine:3.20"),
    ("of another platform", "aerogel pull --platform linux/arm64 alpine"),
    ("of all platforms", "aerogel pull --all-platforms registry.example/team/app"),
    ("without its SBOM, provenance and signatures", "aerogel pull --no-referrers registry.example/team/app"),
)


class Pull(Struct, frozen=True, kw_only=True):
    """Bring an image from a registry into the local store."""

    name: Annotated[str, Flag("Name of an image", positional=True, metavar="NAME[:TAG|@DIGEST]")]
    platform: Annotated[
        str | None, Flag("Platform to take from a multi-platform image", metavar="OS/ARCH", setting="platform")
    ] = None
    quiet: Annotated[bool, Flag("Show no progress", short="q")] = False
    all_platforms: Annotated[
        bool, Flag("The whole index with the images of all its platforms; without it, the image of one")
    ] = False
    referrers: Annotated[
        bool | None,
        Flag("Bring what refers to the image: SBOM, provenance, signatures; said aloud, a fault there is an error"),
    ] = None
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
    """Unless there is `--no-referrers`."""

    def text(self) -> str:
        return self.reference


def run(options: Pull, world: World) -> PullResult:
    """Pulls and names the image; one of aerogel's own names is composed. Raises `registry.*`, `net.*`, `oci.*`, `store.*`."""
    parse_choice(options.platform, is_all=options.all_platforms)
    if is_composed(options.name, world):
        return _compose(options.name, world)
    try:
        reference = Reference.parse(options.name)
        platform = Platform.parse(world.settings.platform or str(Platform.host()))
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise
    with closing(open_registries(world)) as registries:
        if options.all_platforms:
            return _pull_index(options, world, registries, reference)
        pulled = pull_image(world, registries, reference, platform, number=world.take_numbers())
        found = () if options.referrers is False else _referrers(options, world, registries, pulled)
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


def _compose(name: str, world: World) -> PullResult:
    """Makes a base that no registry has, so that it is at hand."""
    from aerogel.commands.taken import base_of
    from aerogel.solve.materials import Materials

    base, digest = base_of(name, world, Materials(world.store, world.helper))
    layers = base.diff_ids
    world.store.sync()
    meant = str(digest or layers[-1])
    return PullResult(
        reference=name, digest=meant, image_id=meant, platform=str(base.config.platform.normal()), transferred=0
    )


def _referrers(options: Pull, world: World, registries: Registries, pulled: Pulled) -> tuple[Descriptor, ...]:
    """What refers to the image. A registry that cannot list it well is a warning, unless it was asked for."""
    try:
        return pull_referrers(world, registries, pulled, number=world.take_numbers())
    except AerogelError as error:
        if options.referrers or not error.code.startswith(("registry.", "net.", "oci.")):
            raise
        message = f"what refers to `{pulled.reference.familiar()}` was not brought: {error.message}"
        world.sink.emit(Warned(Diagnostic(message, code="pull.referrers", hints=tuple(error.hints))))
        return ()


def _pull_index(options: Pull, world: World, registries: Registries, reference: Reference) -> PullResult:
    """All images of a name, as `copy` brings them."""
    from aerogel.commands.copying import collect, deliver

    if reference.digest is not None:
        raise AerogelError(
            f"`{options.name}` has a digest; with `--all-platforms` a tag is needed to name the index here",
            code="pull.digest",
            exit_status=EXIT_USAGE,
            hints=[f"copy it: `aerogel copy docker://{options.name} {reference.name}:TAG`"],
        )
    origin = open_origin(End("docker", name=str(reference)), world, registries)
    cargo = collect(origin, origin.descriptor, with_referrers=options.referrers is not False)
    moved = deliver(cargo, End("store", name=str(reference)), world, registries, reference.familiar())
    found = images(origin.descriptor, world.store.blobs)
    return PullResult(
        reference=str(reference),
        digest=origin.descriptor.digest,
        image_id=origin.descriptor.digest if len(found) > 1 else found[0].id,
        platform=",".join(str(image.config.platform.normal()) for image in found),
        transferred=moved,
        referrers=tuple(
            Referrer(
                digest=one.descriptor.digest,
                artifact_type=one.descriptor.artifact_type,
                annotations=dict(one.descriptor.annotations),
            )
            for one in cargo.artifacts
        ),
    )
