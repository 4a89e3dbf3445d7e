"""`format`: the verbs of go-cty's string formatting, which are Go's for these values.

Spec: go-cty's documentation of the `format` function.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from aerogel.bake.values import ValueFault, encode_json, to_bool, to_number, to_text

__all__ = ["format_text"]

_VERB = re.compile(
    r"%(?P<flags>[-+ 0#]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?:\[(?P<index>\d+)\])?(?P<verb>.)", re.DOTALL
)
_BASES = {"b": "b", "o": "o", "x": "x", "X": "X"}


def format_text(form: str, values: Sequence[Any]) -> str:
    """The text with its verbs replaced. Raises ValueFault for a wrong verb or number of values."""
    place = 0
    used: set[int] = set()

    def one(found: re.Match[str]) -> str:
        nonlocal place
        if found["verb"] == "%":
            return "%"
        at = int(found["index"]) - 1 if found["index"] else place
        if not 0 <= at < len(values):
            raise ValueFault(f"`{found[0]}` has no value: there are {len(values)}")
        place = at + 1
        used.add(at)
        return _pad(_verb(found, values[at]), found)

    made = _VERB.sub(one, form)
    if len(used) < len(values):
        raise ValueFault(f"{len(values)} values are given, and the text uses {len(used)}")
    return made


_MAX_WORD = 6
"""Digits of a width or a precision."""


def _verb(found: re.Match[str], value: Any) -> str:
    verb, precision = found["verb"], found["precision"]
    if max(len(found["width"] or ""), len(precision or "")) > _MAX_WORD:
        raise ValueFault(f"`{found[0][:20]}` asks for more characters than a text may have")
    sign = "+" if "+" in found["flags"] else " " if " " in found["flags"] else ""
    match verb:
        case "v":
            return (
                to_text(value)
                if isinstance(value, str | bool | int | Decimal)
                else "null"
                if value is None
                else encode_json(value)
            )
        case "s":
            text = to_text(value)
            return text[: int(precision)] if precision else text
        case "q":
            return encode_json(to_text(value))
        case "t":
            return to_text(to_bool(value))
        case "d" | "b" | "o" | "x" | "X":
            whole = int(to_number(value))
            return format(whole, sign + _BASES.get(verb, "d"))
        case "e" | "E" | "f" | "g" | "G":
            return format(
                float(to_number(value)), f"{sign}.{int(precision or 0) if precision is not None else 6}{verb}"
            )
        case _:
            raise ValueFault(
                f"`%{verb}` is no verb: known are `%s`, `%d`, `%v`, `%q`, `%t`, `%f`, `%x` and others of Go"
            )


def _pad(text: str, found: re.Match[str]) -> str:
    width = int(found["width"] or 0)
    flags = found["flags"]
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and found["verb"] in "dbxXoefgEG":
        sign = text[:1] if text[:1] in "+- " else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)
