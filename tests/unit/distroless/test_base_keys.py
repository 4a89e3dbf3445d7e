"""The key of a selection: everything that decides the bytes of a base is in it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from aerogel.commands.locking import _layer_part
from aerogel.debian.package import Package
from aerogel.debian.resolve import Chosen
from aerogel.distroless import makers, rules
from aerogel.distroless.base import Selection, ToolSets, image_config, selection_key
from aerogel.distroless.catalogue import lookup
from aerogel.distroless.recipe import Recipe
from aerogel.distroless.underlay import Underlay
from aerogel.oci.digest import digest_of
from aerogel.oci.platform import Platform
from aerogel.oci.types import History, ImageConfig, RootFS

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


OF_CONFIG = {
    *("name", "env", "entrypoint", "cmd", "user", "workdir", "labels", "stop_signal", "volumes", "ports"),
    *("tests", "forgets"),
}
"""What only the config of an image has: two tags of a lock that differ in nothing else are composed once."""


@pytest.mark.parametrize("field", Recipe.__struct_fields__)
def test_tags_that_differ_in_a_file_have_layers_of_their_own(field: str):
    """Also of a field that comes one day: it is here when somebody has seen that no layer depends on it."""
    before = getattr(PYTHON, field)
    other = {str: "other", bool: not before, tuple: ("other",), dict: {"other": "other"}}.get(type(before), "other")
    changed = msgspec.structs.replace(PYTHON, **{field: other})
    assert (_layer_part(changed) == _layer_part(PYTHON)) == (field in OF_CONFIG)


@pytest.mark.parametrize("is_on_image", [False, True])
def test_an_image_is_as_old_as_its_newest_package(is_on_image: bool):
    """In seconds since 1970 it is given, in the form of RFC 3339 it is written; an image below has its own time."""
    platform = Platform.parse("linux/amd64")
    below = ImageConfig(
        created="2001-02-03T04:05:06Z",
        architecture="amd64",
        os="linux",
        rootfs=RootFS(diff_ids=(digest_of(b"below"),)),
        history=(History(created="2001-02-03T04:05:06Z"),),
    )
    underlay = Underlay("docker://a/b", digest_of(b"image"), below, (), lambda number: number) if is_on_image else None
    selection = Selection(STATIC, platform, "amd64", (chosen("a"),), digest_of(b"key"), {}, underlay)
    made = image_config(selection, (digest_of(b"own"),), 631152000)
    assert made.created == "1990-01-01T00:00:00Z"
    assert [one.created for one in made.history] == [*["2001-02-03T04:05:06Z"] * is_on_image, "1990-01-01T00:00:00Z"]
    assert len(made.rootfs.diff_ids) == 1 + is_on_image
