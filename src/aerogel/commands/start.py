"""`aerogel start`: starts containers again that have ended."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each, start
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Start", "StartResult", "run"]

EXAMPLES = (("one that was stopped", "aerogel start web"),)


class Start(Struct, frozen=True, kw_only=True):
    """Start containers that have ended, with the files that they wrote."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]


class StartResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(self.names)


def run(options: Start, world: World) -> StartResult:
    """Raises `container.not-found`, `container.no-layers`; one that runs is no fault."""

    def act(name: str) -> None:
        seen = containers_of(world).find(name)
        if not seen.is_running:
            start(seen, world)

    return StartResult(names=each(options.names, act))
