"""Platforms: normal forms, parsing, choice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import AerogelError
from aerogel.oci.platform import ARCHITECTURES, Platform

AMD64 = Platform(os="linux", architecture="amd64")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/X86-64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/5", "linux/arm/v5"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/ppc64el", "linux/ppc64le"),
        ("macos/arm64", "darwin/arm64"),
        ("windows/amd64", "windows/amd64"),
        ("amd64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armhf", "linux/arm/v7"),
        ("riscv64", "linux/riscv64"),
        ("wasi/wasm", "wasi/wasm"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal


def test_one_word_takes_the_rest_from_the_default() -> None:
    arm = Platform.parse("linux/arm/v6")
    assert str(Platform.parse("windows", default=arm)) == "windows/arm/v6"
    assert str(Platform.parse("s390x", default=Platform.parse("freebsd/amd64"))) == "freebsd/s390x"
    assert Platform.parse("linux").architecture == Platform.host().architecture


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "write `os/architecture`", "for example `linux/amd64`"),
        ("linux/", "write `os/architecture`", "for example"),
        ("linux/amd64/v2/x", "it has 4 parts", ""),
        ("linux/am d64", "write `os/architecture`", "for example"),
        ("amd46", "neither an operating system nor an architecture", "did you mean `amd64`?"),
        ("sparc", "neither an operating system nor an architecture", ""),
    ],
)
def test_refused_with_what_is_valid(text: str, message: str, hint: str) -> None:
    with pytest.raises(AerogelError) as caught:
        Platform.parse(text)
    assert caught.value.code == "oci.platform"
    assert message in caught.value.message
    assert hint in "".join(caught.value.hints)


@given(
    st.sampled_from(["linux", "windows", "darwin", "freebsd"]),
    st.sampled_from([*ARCHITECTURES, "x86_64", "aarch64", "armhf", "ppc64el"]),
    st.sampled_from(["", "v1", "v2", "v5", "v7", "v8", "8"]),
)
def test_normal_form_is_stable_and_parses_back(os_name: str, architecture: str, variant: str) -> None:
    made = Platform.of(os_name, architecture, variant)
    assert made.normal() == made
    assert Platform.parse(str(made)) == made
    assert made.matches(made)
    assert hash(made) == hash(Platform.parse(str(made)))


@pytest.mark.parametrize(
    ("host", "image", "runs"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/amd64/v3", "linux/amd64/v2", True),
        ("linux/amd64", "linux/amd64/v2", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/ppc64le/power9", "linux/ppc64le", True),
        ("linux/ppc64le", "linux/ppc64le/power9", False),
    ],
)
def test_matches(host: str, image: str, runs: bool) -> None:
    assert Platform.parse(host).matches(Platform.parse(image)) is runs


@pytest.mark.parametrize(
    ("host", "images", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["linux/386", "linux/arm64"], 0),
        ("linux/amd64/v4", ["linux/amd64", "linux/amd64/v3", "linux/amd64/v2"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", ["linux/s390x", None], None),
        ("linux/amd64", [], None),
    ],
)
def test_choose(host: str, images: list[str | None], chosen: int | None) -> None:
    candidates = [Platform.parse(image) if image else None for image in images]
    assert Platform.parse(host).choose(candidates) == chosen
