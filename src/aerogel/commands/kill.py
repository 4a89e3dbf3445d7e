"""`aerogel kill`: sends a signal to the commands of containers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.container import signal_number
from aerogel.runtime.remote import ask

__all__ = ["EXAMPLES", "Kill", "KillResult", "run"]

EXAMPLES = (("make a server read its configuration again", "aerogel kill -s HUP web"),)


class Kill(Struct, frozen=True, kw_only=True):
    """Send a signal to running containers, SIGKILL by default."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]
    signal: Annotated[str, Flag("Signal to send", short="s", metavar="SIGNAL")] = "SIGKILL"


class KillResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(self.names)


def run(options: Kill, world: World) -> KillResult:
    """Does not wait for their end. Raises `container.not-found`, `container.not-running`, `run.stop-signal`."""
    number = signal_number(options.signal)

    def kill(name: str) -> None:
        ask(containers_of(world).running(name), do="signal", number=number)

    return KillResult(names=each(options.names, kill))
