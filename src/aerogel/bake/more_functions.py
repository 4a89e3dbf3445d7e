"""Functions of bake files that need a library: encodings, digests, times, networks, versions."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import ipaddress
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from aerogel.bake.values import ValueFault, decode_json, to_number, to_text

__all__ = ["more_functions"]

Function = Callable[..., Any]

_NAMESPACES = {
    "dns": uuid.NAMESPACE_DNS,
    "url": uuid.NAMESPACE_URL,
    "oid": uuid.NAMESPACE_OID,
    "x500": uuid.NAMESPACE_X500,
}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def more_functions() -> dict[str, Function]:
    """By name."""
    return {
        **{name: _digest(name) for name in ("md5", "sha1", "sha256", "sha512")},
        "base64decode": _base64decode,
        "base64encode": lambda text: base64.b64encode(to_text(text).encode()).decode(),
        "bcrypt": _missing("bcrypt", "it would need a library for one function"),
        "byteslen": lambda text: len(to_text(text).encode()),
        "bytesslice": lambda text, start, size: (
            to_text(text).encode()[int(start) : int(start) + int(size)].decode("utf-8", "replace")
        ),
        "cidrhost": _cidrhost,
        "cidrnetmask": lambda prefix: str(_network(prefix).netmask),
        "cidrsubnet": lambda prefix, bits, at: _subnet(_network(prefix), int(bits), int(at)),
        "cidrsubnets": _cidrsubnets,
        "csvdecode": _csvdecode,
        "formatdate": _formattimestamp,
        "formattimestamp": _formattimestamp,
        "homedir": lambda: str(Path.home()),
        "jsondecode": lambda text: decode_json(to_text(text)),
        "rsadecrypt": _missing("rsadecrypt", "decrypt it outside and give it as a secret"),
        "semvercmp": _semvercmp,
        "timeadd": lambda stamp, duration: _rfc3339(_time(stamp) + timedelta(seconds=_duration(to_text(duration)))),
        "timestamp": lambda: _rfc3339(datetime.now(UTC).replace(microsecond=0)),
        "unixtimestampparse": _unixtimestampparse,
        "urlencode": _urlencode,
        "uuidv4": lambda: str(uuid.uuid4()),
        "uuidv5": _uuidv5,
    }


def _missing(name: str, why: str) -> Function:
    def function(*values: Any) -> NoReturn:
        del values
        raise ValueFault(f"`{name}` is not supported: {why}")

    return function


def _digest(name: str) -> Function:
    return lambda text: hashlib.new(name, to_text(text).encode()).hexdigest()


def _base64decode(text: Any) -> str:
    try:
        return base64.b64decode(to_text(text), validate=True).decode()
    except ValueError:
        raise ValueFault("this is not base64 of a text") from None


def _urlencode(text: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(to_text(text))


def _uuidv5(namespace: Any, name: Any) -> str:
    try:
        space = _NAMESPACES.get(to_text(namespace)) or uuid.UUID(to_text(namespace))
    except ValueError:
        raise ValueFault(f"`{namespace}` is neither a UUID nor `dns`, `url`, `oid`, `x500`") from None
    return str(uuid.uuid5(space, to_text(name)))


def _csvdecode(text: Any) -> list[dict[str, str]]:
    rows = list(csv.reader(io.StringIO(to_text(text))))
    if not rows:
        raise ValueFault("there is no line with the names")
    if any(len(row) != len(rows[0]) for row in rows):
        raise ValueFault("a line has another number of fields than the first")
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


# Networks.


def _network(prefix: Any) -> Any:
    try:
        return ipaddress.ip_network(to_text(prefix), strict=False)
    except ValueError as error:
        raise ValueFault(str(error)) from None


def _cidrhost(prefix: Any, number: Any) -> str:
    network, at = _network(prefix), int(to_number(number))
    size = network.num_addresses
    if not -size <= at < size:
        raise ValueFault(f"the network has {size} addresses, so none has the number {at}")
    return str(network.network_address + (at if at >= 0 else size + at))


def _subnet(network: Any, bits: int, at: int) -> str:
    length = network.prefixlen + bits
    if bits < 0 or length > network.max_prefixlen or not 0 <= at < 1 << bits:
        raise ValueFault(f"there is no subnet {at} with {bits} more bits in `{network}`")
    step = 1 << (network.max_prefixlen - length)
    return f"{network.network_address + at * step}/{length}"


def _cidrsubnets(prefix: Any, *bits: Any) -> list[str]:
    network = _network(prefix)
    at, found = int(network.network_address), []
    for each in bits:
        length = network.prefixlen + int(to_number(each))
        size = 1 << max(0, network.max_prefixlen - length)
        at = -(-at // size) * size
        if length > network.max_prefixlen or at + size > int(network.broadcast_address) + 1:
            raise ValueFault(f"the subnets do not fit into `{network}`")
        found.append(f"{ipaddress.ip_address(at)}/{length}")
        at += size
    return found


# Times.


def _time(stamp: Any) -> datetime:
    try:
        found = datetime.fromisoformat(to_text(stamp))
    except ValueError:
        found = datetime.min  # without a zone, as what is refused  # noqa: DTZ901
    if found.tzinfo is None:
        raise ValueFault(f"`{stamp}` is not a time such as `2026-01-02T15:04:05Z`")
    return found


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _duration(text: str) -> float:
    bare = text.lstrip("+-")
    parts = _DURATION.findall(bare)
    if "".join(number + unit for number, unit in parts) != bare or not parts:
        raise ValueFault(f"`{text}` is not a duration such as `1h30m`")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -total if text.startswith("-") else total


_FORMATS: tuple[tuple[str, Callable[[datetime], str]], ...] = (
    ("YYYY", lambda t: f"{t.year:04d}"),
    ("YY", lambda t: f"{t.year % 100:02d}"),
    ("MMMM", lambda t: t.strftime("%B")),
    ("MMM", lambda t: t.strftime("%b")),
    ("MM", lambda t: f"{t.month:02d}"),
    ("M", lambda t: str(t.month)),
    ("DD", lambda t: f"{t.day:02d}"),
    ("D", lambda t: str(t.day)),
    ("EEEE", lambda t: t.strftime("%A")),
    ("EEE", lambda t: t.strftime("%a")),
    ("hh", lambda t: f"{t.hour:02d}"),
    ("h", lambda t: str(t.hour)),
    ("HH", lambda t: f"{t.hour % 12 or 12:02d}"),
    ("H", lambda t: str(t.hour % 12 or 12)),
    ("AA", lambda t: "AM" if t.hour < 12 else "PM"),
    ("aa", lambda t: "am" if t.hour < 12 else "pm"),
    ("mm", lambda t: f"{t.minute:02d}"),
    ("m", lambda t: str(t.minute)),
    ("ss", lambda t: f"{t.second:02d}"),
    ("s", lambda t: str(t.second)),
    ("ZZZZZ", lambda t: _zone(t, ":")),
    ("ZZZZ", lambda t: _zone(t, "")),
    ("ZZZ", lambda t: "UTC" if not t.utcoffset() else _zone(t, "")),
    ("Z", lambda t: "Z" if not t.utcoffset() else _zone(t, ":")),
)


def _zone(moment: datetime, between: str) -> str:
    seconds = int((moment.utcoffset() or timedelta()).total_seconds())
    minutes = abs(seconds) // 60
    return f"{'-' if seconds < 0 else '+'}{minutes // 60:02d}{between}{minutes % 60:02d}"


def _formattimestamp(form: Any, stamp: Any) -> str:
    moment = _time(stamp) if isinstance(stamp, str) else datetime.fromtimestamp(int(to_number(stamp)), UTC)
    written = to_text(form)
    if written == "X":
        return str(int(moment.timestamp()))
    parts, at = [], 0
    while at < len(written):
        if written[at] == "'":
            end = written.find("'", at + 1)
            if end < 0:
                raise ValueFault("a quote in the form has no end")
            parts.append(written[at + 1 : end] or "'")
            at = end + 1
            continue
        run = re.match(r"([A-Za-z])\1*", written[at:])
        if run is None:
            parts.append(written[at])
            at += 1
            continue
        made = next((function for name, function in _FORMATS if name == run[0]), None)
        if made is None:
            raise ValueFault(f"`{run[0]}` is no part of a time: other letters stand in single quotes")
        parts.append(made(moment))
        at += len(run[0])
    return "".join(parts)


def _unixtimestampparse(stamp: Any) -> dict[str, Any]:
    moment = datetime.fromtimestamp(int(to_number(stamp)), UTC)
    year, week, _ = moment.isocalendar()
    return {
        "year": moment.year,
        "year_day": moment.timetuple().tm_yday,
        "day": moment.day,
        "month": moment.month,
        "month_name": moment.strftime("%B"),
        "weekday": moment.isoweekday() % 7,
        "weekday_name": moment.strftime("%A"),
        "hour": moment.hour,
        "minute": moment.minute,
        "second": moment.second,
        "rfc3339": _rfc3339(moment),
        "iso_year": year,
        "iso_week": week,
    }


# Versions.

_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
_PART = re.compile(r"\s*(=|==|!=|>=|<=|=>|=<|>|<|~>?|\^)?\s*(v?[0-9xX*][0-9A-Za-z.*+-]*)\s*,?")


def _version(text: str) -> tuple[tuple[int, int, int], tuple[tuple[int, int, str], ...]]:
    found = _VERSION.fullmatch(text)
    if found is None:
        raise ValueFault(f"`{text}` is not a version such as `1.2.3`")
    numbers = (int(found[1]), int(found[2] or 0), int(found[3] or 0))
    words = [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in (found[4] or "").split(".") if word]
    # A version without a word after `-` is newer than one with it.
    return numbers, tuple(words) or ((2, 0, ""),)


def _semvercmp(version: Any, constraint: Any) -> bool:
    """Whether a version fits: comparisons joined by blanks or commas, alternatives by `||`."""
    wanted = _version(to_text(version))
    return any(_fits(wanted, part) for part in to_text(constraint).split("||"))


def _fits(version: Any, text: str) -> bool:
    span = re.fullmatch(r"\s*(\S+)\s+-\s+(\S+)\s*", text)
    if span:
        return _compare(version, ">=", span[1]) and _compare(version, "<=", span[2])
    at, stripped = 0, text.strip()
    while at < len(stripped):
        part = _PART.match(stripped, at)
        if part is None:
            raise ValueFault(f"`{text.strip()}` is not a constraint such as `>= 1.2, < 2`")
        if not _compare(version, part[1] or "", part[2]):
            return False
        at = part.end()
    return True


def _compare(version: Any, operator: str, text: str) -> bool:
    parts = text.lstrip("v").split("-")[0].split("+")[0].split(".")
    given = list(_numbers_of(parts))
    if not given and operator in ("", "=", "==", "~", "~>", "^", ">=", "<="):
        return True
    low = _version(".".join(given) + (text[text.index("-") :] if "-" in text and len(given) == 3 else ""))
    numbers = low[0]
    has_wild = len(given) < 3
    match operator:
        case ">=" | "=>":
            return bool(version >= low)
        case "<":
            return bool(version < low)
        case ">":
            return bool(version >= _next(numbers, len(given)) if has_wild else version > low)
        case "<=" | "=<":
            return bool(version < _next(numbers, len(given)) if has_wild else version <= low)
        case "!=":
            return not (low <= version < _next(numbers, len(given)) if has_wild else version == low)
        case "^":
            place = next((at + 1 for at, value in enumerate(numbers[: len(given)]) if value), len(given))
            return bool(low <= version < _next(numbers, place))
        case "~" | "~>":
            return bool(low <= version < _next(numbers, min(2, len(given))))
        case _:
            return bool(low <= version < _next(numbers, len(given)) if has_wild else version == low)


def _numbers_of(parts: Sequence[str]) -> list[str]:
    """The numbers before the first `x` or `*`."""
    found = []
    for part in parts:
        if part in ("x", "X", "*", ""):
            break
        found.append(part)
    return found


def _next(numbers: tuple[int, int, int], place: int) -> Any:
    """The lowest version above all that share the first `place` numbers."""
    raised = [*numbers[:place], *([0] * (3 - place))]
    raised[max(0, place - 1)] += 1
    return (tuple(raised), ((0, -1, ""),))
