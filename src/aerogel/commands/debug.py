"""`aerogel debug`: a shell in an image or beside a container that has none; neither is changed.

The tools are a static busybox of this host or of Debian. They are seen in one folder, by the shell alone.
"""

from __future__ import annotations

import json
import os
from typing import Annotated, ClassVar

import msgspec
from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.exec import execute
from aerogel.commands.result import Result
from aerogel.commands.run import found_image
from aerogel.commands.startable import report, why_not, with_command
from aerogel.commands.tools import TOOLS, installed, packages_folder, packages_mount, tools_program
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.events import Message
from aerogel.flag import Flag
from aerogel.oci.digest import Digest
from aerogel.oci.types import ContainerConfig
from aerogel.runtime.container import ContainerOptions, attend, parse_env, sandbox_for
from aerogel.runtime.containers import Seen
from aerogel.runtime.remote import Command
from aerogel.runtime.serving import beside
from aerogel.runtime.terminal import window_of
from aerogel.sandbox.emulator import Emulator
from aerogel.sandbox.spec import DEFAULT_CAPABILITIES, DEFAULT_PATH, Mount, Rootfs, Sandbox
from aerogel.solve.materials import Materials

__all__ = ["EXAMPLES", "Debug", "DebugResult", "run"]

EXAMPLES = (
    ("look around in an image without a shell", "aerogel debug gcr.io/distroless/static"),
    ("why it does not start", "aerogel debug --why app"),
    ("what its processes do", "aerogel debug --tools strace web strace -f -p 2"),
    ("what a running container listens on", "aerogel debug web netstat -ltn"),
)
_STOP = 15
_GRACE_S = 10.0
_NETWORK_FAULTS = ("sandbox.no-network", "sandbox.no-tun", "sandbox.network")
_CAPABILITIES = (*DEFAULT_CAPABILITIES, "SYS_PTRACE")
"""To look into the container's processes, whatever user they have."""


class Debug(Struct, frozen=True, kw_only=True):
    """Open a shell in an image, or beside the command of a container, with tools from outside.

    Nothing of it is left in the image or the container. The exit status is the shell's. `aerogel debug last` is for
    the step of a build that failed last. With `--why` nothing is run: the exit status is 1 when a fault is found.
    """

    target: Annotated[
        str,
        Flag("Name or id of a container or an image, a container first", positional=True, metavar="CONTAINER|IMAGE"),
    ]
    arguments: Annotated[tuple[str, ...], Flag("Command instead of a shell", rest=True, metavar="COMMAND")] = ()
    user: Annotated[str, Flag("User and group", short="u", metavar="USER[:GROUP]")] = "0"
    workdir: Annotated[str, Flag("Working directory", short="w", metavar="PATH")] = ""
    tools: Annotated[
        tuple[str, ...], Flag("Debian packages whose programs are to be there too", metavar="PACKAGE,...")
    ] = ()
    env: Annotated[
        tuple[str, ...], Flag("`NAME=value`, or `NAME` with this environment's value", short="e", metavar="NAME")
    ] = ()
    why: Annotated[
        bool,
        Flag("Tell what keeps the command from starting: program, machine, loader, libraries, interpreter, rights"),
    ] = False


class DebugResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    code: int
    report: str = ""
    """Of `--why`."""

    def text(self) -> str:
        return self.report

    def exit_status(self) -> int:
        return self.code


def run(options: Debug, world: World) -> DebugResult:
    """Runs the shell, or the command, on the caller's streams.

    Raises `container.ambiguous`, `build.no-base` for what is neither, and what starting it raises.
    """
    materials = Materials(world.store, world.helper)
    try:
        seen = containers_of(world).find(options.target)
    except AerogelError as error:
        if error.code != "container.not-found":
            raise
        layers, config, platform = found_image(options.target, world, materials, "missing")
        if options.why:
            words = options.arguments or (*config.entrypoint, *config.cmd)
            changed = with_command(config, options.arguments) if options.arguments else config
            return _why(options.target, layers, changed, platform, words, materials)
        _tell_command((*config.entrypoint, *config.cmd), world)
        given = ContainerOptions(entrypoint="", arguments=("sh",))
        emulated = Emulator().prepare(world.helper, platform)
        sandbox = msgspec.structs.replace(sandbox_for(materials.directories(layers), config, given), emulated=emulated)
        return DebugResult(code=_in_new_root(sandbox, options, world, materials))
    if options.why:
        return _why_container(seen, options, world, materials)
    if seen.is_running:
        return DebugResult(code=_beside(seen, options, world, materials))
    own = seen.container.sandbox
    sandbox = msgspec.structs.replace(own, root=Rootfs(lowers=(*own.root.lowers, *seen.written())))
    world.sink.emit(Message(f"container `{options.target}` does not run: this is a copy of its files"))
    _tell_command(own.argv, world)
    return DebugResult(code=_in_new_root(sandbox, options, world, materials))


def _tell_command(words: tuple[str, ...], world: World) -> None:
    """What is not started, for those who want to try it in the shell."""
    if words:
        world.sink.emit(Message(f"its command is {json.dumps(words)}"))


def _why(
    name: str,
    layers: tuple[Digest, ...],
    config: ContainerConfig,
    platform: str,
    words: tuple[str, ...],
    materials: Materials,
) -> DebugResult:
    found = why_not(layers, config, platform, name, materials)
    return DebugResult(code=1 if found else 0, report=report(words, config, found))


def _why_container(seen: Seen, options: Debug, world: World, materials: Materials) -> DebugResult:
    """Of a container: its own command, variables, folder and user, and the files of its image."""
    own, state = seen.container.sandbox, seen.state
    layers, config, platform = found_image(seen.container.image, world, materials, "never")
    words = options.arguments or own.argv
    env = tuple(f"{key}={value}" for key, value in own.env)
    changed = msgspec.structs.replace(with_command(config, words), env=env, user=own.user, working_dir=own.cwd)
    if state.status == "exited":
        said = f"container `{seen.container.name}` ended with {state.code}"
        world.sink.emit(Message(f"{said}: {state.error}" if state.error else said))
    return _why(seen.container.image, layers, changed, platform, words, materials)


def _names(options: Debug) -> tuple[str, ...]:
    return tuple(name for text in options.tools for name in text.split(",") if name)


def _is_terminal(world: World) -> bool:
    return os.isatty(world.streams.stdin) and os.isatty(world.streams.stdout)


def _changed(sandbox: Sandbox, options: Debug, world: World) -> Sandbox:
    """The sandbox with the command of the options, the tools in its search path, and their user."""
    lookup = world.settings.environment.get
    env = dict(sandbox.env)
    env.pop("HOME", None)
    env["PATH"] = f"{env.get('PATH') or DEFAULT_PATH}:{TOOLS}"
    is_terminal = _is_terminal(world)
    if is_terminal:
        env["TERM"] = lookup("TERM") or "xterm"
    env |= dict(pair for text in options.env if (pair := parse_env(text, lookup)) is not None)
    return msgspec.structs.replace(
        sandbox,
        argv=installed(options.arguments, with_packages=bool(options.tools)),
        env=tuple(env.items()),
        user=options.user,
        cwd=options.workdir or sandbox.cwd,
        tty=is_terminal,
        window=window_of(world.streams.stdout),
        capabilities=_CAPABILITIES,
        joinable=False,
    )


def _in_new_root(sandbox: Sandbox, options: Debug, world: World, materials: Materials) -> int:
    tools = Mount(kind="tmpfs", target=TOOLS)
    program = Mount(kind="bind", source=tools_program(world, materials), target=f"{TOOLS}/busybox", readonly=True)
    asked = _changed(sandbox, options, world)
    more = () if not options.tools else (packages_mount(packages_folder(_names(options), world, materials)),)
    root = msgspec.structs.replace(asked.root, upper=None, work=None, readonly=False)
    mounts = (*_present(asked.mounts, world), tools, program, *more)
    # its ports are not wanted here, and one that is taken may be why the container does not start
    asked = msgspec.structs.replace(asked, root=root, mounts=mounts, create_cwd=True, ports=())
    try:
        end = attend(world.helper(), asked, _STOP, _GRACE_S, interactive=True, stdio=world.streams)
    except AerogelError as error:
        if not error.code.startswith(_NETWORK_FAULTS):
            raise
        world.sink.emit(Message(f"its network cannot be made, so there is none: {error.message}"))
        asked = msgspec.structs.replace(asked, network="none")
        end = attend(world.helper(), asked, _STOP, _GRACE_S, interactive=True, stdio=world.streams)
    if end.fault is not None:
        end.fault.exit_status = end.code
        raise end.fault
    return end.code


def _present(mounts: tuple[Mount, ...], world: World) -> tuple[Mount, ...]:
    """Without what the container was lent and this host has no more."""
    gone = [mount for mount in mounts if mount.kind == "bind" and not os.path.lexists(mount.source)]
    for mount in gone:
        world.sink.emit(Message(f"`{mount.source}`, which it has at `{mount.target}`, is gone"))
    return tuple(mount for mount in mounts if mount not in gone)


def _beside(seen: Seen, options: Debug, world: World, materials: Materials) -> int:
    streams = world.streams
    stdio = (streams.stdin, streams.stdout, streams.stderr)
    packages = packages_folder(_names(options), world, materials) if options.tools else ""
    with open(tools_program(world, materials), "rb") as tools:
        sandbox = _changed(beside(seen.container, ()), options, world)
        return execute(
            Command(seen, sandbox, stdio, tools=tools.fileno(), packages=packages), stdio, is_interactive=True
        )
