from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.debian.control import Relation, format_relations, paragraphs, relations
from aerogel.errors import AerogelError

CONTROL = """\
# a comment
Package: hello
Version:1.0
Description: short
 first line
 .
   indented
# between
Depends: a,
 b

Package: other\r
Empty:
"""


def test_paragraphs() -> None:
    assert list(paragraphs(CONTROL)) == [
        {
            "package": "hello",
            "version": "1.0",
            "description": "short\nfirst line\n.\n  indented",
            "depends": "a,\nb",
        },
        {"package": "other", "empty": ""},
    ]
    assert list(paragraphs("\n\n")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" x", "line 1 continues no field"),
        ("A: 1\nnonsense", "line 2 is no `Field: value`"),
        ("deb http://mirror.example.org/debian x main", "line 1 is no `Field: value`"),
        ("A: 1\na: 2", "line 2 repeats a field"),
    ],
)
def test_what_is_no_paragraph(text: str, message: str) -> None:
    with pytest.raises(AerogelError, match=message) as caught:
        list(paragraphs(text))
    assert caught.value.code == "debian.control"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("libc6", ((Relation("libc6"),),)),
        ("libc6 (>= 2.38)", ((Relation("libc6", "", ">=", "2.38"),),)),
        ("libc6(>=2.38)", ((Relation("libc6", "", ">=", "2.38"),),)),
        ("python3:any (>> 3~)", ((Relation("python3", "any", ">>", "3~"),),)),
        ("a | b (= 1:2-3), c", ((Relation("a"), Relation("b", "", "=", "1:2-3")), (Relation("c"),))),
        (
            "a [amd64 arm64], b [!armhf] <!nocheck>",
            ((Relation("a", architectures=("amd64", "arm64")),), (Relation("b", architectures=("!armhf",)),)),
        ),
        ("a (< 1), b (> 1)", ((Relation("a", "", "<=", "1"),), (Relation("b", "", ">=", "1"),))),
        ("a,\n b,\n", ((Relation("a"),), (Relation("b"),))),
        ("", ()),
    ],
)
def test_relations(field: str, expected: object) -> None:
    assert relations(field) == expected


@pytest.mark.parametrize("field", ["a b", "a (>= )", "a (~ 1)", "|", "a |", "-a", "a (>= 1", "ä"])
def test_what_is_no_relation(field: str) -> None:
    with pytest.raises(AerogelError) as caught:
        relations(field)
    assert caught.value.code == "debian.relation"


def test_architecture_lists() -> None:
    (first,), (second,) = relations("a [amd64 arm64], b [!armhf !i386]")
    assert [first.applies_to(arch) for arch in ("amd64", "armhf")] == [True, False]
    assert [second.applies_to(arch) for arch in ("amd64", "armhf")] == [True, False]
    assert Relation("a").applies_to("riscv64")


NAME = st.from_regex(r"[a-z][a-z0-9+.-]{0,6}", fullmatch=True)
RELATION = st.builds(
    Relation,
    NAME,
    st.sampled_from(["", "any", "amd64"]),
    st.just(""),
    st.just(""),
    st.sampled_from([(), ("amd64", "arm64"), ("!armhf",)]),
) | st.builds(lambda name, operator: Relation(name, "", operator, "1:2~3-4"), NAME, st.sampled_from(["<<", "=", ">="]))


@given(st.lists(st.lists(RELATION, min_size=1, max_size=3).map(tuple), max_size=4).map(tuple))
def test_format_and_parse(groups: tuple[tuple[Relation, ...], ...]) -> None:
    assert relations(format_relations(groups)) == groups
