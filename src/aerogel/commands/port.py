"""`aerogel port`: which ports of the host lead to those of a container."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Port", "PortLine", "PortResult", "run", "text"]

EXAMPLES = (("where port 80 of a container is", "aerogel port web 80"),)


class Port(Struct, frozen=True, kw_only=True):
    """List which ports of the host lead to those of a container."""

    container: Annotated[str, Flag("Name or id of a container", positional=True, metavar="CONTAINER")]
    port: Annotated[str, Flag("Only this port of the container", positional=True, metavar="PORT[/udp]")] = ""


class PortLine(Struct, frozen=True, kw_only=True):
    inside: str
    """`80/tcp`."""
    host: str
    """`0.0.0.0:8080`."""


class PortResult(Result, frozen=True, kw_only=True):
    ports: tuple[PortLine, ...]


def run(options: Port, world: World) -> PortResult:
    """Raises `container.not-found`, `port.bad-value`, `port.not-published`."""
    seen = containers_of(world).find(options.container)
    number, _, protocol = options.port.partition("/")
    if options.port and not (number.isascii() and number.isdecimal() and protocol in ("", "tcp", "udp")):
        raise fault(f"`{options.port}` is no port", "port.bad-value", "write `80` or `53/udp`")
    wanted = f"{number}/{protocol or 'tcp'}" if options.port else ""
    found = [
        PortLine(inside=f"{each.inside}/{each.protocol}", host=f"{_shown(each.address)}:{each.host}")
        for each in seen.container.ports
        if wanted in ("", f"{each.inside}/{each.protocol}")
    ]
    if wanted and not found:
        raise AerogelError(
            f"no port of the host leads to `{wanted}` of container `{options.container}`",
            code="port.not-published",
            hints=["start it with `-p HOST:PORT`", f"`aerogel port {options.container}` lists those that there are"],
        )
    return PortResult(ports=tuple(found))


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address or "0.0.0.0"


def text(options: Port, result: PortResult) -> str:
    return "\n".join(each.host if options.port else f"{each.inside} -> {each.host}" for each in result.ports)
