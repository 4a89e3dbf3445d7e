"""The key of a selection: everything that decides the bytes of a base is in it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from aerogel.debian.package import Package
from aerogel.debian.resolve import Chosen
from aerogel.distroless import makers, rules
from aerogel.distroless.base import ToolSets, selection_key
from aerogel.distroless.catalogue import lookup
from aerogel.distroless.recipe import Recipe

STATIC = lookup("gcr.io/distroless/static")
PYTHON = lookup("gcr.io/distroless/python3")


def chosen(name: str, digit: str = "1") -> Chosen:
    package = Package(
        name=name,
        version="1",
        architecture="amd64",
        filename=f"{name}.deb",
        size=1,
        sha256=digit * 64,
        source=name,
        source_version="1",
    )
    return Chosen(package, (name,))


def key(recipe: Recipe = STATIC, arch: str = "amd64", *packages: Chosen, tools: ToolSets | None = None) -> str:
    return selection_key(recipe, arch, packages or (chosen("a"), chosen("b", "2")), tools or {})


def test_what_is_in_it():
    replace = msgspec.structs.replace
    made = [
        key(),
        key(STATIC, "arm64"),
        key(replace(STATIC, user="65532")),
        key(replace(STATIC, rules="parity")),
        key(STATIC, "amd64", chosen("a")),
        key(STATIC, "amd64", chosen("a"), chosen("b", "3")),
        key(tools={"python": (chosen("t"),)}),
        key(tools={"java": (chosen("t"),)}),
        key(tools={"java": (chosen("t", "2"),)}),
    ]
    assert len(set(made)) == len(made)
    assert key(STATIC, "amd64", chosen("b", "2"), chosen("a")) == key()


@pytest.mark.parametrize("field", ["name", "version", "architecture", "source", "source_version"])
def test_what_a_lock_says_of_a_file_is_in_it(field: str):
    """Two locks may name one file; files and layers go by what a package is called."""
    one = chosen("a")
    other = Chosen(msgspec.structs.replace(one.package, **{field: "2"}), one.why)
    assert key(STATIC, "amd64", one) != key(STATIC, "amd64", other)
    assert key(tools={"java": (one,)}) != key(tools={"java": (other,)})


def test_dpkg_has_an_order():
    root = lookup("debian")
    one, two = chosen("a"), chosen("b", "2")
    assert root.kind == "buildroot"
    assert key(root, "amd64", one, two) != key(root, "amd64", two, one)


def other_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rules.PROFILES, "micro", rules.MICRO[:-1])


def other_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = tuple(each._replace(version=each.version + 1) if each.name == "python" else each for each in makers.MAKERS)
    monkeypatch.setattr(makers, "MAKERS", newer)


@pytest.mark.parametrize("change", [other_rule, other_maker])
def test_another_aerogel_has_other_keys(change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch):
    before = key(PYTHON)
    change(monkeypatch)
    assert key(PYTHON) != before
