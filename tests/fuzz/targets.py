"""What the coverage-guided fuzzer calls, one function per language that a user writes.

Each takes bytes, uses the code as the product does, and asserts what must hold for any input. Faults that the code
reports are fine; everything else that comes out is a bug. Run by `fuzz.py` for as long as one likes and by
`test_fuzz_targets.py` for a moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aerogel.dockerfile.ast import Word
from aerogel.dockerfile.format import format_dockerfile, shape
from aerogel.dockerfile.parse import parse
from aerogel.dockerfile.words import Quoting, expand, expand_words, process
from aerogel.errors import AerogelError, Faults, Source, Span, render
from aerogel.files.pattern import IgnoreMatcher
from aerogel.graph.request import Request
from aerogel.graph.stages import plan
from aerogel.graph.steps import BaseImage, lower
from aerogel.lint.dockerfile import check
from aerogel.lint.rule import Subject
from aerogel.oci.types import ImageConfig

__all__ = ["TARGETS"]

VALUES = {"a": "1", "b": "x y", "empty": "", "path": "/usr/local/bin", "star": "*?", "long": "ab" * 50}


def _hold(condition: object) -> None:
    if not condition:
        raise AssertionError


def dockerfile(data: bytes) -> None:
    """Parse, check, format, plan and lower: the same tree after formatting, places in every fault."""
    source = Source("Dockerfile", data)
    try:
        tree = parse(source)
    except Faults as faults:
        _hold(render(faults))
        for fault in faults.errors:
            _hold(fault.span is not None)
            _hold(0 <= fault.span.start <= fault.span.end <= len(data))
        return
    for finding in _findings(Subject(tree, is_ignored=lambda path: path == "a")):
        _hold(render(finding))
    formatted = format_dockerfile(tree)
    again = parse(Source("Dockerfile", formatted))
    _hold(shape(again) == shape(tree))
    _hold(format_dockerfile(again) == formatted)
    try:
        graph = lower(plan(tree, Request(build_args=VALUES)), lambda *_: BaseImage((), ImageConfig()))
    except AerogelError as error:
        _hold(render(error))
        return
    _hold(all(step.node.digest for step in graph.steps))


def _findings(subject: Subject) -> list:
    try:
        return [finding.diagnostic() for finding in check(subject)]
    except AerogelError as error:
        _hold(error.code == "lint.bad-options")
        return []


def word(data: bytes) -> None:
    """Expand a text in every way that it can be: with the same variables found, whatever the quoting."""
    text = data[1:].decode("utf-8", "surrogateescape")
    mode = data[0] if data else 0
    escape = "`" if mode & 1 else "\\"
    span = Span(Source("Dockerfile", data), 1 if data else 0, len(data))
    place = Word(text, span)
    quoting = Quoting(
        quotes=not mode & 2, keep_quotes=bool(mode & 4), keep_escapes=bool(mode & 8), keep_unset=bool(mode & 16)
    )
    for run in (
        lambda: expand(place, VALUES.get, escape),
        lambda: expand_words(place, VALUES.get, escape),
        lambda: process(text, VALUES.get, escape, quoting, span=span),
    ):
        try:
            run()
        except AerogelError as error:
            _hold(error.span is not None)
            _hold(render(error))


def ignore(data: bytes) -> None:
    """Match paths against an ignore file (the bytes before the first NUL): the ways of asking agree."""
    text, _, rest = data.partition(b"\0")
    try:
        matcher = IgnoreMatcher.parse(Source(".dockerignore", text))
    except AerogelError as error:
        _hold(error.code == "pattern.bad")
        _hold(error.span is not None)
        return
    pieces = re.split(rb"[\n!*\[\]?\\]+", text)
    for path in (*rest.split(b"\0")[:8], *pieces[:8], b"a/b/c", b"a"):
        clean = b"/".join(part for part in path.split(b"/") if part not in (b"", b".", b".."))
        if not clean:
            continue
        matched = matcher.matches(clean)
        decided = matcher.deciding(clean)
        _hold(matched == (decided is not None and not matcher.patterns[_place(matcher, decided)].startswith("!")))
        _hold((matcher.rule(clean) is not None) == matched)
        parent = clean.rpartition(b"/")[0]
        if parent and matcher.matches(parent) and not matched:
            _hold(matcher.may_except_below(parent))


def _place(matcher: IgnoreMatcher, number: int) -> int:
    return matcher.numbers.index(number)


TARGETS: dict[str, Callable[[bytes], None]] = {"dockerfile": dockerfile, "word": word, "ignore": ignore}
