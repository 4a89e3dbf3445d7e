"""The functions that bake files may call: numbers, strings, lists, maps.

Names and meanings are those that buildx documents; times, digests and networks are in `more_functions`. A fault of an
argument is a ValueFault.
Spec: buildx docs/bake-stdlib.md, go-cty's function library.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from aerogel.bake.expressions import arithmetic, equal
from aerogel.bake.printf import format_text
from aerogel.bake.values import (
    CONTEXT,
    MAX_TEXT,
    Set,
    ValueFault,
    encode_json,
    joined,
    kind,
    number,
    to_bool,
    to_number,
    to_text,
)

__all__ = ["functions"]

Function = Callable[..., Any]
_SANITIZE = re.compile(r"[^a-zA-Z0-9_-]")


def functions() -> dict[str, Function]:
    """All of them, by name."""
    from aerogel.bake.more_functions import more_functions

    return {**_numbers(), **_strings(), **_elements(), **_collections(), **_several(), **_sets(), **more_functions()}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueFault(f"a list is needed, not a {kind(value)}")
    return value


def _map(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueFault(f"a map is needed, not a {kind(value)}")
    return value


def _int(value: Any) -> int:
    found = to_number(value)
    if not isinstance(found, int):
        raise ValueFault("a whole number is needed")
    return found


def _numbers() -> dict[str, Function]:
    def ordered(operator: str) -> Function:
        return lambda one, two: arithmetic(operator, to_number(one), to_number(two))

    def log(value: Any, base: Any) -> Any:
        if to_number(value) <= 0 or to_number(base) <= 0:
            raise ValueFault("it takes numbers above zero")
        return _float(math.log(to_number(value)) / math.log(to_number(base)))

    def parseint(text: Any, base: Any) -> int:
        try:
            return int(to_text(text), _int(base))
        except ValueError:
            raise ValueFault(f"`{text}` is no number to the base {base}") from None

    def extreme(pick: Callable[[list[Any]], Any]) -> Function:
        def function(*values: Any) -> Any:
            if not values:
                raise ValueFault("it takes one number or more")
            return pick([to_number(value) for value in values])

        return function

    def signum(value: Any) -> int:
        found = to_number(value)
        return (found > 0) - (found < 0)

    return {
        "absolute": _absolute,
        "add": ordered("+"),
        "and": lambda one, two: to_bool(one) and to_bool(two),
        "ceil": lambda value: math.ceil(to_number(value)),
        "divide": ordered("/"),
        "equal": equal,
        "floor": lambda value: math.floor(to_number(value)),
        "greaterthan": ordered(">"),
        "greaterthanorequalto": ordered(">="),
        "int": lambda value: math.trunc(to_number(value)),
        "lessthan": ordered("<"),
        "lessthanorequalto": ordered("<="),
        "log": log,
        "max": extreme(max),
        "min": extreme(min),
        "modulo": ordered("%"),
        "multiply": ordered("*"),
        "negate": lambda value: number(-CONTEXT.create_decimal(to_number(value))),
        "not": lambda value: not to_bool(value),
        "notequal": lambda one, two: not equal(one, two),
        "or": lambda one, two: to_bool(one) or to_bool(two),
        "parseint": parseint,
        "pow": lambda base, power: _float(float(to_number(base)) ** float(to_number(power))),
        "signum": signum,
        "subtract": ordered("-"),
    }


def _absolute(value: Any) -> int | Decimal:
    found = to_number(value)
    return -found if found < 0 else found


def _float(value: float) -> int | Decimal:
    return number(Decimal(repr(value)))


def _pattern(text: Any) -> re.Pattern[str]:
    """RE2's end of the text is a small z, Python's a large one."""
    try:
        return re.compile(to_text(text).replace(r"\z", r"\Z"))
    except re.error as error:
        raise ValueFault(f"`{text}` is no regular expression: {error}") from None


def _match(found: re.Match[str]) -> Any:
    if found.re.groupindex:
        return {name: found.group(name) for name in found.re.groupindex}
    return list(found.groups()) if found.re.groups else found.group()


def _replaced(text: str, old: str, new: str) -> str:
    if len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise ValueFault("the text is too long")
    return text.replace(old, new)


def _strings() -> dict[str, Function]:
    def regex(pattern: Any, text: Any) -> Any:
        found = _pattern(pattern).search(to_text(text))
        if found is None:
            raise ValueFault("the pattern does not match")
        return _match(found)

    def regex_replace(text: Any, pattern: Any, new: Any) -> str:
        expanded = re.sub(r"\\", r"\\\\", to_text(new))
        expanded = re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda one: f"\\g<{one[1] or one[2]}>", expanded)
        try:
            return _pattern(pattern).sub(expanded.replace("$$", "$"), to_text(text))
        except (re.error, IndexError) as error:
            raise ValueFault(f"`{new}` fits not the pattern: {error}") from None

    def substr(text: Any, offset: Any, length: Any) -> str:
        whole, start, size = to_text(text), _int(offset), _int(length)
        start = max(0, len(whole) + start) if start < 0 else start
        return whole[start:] if size < 0 else whole[start : start + size]

    def title(text: Any) -> str:
        return re.sub(r"[^\W_]+", lambda word: word[0][0].upper() + word[0][1:], to_text(text))

    def dirname(path: Any) -> str:
        return os.path.normpath(os.path.dirname(to_text(path)) or ".")

    def basename(path: Any) -> str:
        text = to_text(path)
        return os.path.basename(text.rstrip("/")) or ("/" if text else ".")

    return {
        "basename": basename,
        "chomp": lambda text: to_text(text).rstrip("\r\n"),
        "dirname": dirname,
        "format": lambda form, *values: format_text(to_text(form), values),
        "formatlist": _formatlist,
        "indent": lambda spaces, text: _replaced(to_text(text), "\n", "\n" + " " * min(max(0, _int(spaces)), MAX_TEXT)),
        "join": lambda glue, *lists: joined(to_text(glue), [to_text(item) for each in lists for item in _list(each)]),
        "lower": lambda text: to_text(text).lower(),
        "regex": regex,
        "regex_replace": regex_replace,
        "regexall": lambda pattern, text: [_match(found) for found in _pattern(pattern).finditer(to_text(text))],
        "replace": lambda text, old, new: _replaced(to_text(text), to_text(old), to_text(new)),
        "reverse": lambda text: to_text(text)[::-1],
        "sanitize": lambda text: _SANITIZE.sub("_", to_text(text)),
        "split": lambda glue, text: to_text(text).split(to_text(glue)) if to_text(glue) else list(to_text(text)),
        "strlen": lambda text: len(to_text(text)),
        "substr": substr,
        "title": title,
        "trim": lambda text, cut: to_text(text).strip(to_text(cut)) if to_text(cut) else to_text(text),
        "trimprefix": lambda text, part: to_text(text).removeprefix(to_text(part)),
        "trimspace": lambda text: to_text(text).strip(),
        "trimsuffix": lambda text, part: to_text(text).removesuffix(to_text(part)),
        "upper": lambda text: to_text(text).upper(),
    }


def _formatlist(form: Any, *values: Any) -> list[str]:
    lengths = {len(value) for value in values if isinstance(value, list)}
    if len(lengths) > 1:
        raise ValueFault("the lists are not of one length")
    count = lengths.pop() if lengths else 1
    rows = [[value[at] if isinstance(value, list) else value for value in values] for at in range(count)]
    return [format_text(to_text(form), row) for row in rows]


def _elements() -> dict[str, Function]:
    def element(items: Any, index: Any) -> Any:
        found = _list(items)
        if not found:
            raise ValueFault("the list is empty")
        return found[_int(index) % len(found)]

    def index(items: Any, key: Any) -> Any:
        if isinstance(items, Mapping):
            if to_text(key) in items:
                return items[to_text(key)]
        elif 0 <= _int(key) < len(_list(items)):
            return _list(items)[_int(key)]
        raise ValueFault(f"there is no element {to_text(key)}")

    def hasindex(items: Any, key: Any) -> bool:
        if isinstance(items, Mapping):
            return isinstance(key, str) and key in items
        return isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(_list(items))

    def lookup(items: Any, key: Any, *default: Any) -> Any:
        found = _map(items)
        if to_text(key) in found:
            return found[to_text(key)]
        if not default:
            raise ValueFault(f"there is no key `{to_text(key)}`")
        return default[0]

    def indexof(items: Any, wanted: Any) -> int:
        for at, item in enumerate(_list(items)):
            if equal(item, wanted):
                return at
        raise ValueFault("the value is not in the list")

    return {
        "element": element,
        "hasindex": hasindex,
        "index": index,
        "indexof": indexof,
        "lookup": lookup,
    }


def _collections() -> dict[str, Function]:
    def flatten(items: Any) -> list[Any]:
        return [part for item in _list(items) for part in (flatten(item) if isinstance(item, list) else [item])]

    def chunklist(items: Any, size: Any) -> list[Any]:
        found, step = _list(items), _int(size)
        if step < 1:
            return [found]
        return [found[at : at + step] for at in range(0, len(found), step)]

    def slice_(items: Any, start: Any, end: Any) -> list[Any]:
        found = _list(items)
        if not 0 <= _int(start) <= _int(end) <= len(found):
            raise ValueFault(f"there is no part {start} to {end} in a list of {len(found)}")
        return found[_int(start) : _int(end)]

    def merge(*maps: Any) -> dict[str, Any]:
        return {key: value for each in maps if each is not None for key, value in _map(each).items()}

    def length(items: Any) -> int:
        if isinstance(items, list | Mapping):
            return len(items)
        raise ValueFault(f"a {kind(items)} has no length: `strlen` is for strings")

    return {
        "chunklist": chunklist,
        "flatten": flatten,
        "jsonencode": encode_json,
        "keys": lambda items: sorted(_map(items)),
        "length": length,
        "merge": merge,
        "range": _range,
        "reverselist": lambda items: _list(items)[::-1],
        "slice": slice_,
        "sort": lambda items: sorted(to_text(item) for item in _list(items)),
        "values": lambda items: [_map(items)[key] for key in sorted(_map(items))],
    }


def _several() -> dict[str, Function]:
    def distinct(items: Any) -> list[Any]:
        found: list[Any] = []
        for item in _list(items):
            if not any(equal(item, other) for other in found):
                found.append(item)
        return found

    def coalesce(*values: Any) -> Any:
        for value in values:
            if value is not None:
                return value
        raise ValueFault("no argument has a value")

    def coalescelist(*lists: Any) -> Any:
        for each in lists:
            if each:
                return _list(each)
        raise ValueFault("all lists are empty")

    def zipmap(keys: Any, values: Any) -> dict[str, Any]:
        if len(_list(keys)) != len(_list(values)):
            raise ValueFault(f"there are {len(keys)} keys and {len(values)} values")
        return {to_text(key): value for key, value in zip(keys, values, strict=True)}

    return {
        "coalesce": coalesce,
        "coalescelist": coalescelist,
        "compact": lambda items: [item for item in _list(items) if item not in ("", None)],
        "concat": lambda *lists: [item for each in lists for item in _list(each)],
        "contains": lambda items, wanted: any(equal(item, wanted) for item in _list(items)),
        "distinct": distinct,
        "zipmap": zipmap,
    }


def _range(*given: Any) -> list[Any]:
    values = [to_number(value) for value in given]
    if not 1 <= len(values) <= 3:
        raise ValueFault("it takes one, two or three numbers")
    start, end = (0, values[0]) if len(values) == 1 else (values[0], values[1])
    step = values[2] if len(values) == 3 else 1 if end >= start else -1
    if not step or (end - start) / step < 0:
        raise ValueFault("the step leads away from the end")
    count = math.ceil((end - start) / step)
    if count > 1024:
        raise ValueFault(f"a range of {count} numbers is more than 1024")
    return [number(start + step * at) for at in range(count)]


def _sets() -> dict[str, Function]:
    def reduce(combine: Callable[[set[str], set[str]], set[str]]) -> Function:
        def function(first: Any, *others: Any) -> Set:
            known = {encode_json(item): item for each in (first, *others) for item in _list(each)}
            found = {encode_json(item) for item in _list(first)}
            for each in others:
                found = combine(found, {encode_json(item) for item in _list(each)})
            return Set(known[key] for key in found)

        return function

    def product(*sets: Any) -> list[Any]:
        made = [list(row) for row in itertools.product(*map(_list, sets))]
        return Set(made) if all(isinstance(each, Set) for each in sets) else made

    def has(items: Any, wanted: Any) -> bool:
        return any(equal(item, wanted) for item in _list(items))

    return {
        "sethaselement": has,
        "setintersection": reduce(set.intersection),
        "setproduct": product,
        "setsubtract": reduce(set.difference),
        "setsymmetricdifference": reduce(set.symmetric_difference),
        "setunion": reduce(set.union),
    }
