"""`aerogel rm`: removes containers, with what they wrote and said."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, each, remove
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag
from aerogel.runtime.remote import ask

__all__ = ["EXAMPLES", "Rm", "RmResult", "run"]

EXAMPLES = (("one that may be running", "aerogel rm -f web"),)


class Rm(Struct, frozen=True, kw_only=True):
    """Remove containers."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]
    force: Annotated[bool, Flag("Kill what is running", short="f")] = False
    volumes: Annotated[bool, Flag("Remove the volumes too that were made for the container", short="v")] = False


class RmResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]

    def text(self) -> str:
        return "\n".join(self.names)


def run(options: Rm, world: World) -> RmResult:
    """Raises `container.not-found` (not with `--force`), `container.running`."""

    def act(name: str) -> None:
        try:
            seen = containers_of(world).find(name)
        except AerogelError as error:
            if options.force and error.code == "container.not-found":
                return
            raise
        if seen.is_running:
            if not options.force:
                raise AerogelError(
                    f"container `{name}` is running",
                    code="container.running",
                    hints=[f"`aerogel stop {name}` stops it, `aerogel rm -f {name}` kills it first"],
                )
            ask(seen, do="stop", number=9, grace_s=0)
            if seen.container.is_removed:
                return
        remove(seen, world, volumes=options.volumes)

    return RmResult(names=each(options.names, act))
