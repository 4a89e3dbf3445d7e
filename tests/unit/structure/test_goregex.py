"""Expressions of Go as Python's, against RE2 itself, which Go's package is a copy of."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aerogel.structure.goregex import RegexFault, translate

TEXTS = (
    "",
    "a",
    "ab\n",
    "A b",
    "foo\nbar",
    "foo\n",
    "x1_",
    "\x0b",
    "é",
    "É",
    "[]",
    "a-b",
    "\\",
    "{2}",
    "aaa",
    "$PATH",
    "K",
)

PATTERNS = (
    "a", "^a$", "b$", "b\n$", "(?m)^bar$", "(?m)o$", "^bar", "foo.bar", "(?s)foo.bar", r"\w+", r"\W", r"\d", r"\D",
    r"\s", r"\S", r"[\s]", r"[\S]", r"[^\s]", r"[^\S]", r"[\D]", r"[^\W]", r"\bb\b", r"\B", r"\Ab", r"o\z", "a|b|", "(?i)A",
    "(?i:B)a", "x(?i)A|B", "(x(?i)y)z|A", "(?i)é", "(?-i)a", "(?i)[a-c]B", "[[:alpha:]]", "[[:^alpha:]]", "[[:word:]-]",
    "[]a]", "[^]a]", "[a-]", r"[\]\-\\]", r"[\x00-\x1f]", "[^a]", "a{2}", "a{2,}", "a{0,2}b", "a{,2}", "a{x", "(?)a",
    r"\Q[]\E", r"\Qa", r"\x41", r"\x{e9}", r"\012", r"\07", r"\.", r"\-", r"\_", "(?P<n>a)b", "(?:a)(?:b)?", "a*?", "a+?b",
    "a??", "(a*)*", "(a|b)+", "^*", "$?", r"\pL", r"\p{Lu}", r"\PL", r"\p{^L}", r"[\pN_]", "", "()", "(|a)", ".", "(?s).",
    "é", "[é-ü]", "a$b", "a^b", "(?m)a$\n^b", r"\n", r"\v", r"[\v]", r"\$PATH", "[$]", "(?U)a+", "(?is)A.B", "[&&]", "[a||b]",
    "[a~~]", "[[a]", r"\a", r"[\a\f]", "#", " ", "[ #]", "(?i)k", "(?i)\u017f",
)  # fmt: skip

REFUSED = (
    "(", ")", "(a", "a)", "[a", "[]", "*", "+a", "a**", "a*+", "a++", "a{2}{3}", "a{1001}", "a{3,2}", r"\1", r"\8", r"\e",
    r"\Z", r"\y", "(?=a)", "(?!a)", "(?<=a)", "(?>a)", "(?#a)", "(?x)a", "{2}", "a\\", "[b-a]", "[[:foo:]]", r"\p{Foo}",
    "(?P<a b>c)", "(?P=n)", "|*", "(*)", r"\pX", r"[\y]", "(?i", r"\x{110000}", r"\xg",
)  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_texts_match(pattern: str) -> None:
    re2 = pytest.importorskip("re2")
    theirs = re2.compile(pattern)
    for text in TEXTS:
        assert (translate(pattern).search(text) is not None) == (theirs.search(text) is not None), text


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_go_refuses_is_refused(pattern: str) -> None:
    re2 = pytest.importorskip("re2")
    options = re2.Options()
    options.log_errors = False
    with pytest.raises(re2.error):
        re2.compile(pattern, options)
    with pytest.raises(RegexFault):
        translate(pattern)


@pytest.mark.parametrize("pattern", [r"\C", r"\p{Greek}"])
def test_what_cannot_be_kept_is_refused(pattern: str) -> None:
    with pytest.raises(RegexFault):
        translate(pattern)


_PIECES = st.sampled_from(
    ["a", "b", "A", ".", "^", "$", "|", "(", ")", "(?:", "(?i)", "(?m)", "(?s)", "(?i:", "[ab]", "[^a]", r"\w", r"\b", r"\s",
     r"\S", r"\z", r"\A", "*", "+", "?", "{1,2}", "\n", r"\n", "[[:upper:]]", r"[\d-]", r"\pL"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, max_size=7).map("".join), st.text("aAb\n 1", max_size=5))
@example("a(?i)b|c", "C")
def test_any_expression(pattern: str, text: str) -> None:
    re2 = pytest.importorskip("re2")
    options = re2.Options()
    options.log_errors = False
    try:
        theirs = re2.compile(pattern, options)
    except re2.error:
        with pytest.raises(RegexFault):
            translate(pattern)
        return
    assert (translate(pattern).search(text) is not None) == (theirs.search(text) is not None)
