"""`aerogel volume ls`: the volumes of this user, as docker lists them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.format import table_or_template
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.volumes import volumes_of
from aerogel.commands.world import World
from aerogel.errors import nearest
from aerogel.flag import Flag
from aerogel.runtime.volumes import users_of

__all__ = ["EXAMPLES", "VolumeLine", "VolumeLs", "VolumeLsResult", "run", "text"]

EXAMPLES = (("those that no container has", "aerogel volume ls -f dangling=true"),)
_FILTERS = ("name", "label", "dangling", "driver")


class VolumeLs(Struct, frozen=True, kw_only=True):
    """List volumes."""

    filter: Annotated[
        tuple[str, ...],
        Flag(f"Only those that fit: {', '.join(f'`{one}=`' for one in _FILTERS)}", short="f", metavar="KEY=VALUE"),
    ] = ()
    format: Annotated[str, Flag("`table`, `json` or a template such as `{{.Name}}`", metavar="TEMPLATE")] = ""
    quiet: Annotated[bool, Flag("Show only names", short="q")] = False


class VolumeLine(Struct, frozen=True, kw_only=True):
    name: str
    created: float
    """Seconds since 1970."""
    labels: dict[str, str]
    mountpoint: str
    """Where its files are on this host."""
    containers: tuple[str, ...]
    """The ids of those that have it."""


class VolumeLsResult(Result, frozen=True, kw_only=True):
    volumes: tuple[VolumeLine, ...]


def run(options: VolumeLs, world: World) -> VolumeLsResult:
    """Reads the folder of volumes. Raises `volume.filter`."""
    filters = [_filter(text) for text in options.filter]
    volumes, containers = volumes_of(world), containers_of(world).list()
    lines = [
        VolumeLine(
            name=each.name,
            created=each.created,
            labels=each.labels,
            mountpoint=volumes.data_of(each.name),
            containers=tuple(users_of(each.name, containers)),
        )
        for each in volumes.list()
    ]
    return VolumeLsResult(volumes=tuple(line for line in lines if all(_fits(line, *each) for each in filters)))


def _filter(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if key not in _FILTERS or not value:
        guess = nearest(key, _FILTERS)
        known = ", ".join(f"`{one}=`" for one in _FILTERS)
        hint = f"did you mean `{guess}`?" if guess and guess != key else f"filters are {known}"
        raise fault(f"filter `{text}` is not known", "volume.filter", hint)
    if key == "dangling" and value.lower() not in ("true", "1", "false", "0"):
        raise fault(f"filter `{text}` is neither true nor false", "volume.filter", "write `dangling=true`")
    return key, value


def _fits(line: VolumeLine, key: str, value: str) -> bool:
    match key:
        case "name":
            return value in line.name
        case "label":
            name, sign, wanted = value.partition("=")
            return name in line.labels and (not sign or line.labels[name] == wanted)
        case "dangling":
            return (not line.containers) == (value.lower() in ("true", "1"))
    return value == "local"


def text(options: VolumeLs, result: VolumeLsResult) -> str:
    rows = [
        {
            "Driver": "local",
            "Name": line.name,
            "Labels": ",".join(f"{key}={value}" for key, value in line.labels.items()),
            "Mountpoint": line.mountpoint,
            "Scope": "local",
            "Links": str(len(line.containers)),
            "Size": "N/A",
        }
        for line in result.volumes
    ]
    fields = [("Driver", "DRIVER"), ("Name", "VOLUME NAME")]
    return table_or_template(options.format, fields, rows, quiet_field="Name" if options.quiet else "")
