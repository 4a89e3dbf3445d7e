"""Quotes, escapes, variables and modifiers; the expected values come from BuildKit's rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.dockerfile.ast import Word
from aerogel.dockerfile.pattern import replace, trim_prefix, trim_suffix
from aerogel.dockerfile.words import GROWTH, Quoting, expand, expand_words, process
from aerogel.errors import AerogelError, Source, Span

ENV = {"x": "value", "empty": "", "file": "a.tar.gz", "path": "/usr/local/bin", "b": "in  side", "1": "one"}


def word(text: str) -> Word:
    source = Source("Dockerfile", b"ENV " + text.encode())
    return Word(text, Span(source, 4, len(source.data)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$x", "value"),
        ("${x}y", "valuey"),
        ("$xy", ""),
        ("$1x", "onex"),
        ("$", "$"),
        ("$.", "$."),
        ("a$", "a$"),
        (r"\$x", "$x"),
        (r"\\$x", r"\value"),
        ("'$x'", "$x"),
        ('"$x"', "value"),
        (r'"\$x \n \""', r'$x \n "'),
        ("it\\'s", "it's"),
        ("end\\", "end"),
        ("${no:-d}", "d"),
        ("${no-d}", "d"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${x:+y}", "y"),
        ("${empty:+y}", ""),
        ("${empty+y}", "y"),
        ("${no+y}", ""),
        ("${x:?m}", "value"),
        ("${empty?m}", ""),
        ("${no:-${nil:-${x}}}", "value"),
        ("${no:-'}'}", "}"),
        ("${no:-a b}", "a b"),
        ("${file#*.}", "tar.gz"),
        ("${file##*.}", "gz"),
        ("${file%.*}", "a.tar"),
        ("${file%%.*}", "a"),
        ("${file%.?z}", "a.tar"),
        ("${path#/[u]sr}", "/usr/local/bin"),
        ("${path//\\//:}", ":usr:local:bin"),
        ("${path/\\//}", "usr/local/bin"),
        ("${path/l*l/L}", "/usr/L/bin"),
        ("${x/a/\\$0}", "v\\$0lue"),
        ("${path//[/-}", "/usr/local/bin"),
        ("${x//?/.}", "....."),
        ("${no/a/b}", ""),
        ("\ufeffx", "x"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(word(text), ENV.get) == expected


@pytest.mark.parametrize(
    ("text", "code", "marked"),
    [
        ("a${", "dockerfile.bad-substitution", "${"),
        ("a${}", "dockerfile.bad-substitution", "${}"),
        ("a${x", "dockerfile.bad-substitution", "${x"),
        ("a${x:=y} b", "dockerfile.bad-substitution", "${x:=y}"),
        ("a${x:#y}", "dockerfile.bad-substitution", "${x:#"),
        ("a${x^}", "dockerfile.bad-substitution", "${x^"),
        ("a${x/b}", "dockerfile.bad-substitution", "${x/b}"),
        ("a${x#\\q}", "dockerfile.bad-substitution", "${x#\\q}"),
        ("é'b", "dockerfile.unclosed-quote", "'b"),
        ('a"b', "dockerfile.unclosed-quote", '"b'),
        ("${no:?must be given}", "dockerfile.required-variable", "${no:?must be given}"),
        ("${empty:?}", "dockerfile.required-variable", "${empty:?}"),
    ],
)
def test_errors_point_into_the_word(text: str, code: str, marked: str) -> None:
    with pytest.raises(AerogelError) as caught:
        expand(word(text), ENV.get)
    assert caught.value.code == code
    assert caught.value.span is not None
    assert caught.value.span.text == marked


def test_backtick_as_escape() -> None:
    assert expand(word("C:\\dir`$x$x"), ENV.get, "`") == "C:\\dir$xvalue"


def test_words_split_after_expansion_but_not_in_quotes() -> None:
    assert expand_words(word('80 $b "$b" a\\ b'), ENV.get) == ["80", "in", "side", "in  side", "a b"]
    assert expand_words(word("a${no:-b c}d ''"), ENV.get) == ["ab", "cd"]


def test_names_are_reported() -> None:
    result = process("$x ${no:-$other} '$never' \\$never $x", ENV.get)
    assert result.used == ("x",)
    assert result.unset == ("other", "no")


def test_heredoc_text_keeps_quotes() -> None:
    assert process("'$x' \"\\$x\"", ENV.get, "\\", Quoting(quotes=False)).text == "'value' \"$x\""


def test_no_nesting_is_too_deep() -> None:
    assert process("${no:-" * 20_000 + "end" + "}" * 20_000, ENV.get).text == "end"


PIECES = st.lists(st.sampled_from([*list("ab\\'\"$ {}:-+?#%/*<."), "${a", "$a", "${b:-", "}", "é"]), max_size=25).map(
    "".join
)


@given(PIECES, st.sampled_from("\\`"))
def test_any_text_expands_or_is_refused_with_a_place(text: str, escape: str) -> None:
    lookup = {"a": "va*l/ue", "ab": ""}.get
    try:
        process(text, lookup, escape, Quoting(split=True), span=word(text).span)
    except AerogelError as error:
        if error.span is None or not error.code.startswith("dockerfile."):
            pytest.fail(error.message)


@given(st.text())
def test_a_quoted_text_is_itself(text: str) -> None:
    if "'" not in text:
        assert process(f"'{text}'", ENV.get).text == text
    escaped = "".join("\\" + c for c in text)
    assert process("x" + escaped, ENV.get).text == "x" + text


@given(st.text("ab.*?", max_size=8), st.text("ab.", max_size=14), st.booleans())
def test_patterns_agree_with_regular_expressions(pattern: str, value: str, longest: bool) -> None:
    import re

    star = ".*" if longest else ".*?"
    regex = "".join({"*": star, "?": "."}.get(c, re.escape(c)) for c in pattern)
    match = re.match(regex, value)
    assert trim_prefix(value, pattern, longest=longest) == (value[match.end() :] if match else value)
    ends = [i for i in range(len(value) + 1) if re.fullmatch(regex, value[i:])]
    kept = (ends[0] if longest else ends[-1]) if ends else len(value)
    assert trim_suffix(value, pattern, longest=longest) == value[:kept]
    first = re.search("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), value)
    replaced = value[: first.start()] + "X" + value[first.end() :] if first else value
    assert replace(value, pattern, "X", every=False) == replaced


def test_replacing_every_match() -> None:
    assert replace("banana", "an", "<$0>", every=True) == "b<an><an>a"
    assert replace("abc", "", "-", every=True) == "-a-b-c-"
    assert replace("a\nb", "*", "x", every=True) == "x\nx"
    assert replace("aaa", "a", "$$${1}$", every=True) == "$$" * 3


@pytest.mark.parametrize(
    "text",
    [
        "${a//" + "/${a//" * 6 + "/x" + "}" * 7,
        "$long$long",
        "${a:+$long$long}",
        r"${long//?/\$0\$0\$0}",
    ],
)
def test_variables_do_not_fill_the_memory(text: str) -> None:
    values = {"a": "x" * 1000, "long": "y" * (GROWTH - 10)}
    with pytest.raises(AerogelError) as caught:
        expand(word(text), values.get)
    assert caught.value.code == "dockerfile.too-long"
    assert caught.value.span is not None
    assert expand(word("$long"), values.get) == values["long"]


QUOTES = {
    "'": lambda text: "'" + text.replace("'", "'\\''") + "'",
    '"': lambda text: '"' + re.sub(r'(["\\$])', r"\\\1", text) + '"',
}


@given(st.text(st.characters(exclude_characters="\0\r\n\ufeff", exclude_categories=["Cs"])), st.sampled_from("'\""))
def test_what_is_quoted_comes_out_as_it_was(text: str, quote: str) -> None:
    assert process(QUOTES[quote](text), {"a": "wrong"}.get).text == text


@given(st.text("ab*?/ $}\\", max_size=12))
def test_a_value_is_never_read_again(value: str) -> None:
    assert process('${v}$v"$v"${v:-x}${no:-$v}', {"v": value}.get).text == value * 3 + (value or "x") + value
