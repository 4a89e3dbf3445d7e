"""`aerogel copy`: images between registries, the local store, layouts and archives."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.copying import Cargo, collect, deliver, plan
from aerogel.commands.endpoints import Origin, open_origin
from aerogel.commands.format import size
from aerogel.commands.platforms import check_room, one_platform, parse_choice
from aerogel.commands.registries import open_registries
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import Message
from aerogel.flag import Flag
from aerogel.oci.ends import DAEMONS, End, parse_end

__all__ = ["EXAMPLES", "Copy", "CopyResult", "run"]

EXAMPLES = (
    ("from one registry to another, with all platforms and signatures", "aerogel copy docker://a.example/app docker://b.example/app"),
    ("into a file for a machine without network", "aerogel copy docker://a.example/app:1 oci-archive:app.tar:1"),
    ("what would be sent", "aerogel copy --dry-run app docker://b.example/app"),
)  # fmt: skip


class Copy(Struct, frozen=True, kw_only=True):
    """Copy an image with all its platforms and what refers to it."""

    source: Annotated[
        str,
        Flag(
            "`docker://NAME` (a registry), `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`, "
            "`docker-daemon:NAME`, `containers-storage:NAME` (podman's), or `NAME` of the local store",
            positional=True,
            metavar="SOURCE",
        ),
    ]
    target: Annotated[str, Flag("The same for where it goes", positional=True, metavar="TARGET")]
    platform: Annotated[str, Flag("Only the image of one platform", metavar="OS/ARCH")] = ""
    all_platforms: Annotated[
        bool, Flag("The whole index: the default, but for docker's archives, docker and podman, which take one image")
    ] = False
    referrers: Annotated[
        bool | None, Flag("With signatures, SBOMs and provenance: the default where there is room for them")
    ] = None
    dry_run: Annotated[bool, Flag("Tell what would be sent to a registry, and send nothing")] = False
    quiet: Annotated[bool, Flag("Show no progress", short="q")] = False
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class CopyResult(Result, frozen=True, kw_only=True):
    digest: str
    source: str
    target: str
    transferred: int
    """Bytes of blobs that had to move, or would."""
    manifests: int
    referrers: int
    is_done: bool = True

    def text(self) -> str:
        if self.is_done:
            return f"{self.target}@{self.digest}" if self.target.startswith("docker://") else self.digest
        return f"would send {size(self.transferred)} to {self.target} ({self.digest})"


def run(options: Copy, world: World) -> CopyResult:
    """Copies. Raises `copy.*`, `image.not-found`, `registry.*`, `net.*`, `archive.*`, `store.*`."""
    source, target = parse_end(options.source), parse_end(options.target)
    platform = parse_choice(options.platform, is_all=options.all_platforms)
    is_bare = target.kind in ("docker-archive", *DAEMONS)
    if is_bare and options.referrers:
        raise AerogelError(
            f"`{target.kind}:` has no room for what refers to an image",
            code="copy.referrers",
            exit_status=EXIT_USAGE,
            hints=["leave `--referrers` out, or write `oci-archive:FILE`"],
        )
    if target.kind in ("docker", "store", *DAEMONS):
        reference = target.reference()
        if reference.digest is not None:
            raise AerogelError(
                f"`{options.target}` has a digest; what is copied gets a tag",
                code="copy.bad-name",
                exit_status=EXIT_USAGE,
                hints=["the digest stays as it is"],
            )
    if options.dry_run and target.kind != "docker":
        raise AerogelError(
            "`--dry-run` is for copies to a registry",
            code="copy.bad-name",
            exit_status=EXIT_USAGE,
            hints=["write `docker://NAME`"],
        )
    with closing(open_registries(world)) as registries:
        origin = open_origin(source, world, registries)
        descriptor = origin.descriptor
        if platform is not None:
            descriptor = one_platform(descriptor, origin.blobs, platform, str(source))
        if is_bare and options.all_platforms:
            check_room(descriptor, f"`{target.kind}:`")
        cargo = collect(origin, descriptor, with_referrers=options.referrers is not False and not is_bare)
        if options.dry_run:
            moved = sum(part.size for part, is_there in plan(cargo, target.reference(), registries) if not is_there)
        else:
            moved = deliver(cargo, target, world, registries, str(source))
        if is_bare and options.referrers is None:
            _tell_what_stays(origin, cargo, target, world)
    return CopyResult(
        digest=descriptor.digest,
        source=str(source),
        target=str(target),
        transferred=moved,
        manifests=len(cargo.documents()),
        referrers=len(cargo.artifacts),
        is_done=not options.dry_run,
    )


def _tell_what_stays(origin: Origin, cargo: Cargo, target: End, world: World) -> None:
    """Nobody asked for what refers to the image, but it would go with it to most other places."""
    try:
        count = sum(len(origin.referrers(document.digest)) for document in cargo.documents())
    except AerogelError:
        return  # the copy is done, and this would be no part of it
    if count:
        what = "1 artifact that refers" if count == 1 else f"{count} artifacts that refer"
        world.sink.emit(Message(f"{what} to the image stayed behind: `{target.kind}:` has no room for that"))
