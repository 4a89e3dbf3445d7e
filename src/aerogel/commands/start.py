"""`aerogel start`: starts containers again that have ended."""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Struct

from aerogel.commands.attach import DETACH, attach, parse_keys, start_attached
from aerogel.commands.detaching import containers_of, each, start
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Start", "StartResult", "run"]

EXAMPLES = (
    ("one that was stopped", "aerogel start web"),
    ("a shell that ended, on this terminal again", "aerogel start -ai shell"),
)


class Start(Struct, frozen=True, kw_only=True):
    """Start containers that have ended, with the files that they wrote.

    With `-a` or `-i` the exit status is the command's.
    """

    names: Annotated[tuple[str, ...], Flag("Names or ids of containers", positional=True, metavar="CONTAINER")]
    attach: Annotated[bool, Flag("Show the output here, and pass signals on", short="a")] = False
    interactive: Annotated[bool, Flag("Pass this standard input on too", short="i")] = False
    detach_keys: Annotated[str, Flag("Keys that leave the command running", metavar="KEYS")] = DETACH


class StartResult(Result, frozen=True, kw_only=True):
    names: tuple[str, ...]
    code: int = 0

    def text(self) -> str:
        return "\n".join(self.names)

    def exit_status(self) -> int:
        return self.code


def run(options: Start, world: World) -> StartResult:
    """Raises `container.not-found`, `container.no-layers`; one that runs is no fault. With `-a`: `start.several`, `attach.keys`."""
    if options.attach or options.interactive:
        return StartResult(names=(), code=_attached(options, world))

    def act(name: str) -> None:
        seen = containers_of(world).find(name)
        if not seen.is_running:
            start(seen, world)

    return StartResult(names=each(options.names, act))


def _attached(options: Start, world: World) -> int:
    keys = parse_keys(options.detach_keys)
    if len(options.names) != 1:
        raise fault(
            "only one container can have this terminal", "start.several", "start the others without `-a` and `-i`"
        )
    seen = containers_of(world).find(options.names[0])
    own = seen.container
    takes_input = options.interactive and own.keeps_input
    if takes_input and own.sandbox.tty and not os.isatty(world.streams.stdin):
        raise fault("standard input is not a terminal, and the container has one", "run.no-terminal", "leave out `-i`")
    keys = keys if own.sandbox.tty else b""
    if seen.is_running:
        return attach(seen, world, keys=keys, passes_input=takes_input, passes_signals=True, asks_to_end=True)
    return start_attached(seen, world, keys=keys, passes_input=takes_input)
