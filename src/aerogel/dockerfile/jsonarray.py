"""The JSON arrays of the exec form, with the place of each string.

Written anew because the exec form hangs on small differences: text that is no JSON silently becomes a shell command,
so what Go's decoder refuses must be refused here, and no nesting may exhaust the stack. Only arrays of strings are
returned; everything else is only told apart.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

__all__ = ["JsonString", "JsonTypeError", "parse_array"]

_MAX_DEPTH = 10_000
"""As deep as Go's decoder goes."""

_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_BLANKS = re.compile(r"[ \t\n\r]*+")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonTypeError(ValueError):
    """A valid array, but the element from `start` to `end` is not a string."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__("not a string")
        self.start = start
        self.end = end


class JsonString(NamedTuple):
    """A decoded string; `start` and `end` are inside its quotes."""

    text: str
    start: int
    end: int


def parse_array(text: str, start: int, end: int) -> list[JsonString] | None:
    """The strings of the JSON array that is all of `text[start:end]`; None if that is no valid JSON.

    Raises:
        JsonTypeError: for a valid array with an element that is not a string.
    """
    strings: list[JsonString] = []
    at = _skip(text, start + 1, end)
    if text.startswith("]", at):
        return strings if at + 1 == end else None
    while True:
        match = _STRING.match(text, at, end)
        if match is None:
            wrong = _first_value_end(text, at, end)
            if wrong is None or not _is_valid(text, start, end):
                return None
            raise JsonTypeError(at, wrong)
        strings.append(JsonString(_decode(match.group()), at + 1, match.end() - 1))
        at = _skip(text, match.end(), end)
        if at < end and text[at] == ",":
            at = _skip(text, at + 1, end)
            continue
        return strings if text.startswith("]", at) and at + 1 == end else None


def _skip(text: str, at: int, end: int) -> int:
    match = _BLANKS.match(text, at, end)
    return match.end() if match else at


def _decode(written: str) -> str:
    if "\\" not in written:
        return written[1:-1]
    decoded: str = json.loads(written, strict=False)
    return _LONE_SURROGATE.sub("\ufffd", decoded)


def _first_value_end(text: str, at: int, end: int) -> int | None:
    """Where the element at `at` ends, for the caret: all of a number or a word, one bracket of the others."""
    match = re.compile(r"[{\[]|[-+.0-9A-Za-z]+").match(text, at, end)
    return match.end() if match else None


def _is_valid(text: str, at: int, end: int) -> bool:
    """Whether `text[at:end]` is a JSON value; a stack of open brackets instead of recursion."""
    closers: list[str] = []
    expect = "value"
    while True:
        at = _skip(text, at, end)
        if at >= end:
            return not closers and expect == "end"
        character = text[at]
        if expect in ("value", "value or ]"):
            if character == "]" and expect == "value or ]":
                closers.pop()
                at += 1
            elif character in "[{":
                closers.append("]" if character == "[" else "}")
                if len(closers) > _MAX_DEPTH:
                    return False
                expect = "value or ]" if character == "[" else "key or }"
                at += 1
                continue
            else:
                after = _scalar_end(text, at, end)
                if after is None:
                    return False
                at = after
        elif expect in ("key", "key or }"):
            if character == "}" and expect == "key or }":
                closers.pop()
                at += 1
            else:
                match = _STRING.match(text, at, end)
                at = _skip(text, match.end(), end) if match else end
                if not text.startswith(":", at) or at >= end:
                    return False
                at += 1
                expect = "value"
                continue
        elif expect == "more" and character == ",":
            expect = "value" if closers[-1] == "]" else "key"
            at += 1
            continue
        elif expect == "more" and character == closers[-1]:
            closers.pop()
            at += 1
        else:
            return False
        expect = "more" if closers else "end"


def _scalar_end(text: str, at: int, end: int) -> int | None:
    for word in ("true", "false", "null"):
        if text.startswith(word, at, end):
            return at + len(word)
    match = _STRING.match(text, at, end)
    if match:
        return match.end()
    match = _NUMBER.match(text, at, end)
    if match is None or abs(float(match.group())) == float("inf"):
        return None
    return match.end()
