"""The options `--publish` and `--network` of `aerogel run`: which ports of the host lead to which of the container.

Spec: `docker run` reference, `-p [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]` with ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from aerogel.commands.run_flags import fault
from aerogel.sandbox.control import free_port
from aerogel.sandbox.spec import Forward, Network

__all__ = ["network_for", "parse_expose", "parse_ports"]

_FORM = re.compile(
    r"(?:(?:(?P<address>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?P<host>\d*(?:-\d+)?):)?"
    r"(?P<inside>\d+(?:-\d+)?)(?:/(?P<protocol>\w+))?"
)


def network_for(asked: str, has_ports: bool) -> Network:
    """The network of `--network`: docker's default is one of the container's own when ports lead to it, else the host's."""
    if asked == "":
        return "sandbox" if has_ports else "host"
    known: dict[str, Network] = {"host": "host", "none": "none", "sandbox": "sandbox", "bridge": "sandbox"}
    return known[asked]


def parse_ports(given: Sequence[str], exposed: Iterable[str] = ()) -> tuple[Forward, ...]:
    """The ports of `-p`, and one of the host's free ones for each of `exposed` (`80/tcp`). Raises `run.publish`."""
    found: list[Forward] = []
    for text in (*given, *exposed):
        match = _FORM.fullmatch(text)
        protocol = (match and match["protocol"]) or "tcp"
        if match is None or protocol not in ("tcp", "udp"):
            hint = "write `-p 8080:80`, `-p 127.0.0.1:8080:80/tcp` or `-p 80`"
            raise fault(f"`--publish {text}` is no port", "run.publish", hint)
        inside = _range(match["inside"], text)
        host = _range(match["host"], text) if match["host"] else []
        if host and len(host) != len(inside):
            raise fault(f"`--publish {text}`: the ranges differ in length", "run.publish", "write `-p 8000-8002:80-82`")
        address = (match["address"] or "").strip("[]")
        for at, port in enumerate(inside):
            number = host[at] if host else free_port(protocol)
            found.append(
                Forward(address=address, host=number, inside=port, protocol="udp" if protocol == "udp" else "tcp")
            )
    return tuple(found)


def parse_expose(given: Sequence[str]) -> tuple[str, ...]:
    """The ports of `--expose`, ranges spread: `80/tcp`. Raises `run.publish`."""
    found: list[str] = []
    for text in given:
        number, _, protocol = text.partition("/")
        if protocol not in ("", "tcp", "udp"):
            raise fault(f"`--expose {text}` is no port", "run.publish", "write `--expose 80` or `--expose 53/udp`")
        found += [f"{port}/{protocol or 'tcp'}" for port in _range(number, text, "--expose")]
    return tuple(found)


def _range(text: str, whole: str, flag: str = "--publish") -> list[int]:
    first, _, last = text.partition("-")
    is_number = first.isdecimal() and (not last or last.isdecimal())
    ports = list(range(int(first), int(last or first) + 1)) if is_number else []
    if not ports or not 0 < ports[0] <= ports[-1] < 65536:
        raise fault(f"`{flag} {whole}`: `{text}` is no port", "run.publish", "ports are numbers from 1 to 65535")
    return ports
