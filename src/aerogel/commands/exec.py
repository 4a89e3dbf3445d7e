"""`aerogel exec`: a command beside the one of a running container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar

from msgspec import Struct

from aerogel.commands.attach import DETACH, parse_keys
from aerogel.commands.detaching import containers_of
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault, read_env_files
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.container import follow_until, parse_env
from aerogel.runtime.remote import Command
from aerogel.runtime.serving import beside
from aerogel.runtime.terminal import window_of
from aerogel.sandbox.capabilities import NAMES

__all__ = ["EXAMPLES", "Exec", "ExecResult", "execute", "run", "streams_for"]

EXAMPLES = (
    ("a shell in a running container", "aerogel exec -it web sh"),
    ("as another user, elsewhere", "aerogel exec -u 0 -w /etc web cat passwd"),
)
_STOP = 15


class Exec(Struct, frozen=True, kw_only=True):
    """Run a command in a running container.

    The exit status is the command's; 126 and 127 when it cannot be started.
    """

    container: Annotated[str, Flag("Name or id of a running container", positional=True, metavar="CONTAINER")]
    arguments: Annotated[tuple[str, ...], Flag("Command and its arguments", rest=True, metavar="COMMAND")]
    interactive: Annotated[bool, Flag("Give the command this standard input", short="i")] = False
    tty: Annotated[bool, Flag("Give the command a terminal", short="t")] = False
    detach: Annotated[bool, Flag("Leave the command running, and do not wait for it", short="d")] = False
    env: Annotated[
        tuple[str, ...], Flag("`NAME=value`, or `NAME` with this environment's value", short="e", metavar="NAME")
    ] = ()
    env_file: Annotated[
        tuple[str, ...], Flag("File with a `NAME=value` on each line", metavar="FILE", complete="file")
    ] = ()
    workdir: Annotated[str, Flag("Working directory", short="w", metavar="PATH")] = ""
    user: Annotated[str | None, Flag("User and group, by name or number", short="u", metavar="USER[:GROUP]")] = None
    detach_keys: Annotated[str, Flag("Keys that leave the command running, with a terminal", metavar="KEYS")] = DETACH
    privileged: Annotated[bool, Flag("Give the command all capabilities that the container's isolation has")] = False


class ExecResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    code: int

    def exit_status(self) -> int:
        return self.code


def run(options: Exec, world: World) -> ExecResult:
    """Runs the command to its end on the caller's streams.

    Raises `container.not-found`, `container.not-running`, `run.*`, and what starting the command raises.
    """
    if options.tty and options.interactive and not options.detach and not os.isatty(world.streams.stdin):
        raise fault("standard input is not a terminal, so `-it` cannot be", "run.no-terminal", "leave out `-t`")
    keys = parse_keys(options.detach_keys)
    seen = containers_of(world).running(options.container)
    given = [*read_env_files(options.env_file, world.settings.directory), *options.env]
    pairs = [pair for text in given if (pair := parse_env(text, world.settings.environment.get)) is not None]
    own = seen.container.sandbox
    is_terminal = options.tty and not options.detach
    more = {"TERM": "xterm"} if is_terminal else {}
    env = {**dict(own.env), **more, **dict(pairs)}
    if options.user is not None and "HOME" not in dict(pairs):
        env.pop("HOME", None)
    sandbox = beside(
        seen.container,
        options.arguments,
        env=tuple(env.items()),
        cwd=options.workdir or own.cwd,
        user=own.user if options.user is None else options.user,
        tty=is_terminal,
        window=window_of(world.streams.stdout),
        capabilities=tuple(NAMES) if options.privileged else own.capabilities,
    )
    streams = world.streams
    with streams_for((streams.stdin, streams.stdout, streams.stderr), options) as stdio:
        command = Command(seen, sandbox, stdio, is_detached=options.detach)
        code = execute(command, stdio, is_interactive=options.interactive, is_detached=options.detach, keys=keys)
        return ExecResult(code=code)


@contextmanager
def streams_for(stdio: tuple[int, int, int], options: Exec) -> Iterator[tuple[int, int, int]]:
    """The command's standard streams: nothing to read without `-i`, nowhere to write with `-d`."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        stdin, stdout, stderr = stdio
        if options.detach:
            yield null, null, null
        else:
            yield stdin if options.interactive else null, stdout, stderr
    finally:
        os.close(null)


def execute(
    command: Command,
    stdio: tuple[int, int, int],
    *,
    is_interactive: bool,
    is_detached: bool = False,
    keys: bytes = b"",
) -> int:
    """Follows a command to its end, or to the keys that leave it; its exit status. Raises why it could not be started."""
    with command:
        if is_detached:
            return 0
        end = follow_until(command, stdio, keys, stop=_STOP, grace_s=10.0, is_interactive=is_interactive)
        if end is None:
            command.leave()
            return 0
    if end.fault is not None:
        end.fault.exit_status = end.code
        raise end.fault
    return end.code
