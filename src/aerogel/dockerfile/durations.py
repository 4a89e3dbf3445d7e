"""Durations as Go writes them: `1h30m`, `1.5s`, `-2ms`. Spec: Go, `time.ParseDuration`."""

from __future__ import annotations

import re

__all__ = ["parse_duration"]

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "\xb5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|\xb5s|\u03bcs|ms|s|m|h)")
_MAX_NS = 2**63 - 1


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a duration, or None if it is none or longer than 292 years."""
    sign = -1 if text.startswith("-") else 1
    text = text[1:] if text[:1] in ("-", "+") else text
    if text == "0":
        return 0
    at = total = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or not (match[1] or match[2]) or len(match[1]) > 20:
            return None
        unit = _UNITS_NS[match[3]]
        fraction = (match[2] or "")[:18]
        total += int(match[1] or "0") * unit + int(fraction or "0") * unit // 10 ** len(fraction)
        at = match.end()
    return sign * total if text and total <= _MAX_NS else None
