"""`aerogel volume rm`: removes volumes with what is in them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each
from aerogel.commands.result import Result
from aerogel.commands.volumes import volumes_of
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "VolumeRm", "VolumeRmResult", "run"]

EXAMPLES = (("two of them", "aerogel volume rm db cache"),)


class VolumeRm(Struct, frozen=True, kw_only=True):
    """Remove volumes with what is in them."""

    names: Annotated[tuple[str, ...], Flag("Names of volumes", positional=True, metavar="VOLUME")]
    force: Annotated[bool, Flag("One that is not there is no fault", short="f")] = False


class VolumeRmResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(self.names)


def run(options: VolumeRm, world: World) -> VolumeRmResult:
    """Raises `volume.not-found` (not with `--force`), `volume.in-use`."""
    volumes, containers = volumes_of(world), containers_of(world).list

    def act(name: str) -> None:
        try:
            volumes.find(name)
        except AerogelError:
            if options.force:
                return
            raise
        volumes.remove(name, containers, lambda path: world.helper().call("remove", {"path": path}))

    return VolumeRmResult(names=each(options.names, act))
