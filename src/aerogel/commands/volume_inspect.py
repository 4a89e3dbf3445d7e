"""`aerogel volume inspect`: everything about volumes, as the JSON array that docker prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from aerogel.commands.format import expand_template
from aerogel.commands.result import Result
from aerogel.commands.volumes import volumes_of
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.volumes import Volume, Volumes

__all__ = ["EXAMPLES", "VolumeInspect", "VolumeInspectResult", "described", "run", "text"]

EXAMPLES = (("where the files of one are", "aerogel volume inspect -f '{{.Mountpoint}}' db"),)


class VolumeInspect(Struct, frozen=True, kw_only=True):
    """Show everything about volumes as JSON."""

    names: Annotated[tuple[str, ...], Flag("Names of volumes", positional=True, metavar="VOLUME")]
    format: Annotated[str, Flag("Print by a template such as `{{.Mountpoint}}`", short="f", metavar="TEMPLATE")] = ""


class VolumeInspectResult(Result, frozen=True, kw_only=True):
    volumes: tuple[dict[str, Any], ...]
    """With docker's keys."""


def run(options: VolumeInspect, world: World) -> VolumeInspectResult:
    """Raises `volume.not-found`."""
    volumes = volumes_of(world)
    return VolumeInspectResult(volumes=tuple(described(volumes.find(name), volumes) for name in options.names))


def described(volume: Volume, volumes: Volumes) -> dict[str, Any]:
    """A volume with docker's keys."""
    return {
        "CreatedAt": datetime.fromtimestamp(volume.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Driver": "local",
        "Labels": volume.labels or None,
        "Mountpoint": volumes.data_of(volume.name),
        "Name": volume.name,
        "Options": None,
        "Scope": "local",
    }


def text(options: VolumeInspect, result: VolumeInspectResult) -> str:
    if not options.format:
        return msgspec.json.format(msgspec.json.encode(result.volumes), indent=4).decode()
    if options.format == "json":
        return msgspec.json.encode(result.volumes).decode()
    return "\n".join(expand_template(options.format, one) for one in result.volumes)
