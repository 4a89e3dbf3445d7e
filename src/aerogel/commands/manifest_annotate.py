"""`aerogel manifest annotate`: says for which platform an image of a list is."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import msgspec
from msgspec import Struct

from aerogel.commands.lookup import find_image
from aerogel.commands.manifest_create import ManifestCreateResult
from aerogel.commands.manifests import (
    find_list,
    is_member,
    keep_list,
    list_name,
    members_of,
    open_registries,
    read_list,
    with_platform,
)
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.digest import Digest

__all__ = ["EXAMPLES", "ManifestAnnotate", "run"]

EXAMPLES = (("a platform", "aerogel manifest annotate --arch arm --variant v7 team/app:1 team/app:1-arm"),)


class ManifestAnnotate(Struct, frozen=True, kw_only=True):
    """Change what a list says of one of its images."""

    name: Annotated[str, Flag("Name of the list", positional=True, metavar="LIST")]
    member: Annotated[str, Flag("Name or digest of an image of it", positional=True, metavar="IMAGE")]
    os: Annotated[str, Flag("Operating system", metavar="NAME")] = ""
    arch: Annotated[str, Flag("Processor", metavar="NAME")] = ""
    variant: Annotated[str, Flag("Kind of the processor", metavar="NAME")] = ""
    annotation: Annotated[dict[str, str], Flag("Annotation of the entry", metavar="KEY=VALUE")] = {}
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


def run(options: ManifestAnnotate, world: World) -> ManifestCreateResult:
    """Raises `manifest.*`, `image.not-found`, `registry.*`, `net.*`, `store.*`."""
    reference = list_name(options.name)
    record = find_list(world, options.name) or find_image(world.store, options.name)
    members = list(read_list(world, record).manifests)
    meant: set[Digest] = {each.digest for each in members if is_member(each, options.member)}
    if not meant:
        with closing(open_registries(world)) as registries:
            meant = {each.digest for each in members_of(world, registries, options.member)}
    if not meant & {each.digest for each in members}:
        raise AerogelError(
            f"`{options.member}` is not in the list `{options.name}`",
            code="manifest.no-member",
            exit_status=EXIT_USAGE,
            hints=[f"`aerogel manifest inspect {options.name}` shows what is"],
        )
    given = {"os": options.os, "architecture": options.arch, "variant": options.variant}
    changed = [
        msgspec.structs.replace(
            each,
            platform=with_platform(each.platform, **given) if any(given.values()) else each.platform,
            annotations={**each.annotations, **options.annotation},
        )
        if each.digest in meant
        else each
        for each in members
    ]
    made = keep_list(world, reference, changed)
    return ManifestCreateResult(
        reference=reference.familiar(), digest=made.digest, members=tuple(each.digest for each in changed)
    )
