"""`aerogel wait`: the exit statuses of containers, when they have ended."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.remote import ask

__all__ = ["EXAMPLES", "Wait", "WaitResult", "run"]

EXAMPLES = (("how a job ended", "aerogel wait job"),)


class Wait(Struct, frozen=True, kw_only=True):
    """Wait until containers have ended, and print their exit statuses."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]


class WaitResult(Result, frozen=True, kw_only=True):
    codes: tuple[int, ...]

    def text(self) -> str:
        return "\n".join(map(str, self.codes))


def run(options: Wait, world: World) -> WaitResult:
    """Raises `container.not-found`, `container.gone`."""
    codes: list[int] = []

    def act(name: str) -> None:
        seen = containers_of(world).find(name)
        codes.append(ask(seen, do="wait")["code"] if seen.is_running else seen.state.code)

    each(options.names, act)
    return WaitResult(codes=tuple(codes))
