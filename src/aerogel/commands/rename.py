"""`aerogel rename`: gives a container another name."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.result import Result
from aerogel.commands.run_flags import check_name
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Rename", "RenameResult", "run"]

EXAMPLES = (("make room for a new one", "aerogel rename web web-old"),)


class Rename(Struct, frozen=True, kw_only=True):
    """Give a container another name."""

    container: Annotated[str, Flag("Name or id of a container", positional=True, metavar="CONTAINER")]
    name: Annotated[str, Flag("The new name", positional=True, metavar="NAME")]


class RenameResult(Result, frozen=True, kw_only=True):
    id: str
    name: str
    """The new one."""


def run(options: Rename, world: World) -> RenameResult:
    """Raises `container.not-found`, `container.name-taken`, `run.name`."""
    check_name(options.name)
    containers = containers_of(world)
    found = containers.find(options.container)
    containers.rename(found, options.name)
    return RenameResult(id=found.container.id, name=options.name)
