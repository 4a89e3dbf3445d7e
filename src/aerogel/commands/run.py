"""`aerogel run`: an image's command in a sandbox; what it writes is thrown away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
from msgspec import Struct

from aerogel.commands.lookup import nearest_name
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic, Source, Span
from aerogel.events import Warned
from aerogel.flag import Flag
from aerogel.oci.digest import Digest
from aerogel.oci.types import ContainerConfig
from aerogel.runtime.container import ContainerOptions, parse_env
from aerogel.sandbox.emulator import Emulator
from aerogel.sandbox.spec import DEFAULT_HOSTNAME, Limit, Mount, Network

if TYPE_CHECKING:
    from aerogel.solve.materials import Materials

__all__ = ["EXAMPLES", "Run", "RunResult", "run"]

EXAMPLES = (
    ("the image's own command with arguments", "aerogel run calculator 6 '*' 7"),
    ("a shell, with this folder in it", 'aerogel run -it -v "$PWD:/work" -w /work debian bash'),
)


class Run(Struct, frozen=True, kw_only=True):
    """Run a command in an image.

    The exit status is the command's; 126 and 127 when it cannot be started.
    """

    image: Annotated[str, Flag("Name or id of an image", positional=True, metavar="IMAGE")]
    arguments: Annotated[
        tuple[str, ...], Flag("Command or arguments instead of the image's own", rest=True, metavar="ARG")
    ] = ()
    interactive: Annotated[bool, Flag("Give the command this standard input", short="i")] = False
    tty: Annotated[bool, Flag("Give the command a terminal", short="t")] = False
    entrypoint: Annotated[str | None, Flag("Program instead of the image's ENTRYPOINT", metavar="PROGRAM")] = None
    env: Annotated[
        tuple[str, ...], Flag("`NAME=value`, or `NAME` with this environment's value", short="e", metavar="NAME")
    ] = ()
    env_file: Annotated[
        tuple[str, ...], Flag("File with a `NAME=value` on each line", metavar="FILE", complete="file")
    ] = ()
    volume: Annotated[
        tuple[str, ...], Flag("Folder or file of this host: `/host:/path[:ro]`", short="v", metavar="HOST:PATH")
    ] = ()
    tmpfs: Annotated[tuple[str, ...], Flag("An empty file system in memory", metavar="PATH")] = ()
    workdir: Annotated[str, Flag("Working directory", short="w", metavar="PATH")] = ""
    user: Annotated[str | None, Flag("User and group, by name or number", short="u", metavar="USER[:GROUP]")] = None
    network: Annotated[Network, Flag("`host` or `none`", name="network")] = "host"
    hostname: Annotated[str, Flag("Host name", short="h", metavar="NAME")] = DEFAULT_HOSTNAME
    add_host: Annotated[tuple[str, ...], Flag("A line for /etc/hosts", metavar="NAME:ADDRESS")] = ()
    read_only: Annotated[bool, Flag("Mount the image read-only")] = False
    cap_add: Annotated[tuple[str, ...], Flag("Capability to add", metavar="NAME")] = ()
    cap_drop: Annotated[tuple[str, ...], Flag("Capability to take away, or `ALL`", metavar="NAME")] = ()
    security_opt: Annotated[tuple[str, ...], Flag("`no-new-privileges`", metavar="OPTION")] = ()
    ulimit: Annotated[tuple[str, ...], Flag("Limit such as `nofile=1024:2048`", metavar="NAME=SOFT[:HARD]")] = ()
    stop_timeout: Annotated[int, Flag("Seconds between asking to end and killing", metavar="SECONDS")] = 10
    rm: Annotated[bool, Flag("Accepted for docker's sake: nothing is ever kept", hidden=True)] = True
    platform: Annotated[str | None, Flag("Platform of the image", metavar="OS/ARCH", setting="platform")] = None
    bases: Annotated[str | None, Flag("Where an image comes from that is not here", setting="bases")] = None


class RunResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    code: int

    def exit_status(self) -> int:
        return self.code


def run(options: Run, world: World) -> RunResult:
    """Runs the command to its end on the caller's streams.

    Raises `run.*` for options that cannot be used and for a command that cannot be started (exit status 126 or 127),
    `build.no-base` for an image that is nowhere, `sandbox.*`.
    """
    from aerogel.runtime import container
    from aerogel.solve.materials import Materials

    wanted = _container_options(options, world)
    materials = Materials(world.store, world.helper, 0)
    layers, config, platform = _image(options.image, world, materials)
    wanted = msgspec.structs.replace(wanted, emulated=Emulator().prepare(world.helper, platform))
    end = container.run(world.helper(), materials.directories(layers), config, wanted, stdio=world.streams)
    if end.fault is not None:
        end.fault.exit_status = end.code
        raise end.fault
    if end.oom:
        world.sink.emit(Warned(Diagnostic("the kernel ran out of memory and killed the command", code="run.memory")))
    return RunResult(code=end.code)


def _image(name: str, world: World, materials: Materials) -> tuple[tuple[Digest, ...], ContainerConfig, str]:
    """Layers, config and platform of an image: from the store by name or id, else a built-in base."""
    from aerogel.oci.image import load
    from aerogel.oci.platform import Platform

    platform = Platform.parse(world.settings.platform or str(Platform.host()))
    record = world.store.images.find(name)
    if record is not None:
        image = load(record.descriptor, world.store.blobs, platform)
        for layer in image.layers():
            materials.adopt(layer.diff_id, layer.descriptor)
        return image.config.rootfs.diff_ids, image.config.config, str(image.config.platform.normal())
    from aerogel.commands.bases import Bases
    from aerogel.graph.stages import ImageRef

    typed = Source("command line", name.encode("utf-8", "surrogateescape"))
    span = Span(typed, 0, len(typed.data))
    try:
        bases = Bases(world, materials, {}, pull=False)
        bases.is_quiet = True
        found = bases.resolve(ImageRef(name), str(platform), span)
    except AerogelError as error:
        if error.code == "build.no-base" and (guess := nearest_name(world.store, name)):
            error.hints = (f"did you mean `{guess}`?",)
        raise
    return tuple(Digest(one) for one in found.diff_ids), found.config.config, str(found.config.platform.normal())


def _container_options(options: Run, world: World) -> ContainerOptions:
    if options.tty and options.interactive and not os.isatty(world.streams.stdin):
        raise _fault("standard input is not a terminal, so `-it` cannot be", "run.no-terminal", "leave out `-t`")
    unknown = [one for one in options.security_opt if one.split("=")[0].split(":")[0] != "no-new-privileges"]
    if unknown:
        raise _fault(f"security option `{unknown[0]}` is not known", "run.security-opt", "`no-new-privileges` is")
    environment = world.settings.environment
    given = [*_env_files(options, world.settings.directory), *options.env]
    pairs = [pair for text in given if (pair := parse_env(text, environment.get)) is not None]
    return ContainerOptions(
        arguments=options.arguments,
        entrypoint=options.entrypoint,
        env=tuple(dict(pairs).items()),
        workdir=options.workdir,
        user=options.user,
        volumes=options.volume,
        mounts=tuple(Mount(kind="tmpfs", target=one.partition(":")[0]) for one in options.tmpfs),
        network=options.network,
        hostname=options.hostname,
        hosts=tuple(map(_host, options.add_host)),
        tty=options.tty,
        interactive=options.interactive,
        readonly=options.read_only,
        no_new_privileges=any("false" not in one for one in options.security_opt),
        cap_add=options.cap_add,
        cap_drop=options.cap_drop,
        limits=tuple(map(_limit, options.ulimit)),
        grace_s=options.stop_timeout,
    )


def _env_files(options: Run, directory: Path) -> list[str]:
    found: list[str] = []
    for name in options.env_file:
        try:
            text = (directory / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise _fault(f"`{name}` cannot be read: {str(why).lower()}", "run.env-file") from None
        found += [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    return found


def _host(text: str) -> tuple[str, str]:
    name, sign, address = text.replace("=", ":", 1).partition(":")
    if not (name and sign and address):
        raise _fault(f"`{text}` is not a host and its address", "run.add-host", "write `NAME:ADDRESS`")
    return name, address


def _limit(text: str) -> Limit:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return Limit(name.lower(), int(soft), int(hard or soft))
    except ValueError:
        hint = "write `NAME=SOFT` or `NAME=SOFT:HARD`, for example `nofile=1024:2048`"
        raise _fault(f"`{text}` is not a limit", "run.ulimit", hint) from None


def _fault(message: str, code: str, *hints: str) -> AerogelError:
    return AerogelError(message, code=code, hints=hints, exit_status=EXIT_USAGE)
