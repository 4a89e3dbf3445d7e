"""`aerogel ps`: the containers of this user, as docker lists them."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.format import age, table_or_template
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.world import World
from aerogel.errors import nearest
from aerogel.flag import Flag
from aerogel.runtime.containers import Container, Seen

__all__ = ["EXAMPLES", "Line", "Ps", "PsResult", "run", "state_word", "status_text", "text"]

EXAMPLES = (
    ("those that have ended as well", "aerogel ps -a"),
    ("only names and how they are", "aerogel ps --format '{{.Names}}: {{.Status}}'"),
)
_FILTERS = ("id", "name", "status", "label", "ancestor", "health", "exited", "volume")


class Ps(Struct, frozen=True, kw_only=True):
    """List containers."""

    all: Annotated[bool, Flag("Those that have ended as well", short="a")] = False
    filter: Annotated[
        tuple[str, ...],
        Flag(f"Only those that fit: {', '.join(f'`{one}=`' for one in _FILTERS)}", short="f", metavar="KEY=VALUE"),
    ] = ()
    format: Annotated[str, Flag("`table`, `json` or a template such as `{{.Names}}`", metavar="TEMPLATE")] = ""
    last: Annotated[int, Flag("Only the newest N, those that have ended as well", short="n", metavar="N")] = -1
    latest: Annotated[bool, Flag("Only the newest", short="l")] = False
    no_trunc: Annotated[bool, Flag("Show whole ids and commands")] = False
    quiet: Annotated[bool, Flag("Show only ids", short="q")] = False


class Line(Struct, frozen=True, kw_only=True):
    """One container. Times are seconds since 1970, 0 when it was not."""

    id: str
    name: str
    image: str
    command: tuple[str, ...]
    status: str
    """`created`, `running`, `paused`, `restarting` or `exited`."""
    status_text: str
    health: str
    code: int
    error: str
    created: float
    started: float
    finished: float
    pid: int
    ports: tuple[str, ...]
    mounts: tuple[str, ...]
    """Volumes by name, folders of the host by path."""
    targets: tuple[str, ...]
    """Where these are in the container."""
    networks: str
    labels: dict[str, str]


class PsResult(Result, frozen=True, kw_only=True):
    containers: tuple[Line, ...]


def run(options: Ps, world: World) -> PsResult:
    """Reads the folder of containers. Raises `ps.filter`."""
    filters = [_filter(text) for text in options.filter]
    count = 1 if options.latest else options.last
    wants_all = options.all or count >= 0 or any(key in ("status", "exited") for key, _ in filters)
    found = [_line(seen, world.clock()) for seen in containers_of(world).list() if wants_all or seen.is_running]
    found = [line for line in found if all(_fits(line, key, value) for key, value in filters)]
    return PsResult(containers=tuple(found[:count] if count >= 0 else found))


def _filter(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if key not in _FILTERS or not value:
        guess = nearest(key, _FILTERS)
        known = ", ".join(f"`{one}=`" for one in _FILTERS)
        hint = f"did you mean `{guess}`?" if guess and guess != key else f"filters are {known}"
        raise fault(f"filter `{text}` is not known", "ps.filter", hint)
    return key, value


def _fits(line: Line, key: str, value: str) -> bool:
    match key:
        case "id":
            return line.id.startswith(value)
        case "name":
            return value in line.name
        case "label":
            name, sign, wanted = value.partition("=")
            return name in line.labels and (not sign or line.labels[name] == wanted)
        case "ancestor":
            return value in (line.image, line.image.removesuffix(":latest"))
        case "health":
            return value == (line.health or "none")
        case "volume":
            return value in line.mounts or value in line.targets
        case "exited":
            return line.status == "exited" and value == str(line.code)
    return value == line.status


def _line(seen: Seen, now: float) -> Line:
    container, state = seen.container, seen.state
    return Line(
        id=container.id,
        name=container.name,
        image=container.image,
        command=container.sandbox.argv,
        status=state_word(seen),
        status_text=status_text(seen, now),
        health=state.health if seen.is_running else "",
        code=state.code,
        error=state.error,
        created=container.created,
        started=state.started,
        finished=state.finished,
        pid=state.pid,
        ports=_ports(container),
        mounts=tuple(
            next((use.name for use in container.volumes if use.target == mount.target), mount.source)
            for mount in container.sandbox.mounts
            if mount.kind == "bind"
        ),
        targets=tuple(mount.target for mount in container.sandbox.mounts if mount.kind == "bind"),
        networks=container.sandbox.network,
        labels=container.labels,
    )


def state_word(seen: Seen) -> str:
    """`created`, `running`, `paused`, `restarting` or `exited`."""
    if seen.is_running:
        return "restarting" if seen.state.finished else "paused" if seen.state.is_paused else "running"
    return seen.state.status


def _ports(container: Container) -> tuple[str, ...]:
    published = [port.text() for port in container.ports]
    led = {f"{port.inside}/{port.protocol}" for port in container.ports}
    exposed = [port for port in container.config.get("ExposedPorts") or () if port not in led]
    return (*published, *exposed)


def status_text(seen: Seen, now: float) -> str:
    """`Up 5 minutes (healthy)` or `Exited (1) 2 hours ago`, as docker words it."""
    state = seen.state
    if state.status == "running":
        since = age(now - state.started).removesuffix(" ago")
        health = {"": "", "starting": " (health: starting)"}.get(state.health, f" ({state.health})")
        health = " (Paused)" if state.is_paused else health
        return f"Restarting ({state.code}) {since} ago" if state.finished else f"Up {since}{health}"
    if state.status == "exited":
        return f"Exited ({state.code}) {age(now - state.finished)}"
    return "Created"


def text(options: Ps, result: PsResult) -> str:
    rows = [_row(line, whole=options.no_trunc) for line in result.containers]
    fields = [("ID", "CONTAINER ID"), ("Image", "IMAGE"), ("Command", "COMMAND"), ("RunningFor", "CREATED")]
    fields += [("Status", "STATUS"), ("Ports", "PORTS"), ("Names", "NAMES")]
    return table_or_template(options.format, fields, rows, quiet_field="ID" if options.quiet else "")


def _row(line: Line, *, whole: bool) -> dict[str, str]:
    """The keys that docker's templates know."""
    # what a container is called must not reach the terminal as codes
    command = "".join(each if each.isprintable() else "?" for each in shlex.join(line.command))
    if not whole and len(command) > 20:
        command = command[:19] + "…"
    now = datetime.now(UTC).timestamp()
    return {
        "ID": line.id if whole else line.id[:12],
        "Image": line.image,
        "Command": f'"{command}"',
        "CreatedAt": datetime.fromtimestamp(line.created, UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
        "RunningFor": age(now - line.created),
        "Status": line.status_text,
        "State": line.status,
        "Health": line.health,
        "Ports": ", ".join(line.ports),
        "Names": line.name,
        "Labels": ",".join(f"{key}={value}" for key, value in line.labels.items()),
        "Size": "N/A",
        "LocalVolumes": str(sum(not each.startswith("/") for each in line.mounts)),
        "Mounts": ",".join(line.mounts),
        "Networks": line.networks,
    }
