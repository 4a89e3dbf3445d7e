"""`aerogel volume create`: makes a volume."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault, parse_labels
from aerogel.commands.volumes import volumes_of
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "VolumeCreate", "VolumeCreateResult", "run"]

EXAMPLES = (("one for a database", "aerogel volume create db"),)


class VolumeCreate(Struct, frozen=True, kw_only=True):
    """Make a volume, unless there is one of this name.

    `aerogel run -v NAME:/path` makes it too.
    """

    name: Annotated[str, Flag("Name; default: one is made up", positional=True, metavar="NAME")] = ""
    label: Annotated[tuple[str, ...], Flag("Label of the volume", short="l", metavar="KEY[=VALUE]")] = ()
    driver: Annotated[
        Literal["local"], Flag("Accepted for docker's sake: volumes are folders of this host", short="d")
    ] = "local"
    opt: Annotated[tuple[str, ...], Flag("Refused: volumes have no options", short="o", hidden=True)] = ()


class VolumeCreateResult(Result, frozen=True, kw_only=True):
    name: str

    def text(self) -> str:
        return self.name


def run(options: VolumeCreate, world: World) -> VolumeCreateResult:
    """Raises `volume.name`, `volume.option`."""
    if options.opt:
        hint = "`aerogel run --mount type=tmpfs` is memory, `-v /folder:/path` any folder that is mounted on this host"
        raise fault(f"a volume has no option `{options.opt[0]}`", "volume.option", hint)
    labels = parse_labels(options.label, (), world.settings.directory)
    return VolumeCreateResult(name=volumes_of(world).create(options.name, world.clock(), labels).name)
