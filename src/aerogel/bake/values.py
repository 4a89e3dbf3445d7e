"""Values of HCL as Python has them, and how they turn into each other.

null is None; a string, bool, list (tuples and lists), dict (objects and maps), `Set`; a number is an int, or a Decimal
when it has a fraction. Spec: HCL's syntax-agnostic information model, go-cty's conversions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Any

__all__ = [
    "CONTEXT",
    "MAX_DIGITS",
    "MAX_TEXT",
    "Set",
    "ValueFault",
    "decode_json",
    "encode_json",
    "joined",
    "kind",
    "number",
    "reason",
    "to_bool",
    "to_number",
    "to_text",
]

CONTEXT = Context(prec=150)
"""As many digits as go-cty's 512 bits have."""


MAX_DIGITS = 1000
"""Of a number, before or after its point. Go's floats go on to 646 million, which no output can be meant to hold."""
MAX_TEXT = 1 << 24
"""Characters of one text that an expression makes."""


class ValueFault(Exception):
    """A value cannot be what is asked of it. Whoever knows the place makes an error of it."""


class Set(list[Any]):
    """A set: each element once, sorted."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        unique = {encode_json(item): item for item in items}
        super().__init__(unique[key] for key in sorted(unique, key=lambda key: _order(unique[key])))


def _order(value: Any) -> tuple[int, Any]:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return (0, value)
    return (1, value) if isinstance(value, str) else (2, encode_json(value))


def kind(value: Any) -> str:
    """The word for the type of a value, as messages have it."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | Decimal():
            return "number"
        case str():
            return "string"
        case Set():
            return "set"
        case list():
            return "list"
        case dict():
            return "object"
        case _:
            return "block"


def number(value: Decimal | int) -> int | Decimal:
    """A number in its one form: an int when it is whole. Raises ValueFault for one beyond `MAX_DIGITS` digits."""
    if isinstance(value, int):
        if value.bit_length() > MAX_DIGITS * 3.33:
            raise ValueFault("a number is too large")
        return value
    if not value.is_finite():
        raise ValueFault("the number is not finite")
    if abs(value.adjusted()) > MAX_DIGITS or len(value.as_tuple().digits) > MAX_DIGITS:
        raise ValueFault("a number is too large" if value.adjusted() > 0 else "a number has too many digits")
    return int(value) if value == value.to_integral_value() else value.normalize(CONTEXT)


def to_number(value: Any) -> int | Decimal:
    """Raises ValueFault."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueFault(f"a number is needed, not a {kind(value)}")
    if isinstance(value, str):
        try:
            return number(Decimal(value.strip()))
        except InvalidOperation:
            raise ValueFault(f"`{value}` is not a number") from None
    return number(value)


def to_bool(value: Any) -> bool:
    """Raises ValueFault."""
    if isinstance(value, bool):
        return value
    if value in ("true", "1", "false", "0") and isinstance(value, str):
        return value in ("true", "1")
    raise ValueFault(
        f"`true` or `false` is needed, not {'`' + value + '`' if isinstance(value, str) else 'a ' + kind(value)}"
    )


def to_text(value: Any) -> str:
    """A primitive value as a string. Raises ValueFault."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Decimal():
            return f"{number(value):f}" if isinstance(number(value), Decimal) else str(number(value))
        case _:
            raise ValueFault(f"a string is needed, not a {kind(value)}" if value is not None else "the value is null")


def encode_json(value: Any) -> str:
    """The value as JSON without blanks, keys sorted. Raises ValueFault."""
    match value:
        case None | bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case int() | Decimal():
            return to_text(value)
        case list():
            return "[" + ",".join(map(encode_json, value)) + "]"
        case dict():
            return (
                "{"
                + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{encode_json(value[key])}" for key in sorted(value))
                + "}"
            )
        case _:
            raise ValueFault(f"a {kind(value)} has no form in JSON")


def reason(error: Exception) -> str:
    """Why something has no value, of what Python says."""
    if isinstance(error, UnicodeError):
        return "a text holds half of a character"
    if isinstance(error, ZeroDivisionError):
        return "a number is divided by zero"
    return "a number is too large" if isinstance(error, ArithmeticError | MemoryError) else str(error)


def joined(glue: str, parts: Sequence[str]) -> str:
    """The parts as one text. Raises ValueFault when that is too long."""
    if sum(map(len, parts)) + len(glue) * len(parts) > MAX_TEXT:
        raise ValueFault("the text is too long")
    return glue.join(parts)


def decode_json(text: str) -> Any:
    """Raises ValueFault."""
    try:
        return _plain(json.loads(text, parse_float=Decimal))
    except ValueError as error:
        raise ValueFault(f"this is not JSON: {str(error)[:1].lower()}{str(error)[1:]}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
