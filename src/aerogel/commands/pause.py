"""`aerogel pause`: stops the processes of containers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.remote import ask

__all__ = ["EXAMPLES", "Pause", "PauseResult", "run"]

EXAMPLES = (("while a copy is made", "aerogel pause db"),)


class Pause(Struct, frozen=True, kw_only=True):
    """Stop all processes of running containers until they are to go on."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]


class PauseResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(self.names)


def run(options: Pause, world: World) -> PauseResult:
    """Raises `container.not-found`, `container.not-running`, `container.paused`, `sandbox.no-freezer`."""
    containers = containers_of(world)
    return PauseResult(names=each(options.names, lambda name: ask(containers.running(name), do="pause")))
