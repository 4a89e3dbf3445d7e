"""Huge files take time in proportion: parse, lint, format, plan and lower, each far below what a square would need."""

from __future__ import annotations

import contextlib
import time

import pytest

from aerogel.dockerfile.format import format_dockerfile
from aerogel.dockerfile.parse import parse
from aerogel.dockerfile.words import process
from aerogel.errors import AerogelError, Faults, Source, render
from aerogel.files.pattern import IgnoreMatcher
from aerogel.graph.request import Request
from aerogel.graph.stages import plan
from aerogel.graph.steps import BaseImage, lower
from aerogel.lint.dockerfile import check
from aerogel.lint.rule import Subject
from aerogel.oci.types import ImageConfig

pytestmark = pytest.mark.slow

MANY = 10_000
LIMIT_S = 30.0
"""Of processor time; a quiet machine needs 3 at most."""

FILES = {
    "a line of 10 MB": b"FROM a\nRUN echo " + b"x" * 10_000_000 + b"\n",
    "a here-document of 10 MB": b"FROM a\nCOPY <<E /x\n" + b'$a "x" y\n' * 1_100_000 + b"E\n",
    "continuations": b"FROM a\nRUN true" + b" \\\n  && x" * 100_000 + b"\n",
    "comments between": b"FROM a\nRUN true \\\n" + b"# c\n" * 100_000 + b" x\n",
    "empty lines between": b"FROM a\nRUN true \\\n" + b"\n" * 100_000 + b" x\n",
    "one word in pieces": b"FROM a\nENV x=" + b"${a:-\\\n" * MANY + b"}" * MANY + b"\n",
    "a chain of stages": b"FROM a AS s0\n" + b"".join(b"FROM s%d AS s%d\nRUN x\n" % (i, i + 1) for i in range(MANY)),
    "stages for one": b"".join(b"FROM a AS s%d\nRUN x\n" % i for i in range(MANY))
    + b"FROM a\n"
    + b"".join(b"COPY --from=s%d /x /y%d\n" % (i, i) for i in range(MANY)),
    "stages by number": b"FROM a\nRUN x\n" * MANY
    + b"FROM a\n"
    + b"".join(b"COPY --from=%d /x /y%d\n" % (i, i) for i in range(MANY)),
    "stages of one name": b"FROM a AS x\n" * MANY,
    "variables": b"FROM a\n" + b"".join(b"ENV a%d=$a%d\n" % (i, i - 1) for i in range(MANY)),
    "global arguments": b"".join(b"ARG a%d=b\n" % i for i in range(MANY)) + b"FROM a\n",
    "labels": b"FROM a\n" + b"".join(b"LABEL a%d=b\n" % i for i in range(MANY)),
    "ports": b"FROM a\n" + b"".join(b"EXPOSE %d\n" % (i + 1) for i in range(MANY)),
    "triggers": b"FROM a\n" + b"ONBUILD RUN x\n" * MANY,
    "here-documents": b"FROM a\nCOPY \\\n"
    + b"".join(b"<<E%d \\\n" % i for i in range(MANY))
    + b"/x/\n"
    + b"".join(b"b\nE%d\n" % i for i in range(MANY)),
    "here-documents without an end": b"FROM a\n" + b"COPY <<E /x\n" * MANY,
    "faults": b"FROM a\n" + b"FOO x\n" * MANY,
    "an array": b'FROM a\nCMD ["a"' + b', \\\n"b"' * MANY + b"]\n",
}


@pytest.mark.parametrize("name", FILES)
def test_dockerfile(name: str) -> None:
    began = time.process_time()
    try:
        tree = parse(Source("Dockerfile", FILES[name]))
        check(Subject(tree, base_environment=lambda _: {}))
        format_dockerfile(tree)
        graph = lower(plan(tree, Request()), lambda *_: BaseImage((), ImageConfig()))
        assert all(step.node.digest for step in graph.steps)
        graph.target.config.finish((), frozenset(), 0)
    except Faults as faults:
        render(faults)
    assert time.process_time() - began < LIMIT_S


@pytest.mark.parametrize(
    "text",
    [
        "${a:-" * 100_000 + "}" * 100_000,
        '"${a:-' * 100_000 + '}"' * 100_000,
        "${a/" * 100_000,
        "\\" * 1_000_000,
        "\"'" * 500_000,
        "${v%%" + "*a" * 5_000 + "}",
        "${v//" + "?*" * 5_000 + "/x}",
        # Found by the fuzzer: a replacement of nothing but unknown names, for each of many matches.
        "${v///" + "\\$x" * 12_000 + "}",
    ],
    ids=lambda text: text[:8],
)
def test_word(text: str) -> None:
    began = time.process_time()
    with contextlib.suppress(AerogelError):
        process(text, {"v": "ab" * 20_000}.get)
    assert time.process_time() - began < LIMIT_S


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 60 + "*b", "**/a/" * 60 + "b", "a**" * 60 + "b", "*[ab]" * 60 + "c", "a*" * 60, "/".join("*" * 500)],
)
def test_ignore(pattern: str) -> None:
    began = time.process_time()
    matcher = IgnoreMatcher.parse(Source(".dockerignore", f"{pattern}\n!{pattern}x\n".encode()))
    for path in (b"a" * 4000, b"a/" * 2000 + b"a", b"/".join([b"ab" * 100] * 20)):
        matcher.matches(path)
        matcher.may_except_below(path)
    assert time.process_time() - began < LIMIT_S
