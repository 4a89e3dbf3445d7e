"""`aerogel stop`: asks containers to end, and kills them when they do not."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.container import signal_number
from aerogel.runtime.remote import ask

__all__ = ["EXAMPLES", "Stop", "StopResult", "run"]

EXAMPLES = (("with five seconds to end", "aerogel stop -t 5 web"),)


class Stop(Struct, frozen=True, kw_only=True):
    """Stop running containers."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]
    time: Annotated[int | None, Flag("Seconds between asking to end and killing", short="t", metavar="SECONDS")] = None
    signal: Annotated[str, Flag("What asks to end; default: the container's", short="s", metavar="SIGNAL")] = ""


class StopResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(self.names)


def run(options: Stop, world: World) -> StopResult:
    """Returns when they have ended. Raises `container.not-found`; one that has ended already is no fault."""
    number = signal_number(options.signal) if options.signal else None

    def stop(name: str) -> None:
        seen = containers_of(world).find(name)
        if seen.is_running:
            own = seen.container
            grace_s = own.grace_s if options.time is None else options.time
            ask(seen, do="stop", number=number or own.stop_signal, grace_s=grace_s)

    return StopResult(names=each(options.names, stop))
