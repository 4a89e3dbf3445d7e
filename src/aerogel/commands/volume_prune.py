"""`aerogel volume prune`: removes volumes that no container has."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.container_prune import filters_of, fits_labels
from aerogel.commands.detaching import containers_of
from aerogel.commands.du import measured
from aerogel.commands.format import size
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.volumes import volumes_of
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.volumes import users_of

__all__ = ["EXAMPLES", "VolumePrune", "VolumePruneResult", "run"]

EXAMPLES = (("those with names too", "aerogel volume prune --all"),)


class VolumePrune(Struct, frozen=True, kw_only=True):
    """Remove the volumes without a name that no container has, running or not."""

    all: Annotated[bool, Flag("Those with a name too", short="a")] = False
    filter: Annotated[tuple[str, ...], Flag("Only those that fit: `label=`, `label!=`", metavar="KEY=VALUE")] = ()
    force: Annotated[bool, Flag("Accepted for docker's sake: nothing is asked", short="f", hidden=True)] = False


class VolumePruneResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]
    freed_bytes: int

    def text(self) -> str:
        shown = ["Deleted Volumes:", *self.names, ""] if self.names else []
        return "\n".join([*shown, f"Total reclaimed space: {size(self.freed_bytes)}"])


def run(options: VolumePrune, world: World) -> VolumePruneResult:
    """Raises `prune.filter`, `volume.*`."""
    filters = filters_of(options.filter, ("label", "label!", "all"))
    if any(key == "all" and value.lower() not in ("true", "1", "false", "0") for key, value in filters):
        raise fault("filter `all` is `true` or `false`", "prune.filter", "write `--all`")
    wants_all = options.all or any(key == "all" and value.lower() in ("true", "1") for key, value in filters)
    volumes, containers = volumes_of(world), containers_of(world).list
    names: list[str] = []
    freed = 0
    for volume in volumes.list():
        if (volume.is_anonymous or wants_all) and fits_labels(volume.labels, filters):
            if users_of(volume.name, containers()):
                continue
            taken = measured(volumes.data_of(volume.name), world)
            volumes.remove(volume.name, containers, lambda path: world.helper().call("remove", {"path": path}))
            freed += taken
            names.append(volume.name)
    return VolumePruneResult(names=tuple(names), freed_bytes=freed)
