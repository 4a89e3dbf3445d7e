"""`aerogel unpause`: lets paused containers go on."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.remote import ask

__all__ = ["EXAMPLES", "Unpause", "UnpauseResult", "run"]

EXAMPLES = (("one that was paused", "aerogel unpause db"),)


class Unpause(Struct, frozen=True, kw_only=True):
    """Let containers that are paused go on."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]


class UnpauseResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(self.names)


def run(options: Unpause, world: World) -> UnpauseResult:
    """Raises `container.not-found`, `container.not-running`, `container.not-paused`."""
    containers = containers_of(world)
    return UnpauseResult(names=each(options.names, lambda name: ask(containers.running(name), do="unpause")))
