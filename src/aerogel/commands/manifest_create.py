"""`aerogel manifest create`: a list of images for several platforms, in the local store."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.manifests import find_list, keep_list, list_name, members_of, open_registries, read_list
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "ManifestCreate", "ManifestCreateResult", "run"]

EXAMPLES = (
    ("of two images", "aerogel manifest create team/app:1 team/app:1-amd64 team/app:1-arm64"),
    ("one more", "aerogel manifest create --amend team/app:1 team/app:1-riscv64"),
)


class ManifestCreate(Struct, frozen=True, kw_only=True):
    """Make a list of images; those that are not here are looked for in their registries."""

    name: Annotated[str, Flag("Name of the list", positional=True, metavar="LIST")]
    members: Annotated[
        tuple[str, ...], Flag("Images, or lists whose images are taken", positional=True, metavar="IMAGE")
    ] = ()
    amend: Annotated[bool, Flag("Add to the list that is there", short="a")] = False
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class ManifestCreateResult(Result, frozen=True, kw_only=True):
    reference: str
    digest: str
    members: tuple[str, ...]
    """Digests."""

    def text(self) -> str:
        return f"{self.reference}@{self.digest}"


def run(options: ManifestCreate, world: World) -> ManifestCreateResult:
    """Raises `manifest.*`, `registry.*`, `net.*`, `policy.*`, `oci.*`, `store.*`."""
    reference = list_name(options.name)
    there = world.store.images.resolve(reference)
    known = find_list(world, options.name) if there is not None and options.amend else None
    if there is not None and not options.amend:
        raise AerogelError(
            f"`{options.name}` is there already",
            code="manifest.exists",
            exit_status=EXIT_USAGE,
            hints=["add to it with `--amend`, or remove it with `aerogel manifest rm`"],
        )
    members = list(read_list(world, known).manifests) if known is not None else []
    with closing(open_registries(world)) as registries:
        for name in options.members:
            members += members_of(world, registries, name)
    if not members:
        raise AerogelError(
            "a list needs an image", code="manifest.empty", exit_status=EXIT_USAGE, hints=["name one after the list"]
        )
    made = keep_list(world, reference, members)
    return ManifestCreateResult(
        reference=reference.familiar(), digest=made.digest, members=tuple(each.digest for each in members)
    )
