"""`aerogel attach`: joins the terminal with the command of a container in the background."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Annotated, ClassVar

from msgspec import Struct

from aerogel.commands.detaching import containers_of, start
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.world import World
from aerogel.errors import Diagnostic
from aerogel.events import Message, Warned
from aerogel.flag import Flag
from aerogel.runtime.attached import Attached
from aerogel.runtime.containers import Seen

__all__ = ["DETACH", "EXAMPLES", "Attach", "AttachResult", "attach", "parse_keys", "run", "start_attached"]

EXAMPLES = (
    ("a shell that was started with -dit; Ctrl-P Ctrl-Q leaves it running", "aerogel attach shell"),
    ("only look", "aerogel attach --no-stdin --sig-proxy=false web"),
)
DETACH = "ctrl-p,ctrl-q"
"""The keys that leave a command running, unless others are given; docker's."""

_REMOVED_S = 10.0
_CONTROL = re.compile(r"ctrl-([a-z@\[\\\]^_])")


class Attach(Struct, frozen=True, kw_only=True):
    """Attach to the command of a running container: its output, its input, its terminal.

    The exit status is the command's. The keys of `--detach-keys` leave it running; then the status is 0.
    """

    container: Annotated[
        str, Flag("Name or id of a container that was started with `-d`", positional=True, metavar="CONTAINER")
    ]
    no_stdin: Annotated[bool, Flag("Do not pass this standard input on")] = False
    sig_proxy: Annotated[bool, Flag("Pass signals on to the command")] = True
    detach_keys: Annotated[str, Flag("Keys that leave the command running", metavar="KEYS")] = DETACH


class AttachResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    code: int

    def exit_status(self) -> int:
        return self.code


def run(options: Attach, world: World) -> AttachResult:
    """Raises `container.not-found`, `container.not-running`, `container.foreground`, `attach.keys`."""
    keys = parse_keys(options.detach_keys)
    seen = containers_of(world).running(options.container)
    if seen.state.is_paused:
        raise fault(
            f"container `{options.container}` is paused",
            "container.paused",
            f"`aerogel unpause {options.container}` lets it go on",
        )
    code = attach(seen, world, keys=keys, passes_input=not options.no_stdin, passes_signals=options.sig_proxy)
    return AttachResult(code=code)


def start_attached(seen: Seen, world: World, *, keys: bytes, passes_input: bool) -> int:
    """Starts a container that stays, with these streams; its exit status, 0 after the keys that detach.

    Raises what starting raises, with the command's exit status.
    """
    start(seen, world, waits=True)
    return attach(seen, world, keys=keys, passes_input=passes_input, passes_signals=True, asks_to_end=True)


def attach(
    seen: Seen, world: World, *, keys: bytes, passes_input: bool, passes_signals: bool, asks_to_end: bool = False
) -> int:
    """Follows the command to its end, or to the keys that detach; its exit status.

    `asks_to_end`: see `Attached.follow`. Raises why the command could not be started.
    """
    own = seen.container
    streams = world.streams
    takes_input = passes_input and own.keeps_input
    if own.sandbox.tty and takes_input and not os.isatty(streams.stdin):
        raise fault(
            "standard input is not a terminal, and the container has one",
            "run.no-terminal",
            "add `--no-stdin`, or use a terminal",
        )
    with Attached(seen, streams, keys if takes_input else b"") as attached:
        end = attached.follow(takes_input=takes_input, passes_signals=passes_signals, asks_to_end=asks_to_end)
    if end is None:
        with contextlib.suppress(OSError):
            os.write(streams.stdout, b"\r\n" if own.sandbox.tty else b"")
        world.sink.emit(Message(f"detached: container `{own.name}` goes on"))
        return 0
    if end.fault is not None:
        raise end.fault
    if end.oom and asks_to_end:
        world.sink.emit(Warned(Diagnostic("the kernel ran out of memory and killed the command", code="run.memory")))
    if own.is_removed and asks_to_end:
        containers_of(world).wait_removed(seen, _REMOVED_S)
    return end.code


def parse_keys(text: str) -> bytes:
    """The bytes of `ctrl-p,ctrl-q` or `a,b`; empty text: none. Raises `attach.keys`."""
    found = bytearray()
    for word in text.split(",") if text else []:
        control = _CONTROL.fullmatch(word)
        if control is not None:
            found.append(ord(control[1].upper()) & 0x1F)
        elif len(word) == 1 and word.isascii():
            found += word.encode("ascii")
        else:
            raise fault(
                f"`--detach-keys {text}`: `{word}` is not a key",
                "attach.keys",
                "write one character, or `ctrl-` and one of a-z, @, [, \\, ], ^, _, with commas between",
            )
    return bytes(found)
