"""Words of a declaration that lead nowhere are told whatever is made of it, with their place."""

from __future__ import annotations

import pytest
from own_bases import AMD64, DECLARATION, Archive, Base


def sliced(name: str) -> str:
    return f"slices: {{packages: {{{name}: {{drop: [/usr/bin/x]}}}}}}"


@pytest.mark.parametrize("words", [("build", *AMD64, "base.yaml:nonroot"), ("show", "base.yaml"), ("lock", *AMD64)])
@pytest.mark.parametrize(
    ("variants", "circle"),
    [
        ("one: {extends: two}, two: {extends: one}", "`one` -> `two` -> `one`"),
        ("one: {extends: one}", "`one` -> `one`"),
        ("one: {extends: two}, two: {extends: three}, three: {extends: two}", "`two` -> `three` -> `two`"),
    ],
)
def test_variants_in_a_circle_that_nobody_asked_for(base: Base, words: tuple[str, ...], variants: str, circle: str):
    base.write("base.yaml", f"{DECLARATION}variants: {{{variants}}}\n")
    base("base", *words, status=2)
    assert f"error: variants extend each other in a circle: {circle}\n  --> base.yaml:6:" in base.said


def test_a_variant_that_is_gone_matters_to_who_wants_it(base: Base):
    base.write("base.yaml", f"{DECLARATION}variants: {{one: {{extends: tow}}, two: {{}}}}\n")
    base("base", "build", *AMD64, "base.yaml:two")
    base("base", "build", *AMD64, "base.yaml:one", status=2)
    assert "did you mean `two`?" in base.said


@pytest.mark.parametrize("part", ["{}", "variants: {{latest: {{{}}}}}", "releases: {{trixie: {{{}}}}}"])
def test_a_rule_for_a_misspelt_package(base: Base, part: str):
    base.write("base.yaml", f"{DECLARATION}{part.format(sliced('tol'))}\n")
    for words in (("build", *AMD64, "base.yaml"), ("lock", *AMD64), ("build", *AMD64, "base.yaml:latest-parity")):
        base("base", *words, status=2)
        assert "error: `slices.packages` names `tol`, which is not in the image\n  --> base.yaml:6:" in base.said
        assert "hint: did you mean `tool`?" in base.said
    assert not (base.folder / "base.lock.json").exists()


@pytest.mark.parametrize(
    ("name", "hint"), [("libtool2", "did you mean `libtool1`?"), ("firefox", "`aerogel base show --packages` lists")]
)
def test_a_rule_for_a_package_that_is_elsewhere(base: Base, name: str, hint: str):
    """Another version of a library, or what one architecture has only, may be meant for another image."""
    base.write("base.yaml", f"{DECLARATION}{sliced(name)}\n")
    for words in (("build", *AMD64, "base.yaml"), ("lock", *AMD64), ("build", *AMD64, "--locked", "base.yaml")):
        base.on_another_machine(words[0])
        base("base", *words)
        told = f"warning: `slices.packages` names `{name}`, which is not in the image: the rule does nothing"
        assert base.said.count(told) == 1
        assert f"hint: {hint}" in base.said


def test_a_rule_for_a_package_that_a_variant_takes_away(base: Base):
    more = f"{sliced('tool')}\nvariants: {{less: {{without: [tool], packages: [libtool1]}}}}\n"
    base.write("base.yaml", DECLARATION + more)
    base("base", "build", *AMD64, "base.yaml")
    assert "slices" not in base.said
    base("base", "build", *AMD64, "base.yaml:less")
    assert "`slices.packages` names `tool`, which is not in the image: the rule does nothing" in base.said


def test_rules_of_a_built_in_base_are_its_own(base: Base, archive: Archive):
    """This one has a rule for a library of Debian 12 as well."""
    base.write("base.yaml", DECLARATION.replace("static", "dotnet-deps-icu"))
    for name in ("libc6", "libgcc-s1", "libgomp1", "libssl3t64", "libstdc++6", "zlib1g", "openssl", "libicu76"):
        archive.put(name)
    archive.publish()
    assert "libicu72" in base("base", "show", "--json", "base.yaml")
    base("base", "build", *AMD64, "base.yaml")
    assert "slices" not in base.said


@pytest.mark.parametrize(
    ("there", "hint"), [(("21", "25"), "\nhint: there are 21 and 25\n"), (("21",), "\nhint: there is 21\n"), ((), "\n")]
)
def test_a_java_that_debian_does_not_have(base: Base, archive: Archive, there: tuple[str, ...], hint: str):
    for version in there:
        archive.put(f"openjdk-{version}-jre-headless")
    archive.publish()
    base.write("base.yaml", DECLARATION.replace("[tool]", "[openjdk-12-jre-headless]") + "java: {version: 12}\n")
    for words in (("build", *AMD64, "base.yaml"), ("build", *AMD64, "base.yaml:parity"), ("lock", *AMD64)):
        base("base", *words, status=2)
        assert "error: `java.version` is 12, and trixie has no such Java for amd64\n  --> base.yaml:6:1" in base.said
        assert base.said.partition("^")[2].lstrip("^").startswith(hint)
