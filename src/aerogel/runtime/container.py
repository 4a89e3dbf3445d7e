"""Runs an image: what its config says, changed by the options of `aerogel run`, in a sandbox that leaves nothing.

The words and defaults are Docker's. What the command writes is thrown away. Spec: `docker run` reference,
OCI image-spec v1.1 config.md (Entrypoint, Cmd, Env, User, WorkingDir, StopSignal).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.oci.types import ContainerConfig
from aerogel.runtime import terminal
from aerogel.sandbox.capabilities import NAMES, mask_of
from aerogel.sandbox.cgroup import Resources, held
from aerogel.sandbox.launch import Helper, Process
from aerogel.sandbox.spec import (
    DEFAULT_CAPABILITIES,
    DEFAULT_HOSTNAME,
    DEFAULT_PATH,
    Exit,
    Limit,
    Mount,
    Network,
    Rootfs,
    Sandbox,
)

__all__ = [
    "ContainerOptions",
    "Followed",
    "Follower",
    "attend",
    "follow",
    "follow_until",
    "parse_env",
    "parse_volume",
    "run",
    "sandbox_for",
    "signal_number",
    "stop_signal",
]

_RELAYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class ContainerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a run changes of the image's config; names as `docker run`'s.

    `arguments` replace CMD. `entrypoint` replaces ENTRYPOINT and drops CMD; the empty string only drops both.
    `volumes` are `/host/path:/in/image[:ro]`. `stop_signal` is what SIGTERM is passed on as, instead of the image's
    own. `grace_s` seconds after Ctrl-C or SIGTERM everything is killed.
    """

    arguments: tuple[str, ...] = ()
    entrypoint: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = ""
    user: str | None = None
    volumes: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: Network = "host"
    hostname: str = DEFAULT_HOSTNAME
    hosts: tuple[tuple[str, str], ...] = ()
    tty: bool = False
    interactive: bool = False
    readonly: bool = False
    no_new_privileges: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    shm_size_bytes: int = 64 << 20
    stop_signal: str = ""
    grace_s: float = 10.0
    emulated: bool = False
    """The image is for another machine."""


def sandbox_for(layers: Sequence[str], config: ContainerConfig, options: ContainerOptions) -> Sandbox:
    """The sandbox of a run. `layers` are overlay directories, the lowest first.

    Raises AerogelError `run.no-command`, `run.volume`; makes the host's directory of a volume when it is missing.
    """
    if options.entrypoint is None:
        argv = (*config.entrypoint, *(options.arguments or config.cmd))
    else:
        argv = (*((options.entrypoint,) if options.entrypoint else ()), *options.arguments)
    if not argv:
        raise AerogelError(
            "the image names no command, and none was given",
            code="run.no-command",
            hints=["put the command after the image's name"],
            exit_status=EXIT_USAGE,
        )
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": options.hostname}
    if options.tty:
        env["TERM"] = "xterm"
    env.update(_pair(text) for text in config.env)
    env.update(options.env)
    return Sandbox(
        argv=argv,
        root=Rootfs(lowers=tuple(layers), readonly=options.readonly),
        env=tuple(env.items()),
        cwd=options.workdir or config.working_dir or "/",
        user=config.user if options.user is None else options.user,
        mounts=(*(_make_source(parse_volume(text)) for text in options.volumes), *options.mounts),
        network=options.network,
        hostname=options.hostname,
        hosts=options.hosts,
        tty=options.tty,
        no_new_privileges=options.no_new_privileges,
        capabilities=_capabilities(options.cap_add, options.cap_drop),
        limits=options.limits,
        shm_size_bytes=options.shm_size_bytes,
        create_cwd=not options.readonly,
        emulated=options.emulated,
    )


class Follower(Protocol):
    """Is told when the command of a run starts and ends."""

    def started(self, process: Process, /) -> None: ...

    def finished(self, end: Exit, /) -> None: ...


def run(
    helper: Helper,
    layers: Sequence[str],
    config: ContainerConfig,
    options: ContainerOptions,
    *,
    stdio: tuple[int, int, int] = (0, 1, 2),
    follower: Follower | None = None,
) -> Exit:
    """Runs the image's command to its end, joined with `stdio` (the caller's descriptors); see `attend`."""
    return attend(
        helper,
        sandbox_for(layers, config, options),
        stop_signal(config, options),
        options.grace_s,
        interactive=options.interactive,
        stdio=stdio,
        follower=follower,
    )


def stop_signal(config: ContainerConfig, options: ContainerOptions) -> int:
    """What asks the command to end. Raises `run.stop-signal`."""
    return signal_number(options.stop_signal or config.stop_signal or "SIGTERM")


def attend(
    helper: Helper,
    sandbox: Sandbox,
    stop: int,
    grace_s: float,
    *,
    interactive: bool,
    stdio: tuple[int, int, int] = (0, 1, 2),
    follower: Follower | None = None,
    resources: Resources = Resources(),  # noqa: B008 - a tuple, made once and never changed
) -> Exit:
    """Runs a command to its end, joined with `stdio` (the caller's descriptors).

    Signals that this process gets are relayed while it runs, SIGTERM as `stop`; called outside the main thread, none
    are. The exit's `fault` says why a command could not be started. Raises AerogelError for everything that is wrong
    before that.
    """
    stdin, stdout, stderr = stdio
    if sandbox.tty:
        sandbox = msgspec.structs.replace(sandbox, window=terminal.window_of(stdout))
    with (
        held(resources) as group,
        _kept() as early,
        helper.run(sandbox, stdin=stdin if interactive else None, stdout=stdout, stderr=stderr, group=group) as process,
    ):
        if follower is not None:
            follower.started(process)
        with _joined(process, stdio, stop, grace_s, b"", is_interactive=interactive, early=early):
            end = process.wait()
        if follower is not None:
            follower.finished(end)
        return end


class Followed(Protocol):
    """A command that runs, here or in the process that holds its container."""

    @property
    def tty(self) -> int | None: ...

    def signal(self, number: int, /) -> None: ...

    def kill(self) -> None: ...

    def wait(self) -> Exit: ...


def follow(process: Followed, stdio: tuple[int, int, int], *, stop: int, grace_s: float, is_interactive: bool) -> Exit:
    """Joins a command's terminal, if it has one, with the caller's; relays signals; waits for its end."""
    with _joined(process, stdio, stop, grace_s, b"", is_interactive=is_interactive):
        return process.wait()


def follow_until(
    process: Followed, stdio: tuple[int, int, int], keys: bytes, *, stop: int, grace_s: float, is_interactive: bool
) -> Exit | None:
    """`follow`, but keys typed at the terminal leave the command: then None."""
    with _joined(process, stdio, stop, grace_s, keys, is_interactive=is_interactive) as is_left:
        return None if is_left else process.wait()


@contextlib.contextmanager
def _joined(
    process: Followed,
    stdio: tuple[int, int, int],
    stop: int,
    grace_s: float,
    keys: bytes,
    *,
    is_interactive: bool,
    early: list[int] | None = None,
) -> Iterator[bool]:
    """Gives whether the keys came, when the terminal is closed or at once without one. `early` signals are passed on."""
    stdin, stdout, _ = stdio
    if process.tty is None:
        with _relaying(process, stop, grace_s, early=early):
            yield False
        return
    master = process.tty

    def resized() -> None:
        terminal.copy_size(stdout, master)

    raw = terminal.raw(stdin) if is_interactive else contextlib.nullcontext()
    with _relaying(process, stop, grace_s, resized, early), raw:
        yield terminal.join(stdin if is_interactive else None, stdout, master, keys)


def parse_volume(text: str) -> Mount:
    """`/host/path:/in/image[:ro|rw]` as a mount. Raises AerogelError `run.volume`."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
        raise _volume_error(text, "it is not `/host/path:/path/in/the/image`, with `:ro` after it if wanted")
    source, target, *flags = parts
    if not source.startswith("/"):
        hint = "write `/folder:/path` or `./folder:/path`; the name of a volume has no `/`"
        raise _volume_error(text, f"`{source}` is not an absolute path and no name of a volume", hint)
    if not target.startswith("/"):
        raise _volume_error(text, f"`{target}` is not an absolute path")
    words = flags[0].split(",") if flags else []
    # z and Z relabel for SELinux: nothing to do without its labels
    unknown = [word for word in words if word not in ("ro", "rw", "z", "Z")]
    if unknown:
        raise _volume_error(text, f"`{unknown[0]}` is not `ro` or `rw`")
    return Mount(kind="bind", source=source, target=target, readonly="ro" in words)


def parse_env(text: str, lookup: Callable[[str], str | None]) -> tuple[str, str] | None:
    """`NAME=value`, or `NAME` with the value that `lookup` knows (None: it is left out, as Docker does)."""
    name, equals, value = text.partition("=")
    if not name:
        raise AerogelError(
            f"`{text}` does not name a variable",
            code="run.env",
            hints=["write `NAME=value`"],
            exit_status=EXIT_USAGE,
        )
    if equals:
        return name, value
    found = lookup(name)
    return None if found is None else (name, found)


def signal_number(text: str) -> int:
    """The number of `SIGQUIT`, `quit`, `RTMIN+3` or `3`. Raises AerogelError `run.stop-signal`."""
    name, sign, more = text.upper().removeprefix("SIG").partition("+")
    known = {each.name.removeprefix("SIG"): int(each) for each in signal.Signals}
    if name in known and (not sign or (name == "RTMIN" and more.isdecimal())):
        return known[name] + int(more or 0)
    if text.isascii() and text.isdecimal() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    near = nearest(name, known)
    raise AerogelError(
        f"`{text}` is not a signal",
        code="run.stop-signal",
        hints=[f"did you mean `SIG{near}`?" if near else "a signal is a name such as `SIGTERM`, or a number"],
        exit_status=EXIT_USAGE,
    )


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _volume_error(text: str, why: str, *hints: str) -> AerogelError:
    return AerogelError(f"volume `{text}`: {why}", code="run.volume", hints=hints, exit_status=EXIT_USAGE)


def _make_source(mount: Mount) -> Mount:
    if not os.path.lexists(mount.source):
        try:
            os.makedirs(mount.source, 0o755)
        except OSError as error:
            raise _volume_error(f"{mount.source}:{mount.target}", f"it cannot be made: {error.strerror}") from None
    return mount


def _capabilities(add: Sequence[str], drop: Sequence[str]) -> tuple[str, ...]:
    def names(given: Sequence[str]) -> set[str]:
        return {name.upper().removeprefix("CAP_") for name in given}

    mask_of((*names(add), *names(drop)))  # an unknown name is told now
    kept = set() if "ALL" in names(drop) else set(NAMES if "ALL" in names(add) else DEFAULT_CAPABILITIES) - names(drop)
    return tuple(sorted(kept | (names(add) - {"ALL"})))


@contextlib.contextmanager
def _kept() -> Iterator[list[int]]:
    """Keeps this process's signals while a command is started: it may run before anybody here knows it.

    Who takes a signal from the list passes it on; what is left at the end is as if it came then. A second one that
    asks to end is not kept, so that a start that hangs can be given up.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def keep(number: int, frame: object) -> None:
        del frame
        if number in _ENDING and number in came:
            restore()
            signal.raise_signal(number)
        else:
            came.append(number)

    before = {number: signal.signal(number, keep) for number in _RELAYED}
    try:
        yield came
    finally:
        restore()
        for number in came:
            signal.raise_signal(number)


@contextlib.contextmanager
def _relaying(
    process: Followed,
    stop: int,
    grace_s: float,
    resized: Callable[[], None] | None = None,
    early: list[int] | None = None,
) -> Iterator[None]:
    """Passes this process's signals on, SIGTERM as `stop`, and those that came early.

    After one that asks to end, everything is killed when the grace is over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timers: list[threading.Timer] = []

    def relay(number: int, frame: object) -> None:
        del frame
        process.signal(stop if number == signal.SIGTERM else number)
        if number in _ENDING and not timers:
            timer = threading.Timer(grace_s, process.kill)
            timer.daemon = True
            timers.append(timer)
            timer.start()

    before = {number: signal.signal(number, relay) for number in _RELAYED}
    if resized is not None:
        before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda _number, _frame: resized())
    try:
        while early:
            relay(early.pop(0), None)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for timer in timers:
            timer.cancel()
