"""`aerogel restart`: stops containers and starts them again."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each, start
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag
from aerogel.runtime.remote import ask

__all__ = ["EXAMPLES", "Restart", "RestartResult", "run"]

EXAMPLES = (("with one second to end", "aerogel restart -t 1 web"),)


class Restart(Struct, frozen=True, kw_only=True):
    """Stop containers, and start them again."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]
    time: Annotated[int | None, Flag("Seconds between asking to end and killing", short="t", metavar="SECONDS")] = None


class RestartResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(self.names)


def run(options: Restart, world: World) -> RestartResult:
    """Raises `container.not-found`, `container.no-layers`, `container.removed`."""

    def act(name: str) -> None:
        seen = containers_of(world).find(name)
        if seen.container.is_removed:
            raise AerogelError(
                f"container `{name}` is removed when it ends, so it cannot be started again",
                code="container.removed",
                hints=["start it without `--rm`"],
            )
        if seen.is_running:
            grace_s = seen.container.grace_s if options.time is None else options.time
            ask(seen, do="stop", number=seen.container.stop_signal, grace_s=grace_s)
        start(seen, world)

    return RestartResult(names=each(options.names, act))
