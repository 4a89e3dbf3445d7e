"""What golden trees do not show: spans, mounts resolved, limits, time."""

from __future__ import annotations

import contextlib
import time

import pytest

from aerogel.dockerfile import ast
from aerogel.dockerfile.durations import parse_duration
from aerogel.dockerfile.frontend import syntax_warning
from aerogel.dockerfile.jsonarray import JsonTypeError, parse_array
from aerogel.dockerfile.mounts import BindMount, CacheMount, SecretMount, SshMount, TmpfsMount, resolve
from aerogel.dockerfile.parse import parse
from aerogel.dockerfile.syntax import detect_syntax
from aerogel.errors import Faults, Source


def dockerfile(text: str | bytes) -> ast.Dockerfile:
    return parse(Source("Dockerfile", text.encode() if isinstance(text, str) else text))


def first(text: str) -> ast.Instruction:
    return dockerfile(f"FROM a\n{text}\n").stages[0].instructions[0]


def faults(text: str | bytes) -> Faults:
    with pytest.raises(Faults) as caught:
        dockerfile(text)
    return caught.value


def test_spans_survive_continuations_and_letters_outside_ascii() -> None:
    copy = first("COPY é \\\n# ü\n  ö.txt \\\n\n  /ß/")
    assert isinstance(copy, ast.Copy)
    assert [word.span.text for word in copy.sources] == ["é", "ö.txt"]
    assert copy.destination.span.text == "/ß/"
    assert (copy.destination.span.line, copy.destination.span.column) == (6, 3)
    assert copy.span.text.startswith("COPY")
    assert copy.span.end_line == 6


def test_a_word_broken_by_a_continuation_spans_both_lines() -> None:
    run = first("ENV a=lo\\\nng b=2")
    assert isinstance(run, ast.Env)
    assert [(pair.key.text, pair.value.text) for pair in run.pairs] == [("a", "long"), ("b", "2")]
    assert run.pairs[0].value.span.text == "lo\\\nng"
    assert run.pairs[1].value.span.text == "2"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("target=/x", BindMount(target="/x")),
        ("type=bind,src=/a,dst=/x,from=b,rw", BindMount(target="/x", source="/a", from_="b", readonly=False)),
        ("type=cache,target=/a//b/", CacheMount(target="/a//b/", id="/a/b")),
        (
            "type=cache,destination=/c,sharing=Locked,ro=1,mode=0700,uid=5,gid=6",
            CacheMount(target="/c", id="/c", sharing="locked", readonly=True, mode=0o700, uid=5, gid=6),
        ),
        ("type=tmpfs,target=/t,size=1.5GiB", TmpfsMount(target="/t", size_bytes=1610612736)),
        ("type=secret,id=a", SecretMount(id="a", target="/run/secrets/a")),
        ("type=secret,target=/k/b,required", SecretMount(id="b", target="/k/b", required=True)),
        ("type=secret,id=a,env=A", SecretMount(id="a", target=None, env="A")),
        ("type=secret,src=a,env=A,target=/f,mode=0440", SecretMount(id="a", target="/f", env="A", mode=0o440)),
        ("type=ssh,required=false,id=z", SshMount(id="z")),
        ("type=$T,target=$H/c", CacheMount(target="HOME/c", id="HOME/c")),
    ],
)
def test_mounts(options: str, expected: object) -> None:
    run = first(f"RUN --mount={options} x")
    assert isinstance(run, ast.Run)
    values = {"$T": "cache", "$H/c": "HOME/c"}
    assert resolve(run.mounts[0], lambda word: values.get(word.text, word.text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1m30s", 90 * 10**9), ("1.5ms", 1_500_000), ("0", 0), ("-1s", -(10**9)), ("1", None), ("", None), (".s", None)],
)
def test_durations(text: str, expected: int | None) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["[", "[1e999]", "['a']", '["a",]', '["a"] x', '["a\tb"]', '["\\x"]', "[" * 10_001 + "]" * 10_001]
)
def test_text_that_is_no_array(text: str) -> None:
    assert parse_array(text, 0, len(text)) is None


@pytest.mark.parametrize(
    "text", ["[1]", "[null]", '["a", {"b": [1, -2.5e3, true]}]', "[[]]", "[" * 9_999 + "]" * 9_999]
)
def test_arrays_of_something_else(text: str) -> None:
    with pytest.raises(JsonTypeError):
        parse_array(text, 0, len(text))


def test_lone_surrogates_become_replacement_characters() -> None:
    text = '["\\ud800x", "\\ud83d\\ude00"]'
    strings = parse_array(text, 0, len(text))
    assert strings is not None
    assert [string.text for string in strings] == ["\ufffdx", "\U0001f600"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"# syntax=docker/dockerfile:1\nFROM a", "docker/dockerfile:1"),
        (b"\xef\xbb\xbf#!/bin/x\n# escape=`\n# Syntax = a b \r\n", "a b"),
        (b"// syntax=x\n", "x"),
        (b'{"syntax": "y"}', "y"),
        (b"\n# syntax=x\n", None),
        (b"# x\n# syntax=x\n", None),
        (b"{", None),
    ],
)
def test_syntax_in_all_its_forms(data: bytes, expected: str | None) -> None:
    assert detect_syntax(data) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nRUN " + "x" * 10_000_000,
        "FROM a\nENV " + "x=é \\\n" * 100_000 + "y=1\n",
        "".join(f"FROM a{i} AS s{i}\n" for i in range(10_000)),
        "FROM a\nRUN " + "[" * 60_000,
        "FROM a\nENV a=" + "\"'" * 30_000,
        "FROM a\nRUN " + "<<A " * 10_000 + "\n" + "A\n" * 10_000,
        "# syntax=x" + " " * 60_000 + "y\nFROM a",
        "FOO\n" * 20_000,
        "FROM a\n" + "ONBUILD " * 8_000,
    ],
    ids=["long-line", "continuations", "stages", "brackets", "quotes", "heredocs", "directive", "faults", "onbuild"],
)
def test_time_is_linear(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(Faults):
        dockerfile(text)
    assert time.process_time() - start < 3


def test_all_faults_are_reported_in_order() -> None:
    text = "FORM a\nFROM b\nCOPY x\nRUN --moutn=x y\n"
    assert [error.code for error in faults(text).errors] == [
        "dockerfile.unknown-instruction",
        "dockerfile.missing-destination",
        "dockerfile.unknown-flag",
    ]


@pytest.mark.parametrize(
    ("syntax", "code"),
    [
        ("docker/dockerfile:1", None),
        ("docker.io/docker/dockerfile:1.26-labs@sha256:" + "0" * 64, None),
        ("docker/dockerfile-upstream:master", None),
        ("docker/dockerfile", None),
        ("dockerfile.v0", None),
        ("docker/dockerfile:1.27", "dockerfile.newer-frontend"),
        ("docker/dockerfile:2", "dockerfile.newer-frontend"),
        ("example.com/mine:1", "dockerfile.other-frontend"),
    ],
)
def test_frontends(syntax: str, code: str | None) -> None:
    warning = syntax_warning(dockerfile(f"# syntax={syntax}\nFROM a\n"))
    assert (warning.code if warning else None) == code
