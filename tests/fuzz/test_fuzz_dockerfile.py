"""Our line parser against BuildKit's: the same tree, or both refuse.

`AEROGEL_FUZZ_COUNT` sets how many inputs are tried, `AEROGEL_FUZZ_SEED` where they begin.
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("dockerfile", reason="BuildKit's parser is not installed")

from generate import documents
from reference import Newer, known_difference, ours, theirs

from aerogel.dockerfile.format import format_dockerfile, shape
from aerogel.dockerfile.parse import parse
from aerogel.errors import Faults, Source, render

COUNT = int(os.environ.get("AEROGEL_FUZZ_COUNT", "6000"))
SEED = int(os.environ.get("AEROGEL_FUZZ_SEED", "1"))


def test_same_tree_or_both_refuse() -> None:
    compared = 0
    for text in documents(SEED, COUNT):
        if known_difference(text):
            continue
        try:
            mine = ours(text)
            other = theirs(text)
        except (Newer, UnicodeDecodeError):
            continue
        assert mine == other, repr(text)
        compared += 1
    assert compared > COUNT // 2


def test_any_text_parses_or_is_refused_with_places() -> None:
    for text in documents(SEED + 1, COUNT // 3):
        for data in (text.encode(), b"FROM a\n" + text.encode()):
            try:
                parse(Source("Dockerfile", data))
            except Faults as faults:
                placed = all(error.span and error.code.startswith("dockerfile.") for error in faults.errors)
                if not placed or not render(faults):
                    pytest.fail(repr(data))


def test_formatting_keeps_the_tree() -> None:
    for text in documents(SEED + 2, COUNT // 3):
        for data in (text.encode(), b"FROM a\n" + text.encode()):
            try:
                dockerfile = parse(Source("Dockerfile", data))
            except Faults:
                continue
            formatted = format_dockerfile(dockerfile)
            again = parse(Source("Dockerfile", formatted))
            assert shape(again) == shape(dockerfile), repr(data)
            assert format_dockerfile(again) == formatted, repr(data)
