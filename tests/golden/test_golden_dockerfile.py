"""Golden trees and golden faults: `dockerfile/<case>/Dockerfile` and what comes of it in `expected`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from aerogel.dockerfile.ast import Node, Word
from aerogel.dockerfile.parse import parse
from aerogel.errors import Faults, Source, Span, render

CASES = sorted((Path(__file__).parent / "dockerfile").iterdir())


def lines(name: str, value: object, indent: int) -> Iterator[str]:
    """The tree as indented text; what is empty or the default is left out."""
    pad = "  " * indent
    if isinstance(value, Span | Source) or value in ((), None, False, "", 0):
        return
    if isinstance(value, Word):
        yield f"{pad}{name}: {value.text!r} @{value.span.line}:{value.span.column} {value.span.text!r}"
    elif isinstance(value, msgspec.Struct):
        span = getattr(value, "span", None)
        at = f" @{span.line}:{span.column}-{span.end_line}" if span else ""
        yield f"{pad}{name}: {type(value).__name__}{at}"
        for field in value.__struct_fields__:
            if field == "original" and getattr(value, "keyword", None) and value.original == span.text:
                continue
            if field in ("keyword", "flags", "blank") and isinstance(value, Node) and name != "child":
                if field == "blank" and value.blank:
                    yield f"{pad}  blank line {value.blank.line}"
                continue
            yield from lines(field, getattr(value, field), indent + 1)
    elif isinstance(value, tuple):
        for item in value:
            yield from lines(name, item, indent)
    else:
        yield f"{pad}{name}: {value!r}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Path, golden: Callable[[Path, str], None]) -> None:
    source = Source("Dockerfile", (case / "Dockerfile").read_bytes())
    try:
        text = "\n".join(lines("dockerfile", parse(source), 0)) + "\n"
    except Faults as faults:
        text = "".join(f"[{fault.code}]\n{render(fault)}\n\n" for fault in faults.errors)
    golden(case / "expected", text)
