"""`aerogel run`: an image's command in a container, in the foreground or, with `-d`, in the background."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Struct

from aerogel.commands.attach import DETACH, parse_keys, start_attached
from aerogel.commands.detaching import containers_of, remove, start, with_upper
from aerogel.commands.health import parse_check, parse_restart
from aerogel.commands.lending import parse_cpus, parse_hosts, parse_limits, parse_memory, parse_size
from aerogel.commands.lookup import find_image
from aerogel.commands.publishing import network_for, parse_expose, parse_ports
from aerogel.commands.result import Result
from aerogel.commands.run_flags import (
    ABSENT,
    Wish,
    check_hostname,
    check_name,
    fault,
    parse_labels,
    parse_mount,
    parse_tmpfs,
    read_env_files,
    resolver_mount,
)
from aerogel.commands.volumes import (
    from_others,
    lend,
    lending,
    parse_wish,
    refuse_doubles,
    volumes_of,
    wishes_of_image,
)
from aerogel.commands.world import World
from aerogel.errors import AerogelError, Diagnostic
from aerogel.events import Warned
from aerogel.flag import Flag
from aerogel.oci.digest import Digest
from aerogel.oci.types import ContainerConfig
from aerogel.runtime.container import ContainerOptions, attend, parse_env, sandbox_for, stop_signal
from aerogel.runtime.containers import Container, Seen, alive
from aerogel.runtime.serving import Server
from aerogel.runtime.terminal import window_of
from aerogel.sandbox.cgroup import Resources, make_group
from aerogel.sandbox.emulator import Emulator
from aerogel.sandbox.spec import DEFAULT_HOSTNAME, Forward, Mount, Sandbox, unheld

if TYPE_CHECKING:
    from aerogel.solve.materials import Materials
    from aerogel.store.images import ImageRecord

__all__ = ["ABSENT", "EXAMPLES", "Run", "RunResult", "found_image", "run"]

EXAMPLES = (
    ("the image's own command with arguments", "aerogel run calculator 6 '*' 7"),
    ("a server in the background", "aerogel run -d --name web --restart on-failure:3 server"),
    ("kept when it ends, and left with Ctrl-P Ctrl-Q", "aerogel run -it --rm=false --name box debian bash"),
    ("a shell, with this folder in it", 'aerogel run -it -v "$PWD:/work" -w /work debian bash'),
)


class Run(Struct, frozen=True, kw_only=True):
    """Run a command in an image.

    The exit status is the command's; 126 and 127 when it cannot be started. In the foreground nothing is kept of the
    container when it has ended, unless `--rm=false` is given.
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
        tuple[str, ...],
        Flag(
            "Folder or file of this host, or a volume: `/host:/path[:ro]`, `name:/path`; `/path`: a new volume",
            short="v",
            metavar="[HOST|NAME:]PATH",
        ),
    ] = ()
    volumes_from: Annotated[
        tuple[str, ...], Flag("The volumes and lent folders of another container", metavar="CONTAINER[:ro]")
    ] = ()
    mount: Annotated[
        tuple[str, ...],
        Flag(
            "`type=bind,src=/host,dst=/path[,readonly]`, `type=volume,src=name,dst=/path` or `type=tmpfs,dst=/path[,tmpfs-size=64m]`",
            metavar="MOUNT",
        ),
    ] = ()
    tmpfs: Annotated[tuple[str, ...], Flag("An empty file system in memory", metavar="PATH[:OPTION,...]")] = ()
    shm_size: Annotated[str, Flag("Size of /dev/shm", metavar="SIZE")] = "64m"
    workdir: Annotated[str, Flag("Working directory", short="w", metavar="PATH")] = ""
    user: Annotated[str | None, Flag("User and group, by name or number", short="u", metavar="USER[:GROUP]")] = None
    group_add: Annotated[tuple[str, ...], Flag("One more group, by name or number", metavar="GROUP")] = ()
    network: Annotated[
        Literal["", "host", "none", "sandbox", "bridge"],
        Flag(
            "`host`, `none` or `sandbox`: one of its own, through pasta or slirp4netns; default: `host`, with `-p` `sandbox`",
            name="network",
            metavar="host|none|sandbox",
        ),
    ] = ""
    publish: Annotated[
        tuple[str, ...],
        Flag("Port of the host that leads to one of the container", short="p", metavar="[[ADDRESS:]HOST:]PORT[/udp]"),
    ] = ()
    expose: Annotated[
        tuple[str, ...], Flag("Port that the command serves, as EXPOSE says it; for `-P`", metavar="PORT[/udp]")
    ] = ()
    publish_all: Annotated[bool, Flag("A free port of the host for each of EXPOSE", short="P")] = False
    hostname: Annotated[str, Flag("Host name", short="h", metavar="NAME")] = DEFAULT_HOSTNAME
    add_host: Annotated[tuple[str, ...], Flag("A line for /etc/hosts", metavar="NAME:ADDRESS")] = ()
    dns: Annotated[tuple[str, ...], Flag("Name server instead of the host's", metavar="ADDRESS")] = ()
    dns_search: Annotated[tuple[str, ...], Flag("Search domain instead of the host's", metavar="DOMAIN")] = ()
    dns_option: Annotated[tuple[str, ...], Flag("Option of the resolver", metavar="OPTION")] = ()
    read_only: Annotated[bool, Flag("Mount the image read-only")] = False
    cap_add: Annotated[tuple[str, ...], Flag("Capability to add", metavar="NAME")] = ()
    cap_drop: Annotated[tuple[str, ...], Flag("Capability to take away, or `ALL`", metavar="NAME")] = ()
    security_opt: Annotated[tuple[str, ...], Flag("`no-new-privileges`", metavar="OPTION")] = ()
    ulimit: Annotated[tuple[str, ...], Flag("Limit such as `nofile=1024:2048`", metavar="NAME=SOFT[:HARD]")] = ()
    memory: Annotated[
        str, Flag("Most memory; needs a control group of one's own", short="m", metavar="SIZE", group="Limits")
    ] = ""
    cpus: Annotated[str, Flag("Most processors, such as `1.5`", metavar="NUMBER", group="Limits")] = ""
    pids_limit: Annotated[int, Flag("Most processes and threads", metavar="N", group="Limits")] = 0
    stop_signal: Annotated[
        str, Flag("What the command gets when `aerogel run` gets SIGTERM; default: the image's", metavar="SIGNAL")
    ] = ""
    stop_timeout: Annotated[int, Flag("Seconds between asking to end and killing", metavar="SECONDS")] = 10
    detach: Annotated[bool, Flag("Run in the background, and print the id of the container", short="d")] = False
    name: Annotated[str, Flag("Name of the container; default: one is made up", metavar="NAME")] = ""
    label: Annotated[tuple[str, ...], Flag("Label of the container", short="l", metavar="KEY[=VALUE]")] = ()
    label_file: Annotated[
        tuple[str, ...], Flag("File with a `KEY=VALUE` on each line", metavar="FILE", complete="file")
    ] = ()
    cidfile: Annotated[str, Flag("Write the id of the container to this file", metavar="FILE", complete="file")] = ""
    restart: Annotated[
        str,
        Flag("With `-d`, when it is started again: `no`, `on-failure[:N]`, `always`, `unless-stopped`", metavar="WHEN"),
    ] = "no"
    health_cmd: Annotated[str, Flag("Line of the shell that ends with 0 when all is well", metavar="COMMAND")] = ""
    health_interval: Annotated[str, Flag("Time between checks, such as `30s`", metavar="TIME")] = ""
    health_timeout: Annotated[str, Flag("Time that a check may take", metavar="TIME")] = ""
    health_start_period: Annotated[str, Flag("Time in which failures do not count", metavar="TIME")] = ""
    health_start_interval: Annotated[str, Flag("Time between checks in the start period", metavar="TIME")] = ""
    health_retries: Annotated[int, Flag("Failures in a row that make it unhealthy; default: 3", metavar="N")] = 0
    no_healthcheck: Annotated[bool, Flag("Do not check, whatever the image says")] = False
    init: Annotated[bool, Flag("Accepted for docker's sake: a process that reaps is always there")] = True
    rm: Annotated[
        bool | None,
        Flag("Remove the container when it ends; default: in the foreground, and not with `-d`"),
    ] = None
    detach_keys: Annotated[
        str | None,
        Flag(
            "Keys that leave the command running in the background; default: with `--rm=false` Ctrl-P Ctrl-Q",
            metavar="KEYS",
        ),
    ] = None
    pull: Annotated[
        Literal["always", "missing", "never"],
        Flag("When an image is composed or fetched: `always`, `missing`, `never`"),
    ] = "missing"
    quiet: Annotated[bool, Flag("Show no progress", short="q")] = False
    platform: Annotated[str | None, Flag("Platform of the image", metavar="OS/ARCH", setting="platform")] = None
    bases: Annotated[str | None, Flag("Where an image comes from that is not here", setting="bases")] = None


class RunResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    code: int = 0
    id: str = ""
    """Of a container in the background."""

    def text(self) -> str:
        return self.id

    def exit_status(self) -> int:
        return self.code


def run(options: Run, world: World) -> RunResult:
    """Runs the command to its end on the caller's streams.

    Raises `run.*` for options that cannot be used and for a command that cannot be started (exit status 126 or 127),
    `build.no-base` for an image that is nowhere, `sandbox.*`.
    """
    from aerogel.solve.materials import Materials

    wanted = _container_options(options, world)
    keys = parse_keys(DETACH if options.detach_keys is None else options.detach_keys)
    stays = _stays(options)
    restart, restarts = parse_restart(options)
    resources = _resources(options, world)
    materials = Materials(world.store, world.helper)
    layers, config, platform = found_image(options.image, world, materials, options.pull)
    wanted = msgspec.structs.replace(wanted, emulated=Emulator().prepare(world.helper, platform))
    exposed = (*config.exposed_ports, *parse_expose(options.expose))
    ports = _ports(options, wanted, exposed, world)
    check = parse_check(options, config)
    labels = {**config.labels, **parse_labels(options.label, options.label_file, world.settings.directory)}
    directories = materials.directories(layers)
    sandbox = sandbox_for(directories, config, wanted)
    window = window_of(world.streams.stdout) if options.tty and not options.detach else sandbox.window
    _check_rung(sandbox, world)
    sandbox = msgspec.structs.replace(sandbox, joinable=True, ports=ports, more_groups=options.group_add, window=window)

    def make(container_id: str, name: str, folder: str) -> Container:
        made = Container(
            id=container_id,
            name=name,
            image=options.image,
            created=world.clock(),
            sandbox=msgspec.structs.replace(sandbox, mounts=(*sandbox.mounts, *more, *lent)),
            rung=world.helper().rung.name,
            stop_signal=stop_signal(config, wanted),
            grace_s=wanted.grace_s,
            keeps_input=options.interactive,
            is_removed=not options.detach if options.rm is None else options.rm,
            is_detached=options.detach or stays,
            is_input_once=stays and options.interactive,
            restart=restart,
            restarts=restarts,
            ports=ports,
            labels=labels,
            check=check,
            volumes=uses,
            resources=resources,
            platform=platform,
            config=_shown_config(config, sandbox, options, exposed),
        )
        return with_upper(made, folder)

    with lending(world):
        wishes, more = _volumes(options, wanted, config, world)
        uses, lent = lend(wishes, directories, world)
        seen = containers_of(world).create(make, options.name)
    if not seen.container.is_removed:
        volumes_of(world).keep(use.name for use in uses if use.is_own)
    return _begin(seen, options, keys, world)


def _check_rung(sandbox: Sandbox, world: World) -> None:
    """Warns of what is asked for and does not hold where nothing can be mounted."""
    remark = unheld(sandbox, world.helper().rung)
    if remark is not None:
        world.sink.emit(Warned(remark))


def _begin(seen: Seen, options: Run, keys: bytes, world: World) -> RunResult:
    """Starts the new container, and follows it unless it is for the background."""
    if options.cidfile:
        _write_id(options.cidfile, seen, world)
    if options.detach:
        start(seen, world)
        return RunResult(id=seen.container.id)
    if not _stays(options):
        return RunResult(code=_in_foreground(seen, world))
    code = start_attached(seen, world, keys=keys if options.tty else b"", passes_input=options.interactive)
    return RunResult(code=code)


def _stays(options: Run) -> bool:
    """Whether a container in the foreground may outlive its `aerogel run`."""
    return not options.detach and (options.rm is False or options.detach_keys is not None)


def _in_foreground(seen: Seen, world: World) -> int:
    """Runs the container's command to its end on the caller's streams; nothing is left of it then."""
    container, helper = seen.container, world.helper()
    containers = containers_of(world)
    try:
        with alive(seen.folder), Server(helper, containers, seen) as server:
            end = attend(
                helper,
                container.sandbox,
                container.stop_signal,
                container.grace_s,
                interactive=container.keeps_input,
                stdio=world.streams,
                follower=server,
                resources=container.resources,
            )
    finally:
        remove(seen, world, volumes=True)
    if end.fault is not None:
        end.fault.exit_status = end.code
        raise end.fault
    if end.oom:
        world.sink.emit(Warned(Diagnostic("the kernel ran out of memory and killed the command", code="run.memory")))
    return end.code


def _resources(options: Run, world: World) -> Resources:
    """What the command may use at most; a warning, and no limits, where no control group can be made."""
    asked = Resources(parse_memory(options.memory), parse_cpus(options.cpus), max(0, options.pids_limit))
    if asked.controllers:
        try:
            make_group(asked).close()
        except AerogelError as error:
            world.sink.emit(Warned(Diagnostic(error.message, code=error.code, hints=error.hints)))
            return Resources()
    return asked


def _ports(options: Run, wanted: ContainerOptions, exposed: tuple[str, ...], world: World) -> tuple[Forward, ...]:
    """The ports to publish; a warning where that does nothing. Raises `run.publish`."""
    ports = parse_ports(options.publish, exposed if options.publish_all else ())
    if ports and wanted.network != "sandbox":
        message = f"with `--network {wanted.network}` no port is published: "
        message += "its ports are the host's" if wanted.network == "host" else "nothing leads to it"
        world.sink.emit(Warned(Diagnostic(message, code="run.unpublished")))
        return ()
    return ports


def _volumes(
    options: Run, wanted: ContainerOptions, config: ContainerConfig, world: World
) -> tuple[list[Wish], list[Mount]]:
    """The volumes that are asked for, the image's too, and what other containers have. Raises `run.*`, `volume.name`."""
    named = [wish for text in options.volume if (wish := parse_wish(text)) is not None]
    asked = [parse_mount(one, world.settings.directory) for one in options.mount]
    named += [one for one in asked if isinstance(one, Wish)]
    lent = [text.split(":")[1] for text in wanted.volumes if text.count(":")]
    # /etc/resolv.conf of `--dns` is among these
    targets = [wish.target for wish in named] + lent + [mount.target for mount in wanted.mounts]
    refuse_doubles(targets)
    others, more = from_others(options.volumes_from, world)
    others = [wish for wish in others if wish.target not in targets]
    more = [mount for mount in more if mount.target not in targets]
    taken = [*targets, *(wish.target for wish in others), *(mount.target for mount in more)]
    return [*named, *others, *wishes_of_image(tuple(config.volumes), taken)], more


def _shown_config(config: ContainerConfig, sandbox: Sandbox, options: Run, exposed: tuple[str, ...]) -> dict[str, Any]:
    """What `inspect` tells of the configuration, with docker's keys."""
    entrypoint = (
        config.entrypoint if options.entrypoint is None else ((options.entrypoint,) if options.entrypoint else ())
    )
    return {
        "Entrypoint": list(entrypoint) or None,
        "Cmd": list(sandbox.argv[len(entrypoint) :]) or None,
        "ExposedPorts": {(port if "/" in port else f"{port}/tcp"): {} for port in exposed},
        "Volumes": {path: {} for path in config.volumes},
        "StopSignal": options.stop_signal or config.stop_signal or "SIGTERM",
        "StopTimeout": options.stop_timeout,
    }


def _write_id(path: str, seen: Seen, world: World) -> None:
    try:
        with open(world.settings.directory / path, "x", encoding="ascii") as file:
            file.write(seen.container.id)
    except OSError as error:
        remove(seen, world, volumes=True)
        raise fault(f"`--cidfile {path}`: {str(error.strerror).lower()}", "run.cidfile", "name a new file") from None


def found_image(
    name: str, world: World, materials: Materials, pull: str
) -> tuple[tuple[Digest, ...], ContainerConfig, str]:
    """Layers, config and platform of an image: from the store by name or id, else a built-in base or a registry's."""
    from aerogel.oci.image import load
    from aerogel.oci.platform import Platform

    platform = Platform.parse(world.settings.platform or str(Platform.host()))
    record = world.store.images.find(name, platform)
    if record is not None and record.references:
        from aerogel.commands.policy import may_use, refuse

        meant = record.references[0]
        if not may_use(world, meant, meant.digest or record.descriptor.digest):
            if pull == "never":
                refuse(world, meant, meant.digest or record.descriptor.digest)
            record = None  # the registry is asked, and whoever refuses says why
    if record is None and pull == "never":
        record = find_image(world.store, name)
    if record is not None and (pull == "never" or not record.references or (pull != "always" and _fits(record, world))):
        image = load(record.descriptor, world.store.blobs, platform)
        for layer in image.layers():
            materials.adopt(layer.diff_id, layer.descriptor)
        return image.config.rootfs.diff_ids, image.config.config, str(image.config.platform.normal())
    from aerogel.commands.taken import base_of

    found, _ = base_of(name, world, materials, pull=pull == "always", will_run=True)
    return tuple(Digest(one) for one in found.diff_ids), found.config.config, str(found.config.platform.normal())


def _fits(record: ImageRecord, world: World) -> bool:
    """Whether it is for the platform that was asked for; when none was, any will do."""
    from aerogel.oci.platform import Platform

    asked = world.settings.platform
    return not asked or any(Platform.parse(asked).matches(Platform.parse(each)) for each in record.meta.platforms)


def _container_options(options: Run, world: World) -> ContainerOptions:
    if not options.init:
        raise fault("`--init=false` cannot be", "run.always", "leave it out: `--init` always holds")
    check_name(options.name)
    check_hostname(options.hostname)
    if options.tty and options.interactive and not options.detach and not os.isatty(world.streams.stdin):
        raise fault("standard input is not a terminal, so `-it` cannot be", "run.no-terminal", "leave out `-t`")
    unknown = [one for one in options.security_opt if one.split("=")[0].split(":")[0] != "no-new-privileges"]
    if unknown:
        raise fault(f"security option `{unknown[0]}` is not known", "run.security-opt", "`no-new-privileges` is")
    environment = world.settings.environment
    here = world.settings.directory
    given = [*read_env_files(options.env_file, here), *options.env]
    pairs = [pair for text in given if (pair := parse_env(text, environment.get)) is not None]
    return ContainerOptions(
        arguments=options.arguments,
        entrypoint=options.entrypoint,
        env=tuple(dict(pairs).items()),
        workdir=options.workdir,
        user=options.user,
        volumes=tuple(
            f"{here}/{one}" if one.startswith(("./", "../", ".:")) else one
            for one in options.volume
            if parse_wish(one) is None
        ),
        mounts=(
            *(mount for one in options.mount if isinstance(mount := parse_mount(one, here), Mount)),
            *map(parse_tmpfs, options.tmpfs),
            *resolver_mount(options.dns, options.dns_search, options.dns_option, _host_resolver()),
        ),
        network=network_for(options.network, bool(options.publish or options.publish_all)),
        hostname=options.hostname,
        hosts=parse_hosts(options.add_host),
        tty=options.tty,
        interactive=options.interactive,
        readonly=options.read_only,
        no_new_privileges=any("false" not in one for one in options.security_opt),
        cap_add=options.cap_add,
        cap_drop=options.cap_drop,
        limits=parse_limits(options.ulimit),
        shm_size_bytes=parse_size(options.shm_size, "--shm-size"),
        stop_signal=options.stop_signal,
        grace_s=options.stop_timeout,
    )


def _host_resolver() -> bytes:
    try:
        return Path("/etc/resolv.conf").read_bytes()
    except OSError:
        return b""
