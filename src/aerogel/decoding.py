"""Data from outside becomes values: JSON that may be anything, and structs that several threads decode.

For: whoever reads what others wrote. Not for: the words of the fault, which the reader of a kind of file knows.
"""

from __future__ import annotations

import json
from functools import cache
from threading import Lock
from typing import Any

__all__ = ["parse_json", "prepare"]

_ONE = Lock()
_DEEPEST = 200
"""Levels of lists and maps. What goes through such a value calls itself some times for each, and Python ends at 1000."""


@cache
def prepare(kind: type) -> None:
    """Has msgspec look at a type: in two threads at once it reads freed memory (0.22). Nothing is done the second time."""
    import msgspec  # records of the store are read without it, by builds that find all done

    with _ONE:
        msgspec.json.Decoder(kind)


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text, of which whoever uses it can rely on few levels. Raises ValueError with the reason."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    opening = ("[", "{") if isinstance(data, str) else (b"[", b"{")
    if sum(map(data.count, opening)) > _DEEPEST and _is_deep(value):  # type: ignore[arg-type]  # of one type
        raise ValueError("it is nested too deeply")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST + 1):
        below = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [one for each in below for one in each]
        if not level:
            return False
    return True
