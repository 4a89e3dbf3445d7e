"""Which proxy serves an address, and addresses without their secrets.

Pure: the proxy settings are passed in, as the environment variables spell them (`http`, `https`, `all`, `no`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

__all__ = ["is_loopback", "proxy_for", "redact"]

_OPEN_PARAMETERS = frozenset({"scope", "service", "n", "last", "mount", "from", "digest", "artifactType", "ns"})


def redact(url: str) -> str:
    """The URL with `***` for a user and password, and for every query value that is not known to be harmless."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return re.sub(r"//[^/@]*@", "//***@", url)
    netloc = parts.netloc
    if "@" in netloc:
        netloc = "***@" + netloc.rpartition("@")[2]
    query = parts.query
    if query:
        query = "&".join(_redact_parameter(parameter) for parameter in query.split("&"))
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def _redact_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return parameter if not equals or name in _OPEN_PARAMETERS else f"{name}=***"


def proxy_for(url: str, proxies: Mapping[str, str]) -> str:
    """The proxy's URL, or empty for a direct connection.

    Loop-back addresses are never proxied. The exceptions are what curl and Go take: `*`, host names (which count
    for their subdomains too, with or without a leading dot), addresses, CIDR blocks, each with an optional port.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or is_loopback(host):
        return ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for exception in proxies.get("no", "").replace(",", " ").split():
        if _covers(exception.lower(), host, port):
            return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _covers(exception: str, host: str, port: int) -> bool:
    if exception == "*":
        return True
    if "/" in exception:
        return _in_block(exception, host)
    name, colon, wanted = exception.rpartition(":")
    if colon and wanted.isdigit() and ":" not in name.strip("[]"):
        if int(wanted) != port:
            return False
        exception = name
    exception = exception.removeprefix("*").lstrip(".").strip("[]")
    return bool(exception) and (host == exception or host.endswith("." + exception))


def _in_block(block: str, host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own; `127.example.org` is a name of another one."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
