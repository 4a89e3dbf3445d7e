"""Type constraints: `list(string)`, `object({a = number})`, and values made to fit them.

Spec: HCL's ext/typeexpr; for overrides of variables the bake file reference, "Overriding variables".
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from aerogel.bake.values import Set, ValueFault, decode_json, kind, to_bool, to_number, to_text

__all__ = ["Type", "convert", "from_text"]

_SIMPLE = {"string": to_text, "number": to_number, "bool": to_bool}


class Type(msgspec.Struct, frozen=True):
    """`name` is `string`, `number`, `bool`, `any`, `list`, `set`, `map`, `tuple` or `object`.

    `inner` is what list, set and map hold, `items` those of a tuple, `fields` those of an object.
    """

    name: str
    inner: Type | None = None
    items: tuple[Type, ...] = ()
    fields: Mapping[str, Type] = msgspec.field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    def __str__(self) -> str:
        if self.inner is not None:
            return f"{self.name} of {self.inner}"
        return self.name


def convert(value: Any, wanted: Type) -> Any:
    """The value as the type has it. Raises ValueFault."""
    if value is None or wanted.name == "any":
        return value
    if wanted.name in _SIMPLE:
        return _SIMPLE[wanted.name](value)
    if wanted.name in ("list", "set", "tuple"):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueFault(f"a {wanted} is needed, not a {kind(value)}")
        if wanted.name == "tuple":
            if len(value) != len(wanted.items):
                raise ValueFault(f"{len(wanted.items)} elements are needed, not {len(value)}")
            return [convert(item, inner) for item, inner in zip(value, wanted.items, strict=True)]
        inner = wanted.inner or Type("any")
        items = [convert(item, inner) for item in value]
        return Set(items) if wanted.name == "set" else items
    if not isinstance(value, Mapping):
        raise ValueFault(f"{'an' if wanted.name == 'object' else 'a'} {wanted} is needed, not a {kind(value)}")
    if wanted.name == "map":
        inner = wanted.inner or Type("any")
        return {key: convert(item, inner) for key, item in value.items()}
    missing = [name for name in wanted.fields if name not in value and name not in wanted.optional]
    if missing:
        raise ValueFault(f"the attribute `{missing[0]}` is missing")
    return {name: convert(value.get(name), inner) for name, inner in wanted.fields.items()}


def from_text(text: str, wanted: Type | None, default: Any, *, is_json: bool = False) -> Any:
    """The value of a variable that the environment gives. Raises ValueFault.

    Without a type that of the default counts. Lists are comma-separated values, maps `key=value` in them.
    """
    if is_json:
        value = decode_json(text)
        return convert(value, wanted) if wanted is not None else value
    if wanted is None:
        if isinstance(default, bool):
            return to_bool(text.lower() if text.lower() in ("true", "false") else text)
        if isinstance(default, list | dict):
            raise ValueFault(f"a {kind(default)} without a `type` cannot be set from outside")
        return to_number(text) if kind(default) == "number" else text
    if wanted.name in _SIMPLE or wanted.name == "any":
        return convert(text, wanted)
    fields = next(csv.reader([text]), []) if text else []
    if wanted.name in ("list", "set", "tuple"):
        return convert(fields, wanted)
    pairs = dict(field.partition("=")[::2] for field in fields)
    if any("=" not in field for field in fields):
        raise ValueFault("a map is written as `key=value,key=value`")
    return convert(pairs, wanted)
