"""Ignore patterns of any kind: a list is what its patterns are one by one, and an escaped path means itself."""

from __future__ import annotations

import contextlib

from hypothesis import assume, given
from hypothesis import strategies as st

from aerogel.errors import AerogelError, Source
from aerogel.files.pattern import IgnoreMatcher, PatternMatcher

NAME = st.text("ab.*?[]^-\\ü", min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))
PATH = st.lists(NAME, min_size=1, max_size=4).map("/".join)
PATTERN = st.lists(st.sampled_from(["a", "b", "*", "**", "?", "/", "[ab]", "[^a]", ".", "\\a"]), min_size=1).map(
    "".join
)
SIGNED = st.tuples(st.booleans(), PATTERN)


@given(st.lists(SIGNED, max_size=6), st.lists(st.sampled_from(["a", "b", "ab", "."]), min_size=1, max_size=4))
def test_the_last_pattern_that_holds_decides(patterns: list[tuple[bool, str]], parts: list[str]) -> None:
    path = "/".join(parts).encode()
    matcher = None
    with contextlib.suppress(AerogelError):
        matcher = PatternMatcher([("!" if sign else "") + body for sign, body in patterns])
    assume(matcher is not None)
    assert matcher is not None
    expected = False
    for sign, body in patterns:
        if PatternMatcher([body]).matches(path):
            expected = not sign
    assert matcher.matches(path) is expected


@given(PATH, PATH)
def test_an_escaped_path_means_itself_and_what_is_below(path: str, other: str) -> None:
    escaped = "".join("\\" + sign if sign in "*?[]^-\\" else sign for sign in path)
    assume(not escaped.startswith("!"))
    matcher = IgnoreMatcher.parse(Source(".dockerignore", f"{escaped}\n".encode()))
    assert matcher.matches(path.encode())
    assert matcher.matches(f"{path}/{other}".encode())
    assert matcher.matches(other.encode()) == (other == path or other.startswith(path + "/"))
    back = IgnoreMatcher.parse(Source(".dockerignore", f"{escaped}\n!{escaped}/x\n".encode()))
    assert not back.matches(f"{path}/x/y".encode())
    assert back.may_except_below(path.encode())
