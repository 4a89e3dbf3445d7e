r"""Shell patterns of COPY and ADD sources: `*`, `?`, `[a-z]`, `[^a-z]` and `\\` before any of them, within a component.

A component at a time, so no `*` crosses a `/`. Spec: Go's path.Match, which BuildKit uses. Standard library only.
"""

from __future__ import annotations

import re

from aerogel.errors import AerogelError
from aerogel.files.entry import shown

__all__ = ["has_wildcard", "matcher", "unescape"]


def has_wildcard(component: bytes) -> bool:
    """Whether a component is a pattern and not a name."""
    return any(character in b"*?[" for character in re.sub(rb"\\.", b"", component))


def unescape(component: bytes) -> bytes:
    """A component that is no pattern, without its escapes."""
    return re.sub(rb"\\(.)", rb"\1", component, flags=re.DOTALL)


def matcher(component: bytes) -> re.Pattern[bytes]:
    """A compiled pattern for `fullmatch`. Raises AerogelError `copy.bad-pattern`."""
    out: list[bytes] = []
    at = 0
    while at < len(component):
        character = component[at : at + 1]
        at += 1
        if character == b"*":
            if out[-1:] != [b".*"]:
                out.append(b".*")
        elif character == b"?":
            # One character, not one byte, where the name is UTF-8.
            out.append(rb"(?:[\x00-\x7f\x80-\xbf\xf8-\xff]|[\xc0-\xf7][\x80-\xbf]*)")
        elif character == b"[":
            found, at = _class(component, at)
            out.append(found)
        elif character == b"\\":
            if at >= len(component):
                raise _bad(component)
            out.append(re.escape(component[at : at + 1]))
            at += 1
        else:
            out.append(re.escape(character))
    return re.compile(b"".join(out), re.DOTALL)


def _class(component: bytes, at: int) -> tuple[bytes, int]:
    """A character class, from behind its `[`; and where it ends. Members are characters, as UTF-8."""
    negated = component[at : at + 1] == b"^"
    at += negated
    text = component[at:].decode("utf-8", "surrogateescape")
    ranges: list[tuple[str, str]] = []
    place = 0
    while True:
        if place >= len(text):
            raise _bad(component)
        if text[place] == "]" and ranges:
            break
        low, place = _member(text, place, component)
        high = low
        if text[place : place + 1] == "-":
            high, place = _member(text, place + 1, component)
        ranges.append((low, high))
    at += len(text[: place + 1].encode("utf-8", "surrogateescape"))
    return _alternatives(ranges, negated=negated), at


def _member(text: str, place: int, component: bytes) -> tuple[str, int]:
    if place >= len(text) or text[place] in "-]":
        raise _bad(component)
    if text[place] == "\\":
        place += 1
        if place >= len(text):
            raise _bad(component)
    return text[place], place + 1


def _alternatives(ranges: list[tuple[str, str]], *, negated: bool) -> bytes:
    """A regular expression over bytes for a class of characters."""
    body = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high)
    if all(ord(high) < 128 for _, high in ranges):
        ascii_class = body.encode()
        if not negated:
            return b"[" + ascii_class + b"]" if ascii_class else b"(?!)"
        return b"(?:[^\\xc0-\\xf7" + ascii_class + b"]|[\\xc0-\\xf7][\\x80-\\xbf]*)"
    wide = [
        re.escape(chr(code).encode("utf-8", "surrogateescape"))
        for low, high in ranges
        for code in range(ord(low), min(ord(high), ord(low) + 4096) + 1)
    ]
    one = b"(?:" + b"|".join(wide) + b")"
    return one if not negated else b"(?:(?!" + one + b")(?:[\\x00-\\x7f]|[\\xc0-\\xf7][\\x80-\\xbf]*))"


def _bad(component: bytes) -> AerogelError:
    return AerogelError(
        f"`{shown(component)}` is not a pattern: a `[` or `\\` is not finished",
        code="copy.bad-pattern",
        hints=["write `[[]` for a `[` that is part of a name"],
    )
