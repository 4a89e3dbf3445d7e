"""The ports of EXPOSE: `[ip:][host:]port[-port][/protocol]` to `port/protocol`.

Pure. An address and a host part mean nothing in an image; they are read and dropped, as BuildKit does.
"""

from __future__ import annotations

from aerogel.errors import AerogelError, Span

__all__ = ["parse_ports"]

_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_ports(text: str, span: Span) -> list[str]:
    """Every port that `text` names, as `port/protocol`. Raises `graph.bad-port`."""
    address, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise _wrong(text, span, "the protocol is one of `tcp`, `udp`, `sctp`")
    container = address.rpartition(":")[2]
    first, dash, last = container.partition("-")
    low = _port(first, text, span)
    high = _port(last, text, span) if dash else low
    if high < low:
        raise _wrong(text, span, "a range starts with the lower port")
    return [f"{port}/{protocol}" for port in range(low, high + 1)]


def _port(text: str, whole: str, span: Span) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise _wrong(whole, span, "a port is a number from 0 to 65535, as in `80`, `8000-8010` or `53/udp`")
    return int(text)


def _wrong(text: str, span: Span, hint: str) -> AerogelError:
    return AerogelError(f"`{text}` is not a port", code="graph.bad-port", span=span, hints=[hint])
