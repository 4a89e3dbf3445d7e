"""Names of built-in images."""

from __future__ import annotations

import itertools

import pytest

from aerogel.distroless.catalogue import (
    VARIANTS,
    Choice,
    built_in,
    declarations,
    find,
    lookup,
    suggestion,
    upstream,
    with_more,
    with_packages,
    without_architecture,
)
from aerogel.distroless.externals import externals_of
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES
from aerogel.errors import AerogelError


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("debian", "debian:trixie"),
        ("debian:latest", "debian:trixie"),
        ("docker.io/library/debian:bookworm", "debian:bookworm"),
        ("library/debian:12-slim", "debian:bookworm-slim"),
        ("debian:trixie-slim", "debian:trixie-slim"),
        ("debian:stable-slim", "debian:trixie-slim"),
        ("aerogel/cc-build:bookworm", "aerogel/cc-build:bookworm"),
        ("aerogel/debian+git+git:12-slim", "aerogel/debian+git:bookworm-slim"),
        ("aerogel/python3+libpq5:nonroot", "aerogel/python3-debian13+libpq5:nonroot"),
        ("gcr.io/distroless/static", "gcr.io/distroless/static-debian13:latest"),
        ("gcr.io/distroless/static:nonroot", "gcr.io/distroless/static-debian13:nonroot"),
        ("gcr.io/distroless/base-nossl-debian12", "gcr.io/distroless/base-nossl-debian12:latest"),
        ("gcr.io/distroless/python3-debian12:debug-nonroot", "gcr.io/distroless/python3-debian12:debug-nonroot"),
    ],
)
def test_found(reference, name):
    recipe = find(reference)
    assert recipe is not None
    assert recipe.name == name
    assert find(recipe.name) == recipe


@pytest.mark.parametrize(
    "reference",
    [
        "debian:sid",
        "debian@sha256:" + "0" * 64,
        "gcr.io/distroless/static@sha256:" + "0" * 64,
        "gcr.io/distroless/static:v1",
        "gcr.io/distroless/static-debian",
        "gcr.io/distroless/static-debian11",
        "gcr.io/distroless/java7",
        "example.org/debian",
        "ubuntu",
        "scratch",
    ],
)
def test_not_built_in(reference):
    assert find(reference) is None


@pytest.mark.parametrize(
    ("reference", "near"),
    [
        ("gcr.io/distroless/pyhton3", "gcr.io/distroless/python3"),
        ("gcr.io/distroless/statik-debian12:nonroot", "gcr.io/distroless/static-debian12:nonroot"),
        ("gcr.io/distroless/static:nonrot", "gcr.io/distroless/static:nonroot"),
        ("debain:bookworm", "debian:bookworm"),
        ("debian:bokworm", "debian:bookworm"),
        ("python4", "gcr.io/distroless/python3"),
        ("python:3.12-slim", None),
        ("python", None),
        ("node:22", None),
        ("debain:bookwrm", "debian:bookworm"),
        ("quay.io/some/thing", None),
    ],
)
def test_did_you_mean(reference, near):
    assert suggestion(reference) == near
    with pytest.raises(AerogelError) as caught:
        lookup(reference)
    assert caught.value.code == "distroless.unknown-image"
    assert caught.value.hints[0] == (f"did you mean `{near}`?" if near else caught.value.hints[0])


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("gcr.io/distroless/cc+libpq5", "aerogel/cc+libpq5"),
        ("gcr.io/distroless/cc-debian12+libpq5+probe:nonroot", "aerogel/cc-debian12+libpq5+probe:nonroot"),
        ("python3+libpq5", "aerogel/python3+libpq5"),
        ("gcr.io/distroless/ccc+libpq5", None),
        ("quay.io/some/cc+libpq5", None),
        ("gcr.io/distroless/cc", None),
    ],
)
def test_packages_are_added_to_names_of_aerogel(reference, name):
    assert with_packages(reference) == name
    assert name is None or find(name) is not None


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("gcr.io/distroless/static-debian13:latest-amd64", ("linux/amd64", "gcr.io/distroless/static-debian13:latest")),
        ("gcr.io/distroless/cc:debug-nonroot-arm", ("linux/arm/v7", "gcr.io/distroless/cc:debug-nonroot")),
        ("gcr.io/distroless/static:nonrot-amd64", None),
        ("gcr.io/distroless/static:amd64", None),
        ("quay.io/some/thing:latest-amd64", None),
    ],
)
def test_tags_of_one_architecture(reference, found):
    assert without_architecture(reference) == found
    if found is not None:
        with pytest.raises(AerogelError) as caught:
            lookup(reference)
        assert caught.value.hints == (f"did you mean `{found[1]}` for the platform {found[0]}?",)


ENTRYPOINTS = {"python3": ("/usr/bin/python3.13",), "java": ("/usr/bin/java", "-jar"), "nodejs": ("/nodejs/bin/node",)}


@pytest.mark.parametrize("name", upstream())
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(name, variant):
    recipe = lookup(f"gcr.io/distroless/{name}:{variant}")
    assert recipe.user == ("65532" if "nonroot" in variant else "0")
    assert recipe.workdir == ("/home/nonroot" if "nonroot" in variant else "/")
    assert recipe.busybox == ("debug" in variant)
    assert "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" in recipe.env
    if variant in ("latest", "nonroot"):
        assert recipe.entrypoint == ENTRYPOINTS.get(name.rstrip("0123456789"), ENTRYPOINTS.get(name, ()))
        assert recipe.env[0] == "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    else:
        assert recipe.entrypoint == ("/busybox/sh",)
        assert recipe.env[0].endswith(":/bin:/busybox")


@pytest.mark.parametrize("name", ["aerogel/debian", "aerogel/cc-build", "aerogel/python3"])
def test_packages_are_added_to_every_kind_of_base(name):
    recipe, plain = lookup(f"{name}+libpq5+probe"), lookup(name)
    assert set(recipe.packages) - set(plain.packages) == {"libpq5"}
    assert recipe.probe


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("version", [22, 24, 26])
def test_nodejs_is_built_for_with_the_very_same_nodejs(version, arch):
    running, building = (
        {one.identity: one.sha512 for one in externals_of(lookup(name).archives, arch)}
        for name in (f"aerogel/nodejs{version}", f"aerogel/nodejs{version}-build")
    )
    (node,) = running
    assert building[node] == running[node]


def test_each_is_based_on_the_one_before():
    family = ("static", "base-nossl", "base", "cc", "python3")
    packages = [set(lookup(f"gcr.io/distroless/{name}").packages) for name in family]
    assert all(small < large for small, large in itertools.pairwise(packages))


def test_what_python_3_14_leaves_out_is_a_rule_with_a_reason():
    """Whole packages are in `parity`. That nothing else is missing, a test in a sandbox shows."""
    micro, parity = (lookup(f"aerogel/python3.14:{tag}") for tag in ("latest", "parity"))
    rule = micro.slices["libpython3.14-stdlib"]
    assert {"/usr/lib/python3.14/_pydecimal.py", "/usr/lib/python3.14/lib-dynload/_dbm.*"} <= set(rule.drop)
    assert "that repeat in Python what is compiled, and the one that needs Berkeley DB" in rule.why
    assert "libdb5.3t64" in set(micro.skip) - set(parity.skip)
    assert parity.slices == {}


def test_names_of_packages_may_have_plus_signs():
    more = set(lookup("aerogel/static+g+++libstdc++6+make").packages) - set(lookup("aerogel/static").packages)
    assert more == {"g++", "libstdc++6", "make"}
    assert with_more("gcr.io/distroless/cc:debug", ["g++", "tzdata"]) == "aerogel/cc+g+++tzdata:debug"
    for name in ("aerogel/cc+", "aerogel/cc++g", "aerogel/cc+g+", "aerogel/cc+G"):
        assert find(name) is None


def test_debian_12_is_not_made_for_every_platform():
    for name in declarations():
        base = built_in(name)
        for release in base.releases:
            made = base.platforms_of(release)
            assert ("linux/riscv64" in made) == ("linux/riscv64" in base.platforms and release != "bookworm")
            assert set(base.platforms) - set(made) <= {"linux/riscv64"}
    assert lookup("gcr.io/distroless/cc-debian12").platforms == built_in("cc").platforms_of("bookworm")


@pytest.mark.parametrize("name", declarations())
def test_what_is_fetched_elsewhere_has_a_digest_for_each_platform(name):
    base = built_in(name)
    for release in base.releases:
        found = lookup(Choice(base, release, "latest").name)
        for platform in found.platforms:
            arch = DEBIAN_ARCHITECTURES[platform]
            assert all(each.sha256 or each.sha512 for each in externals_of(found.archives, arch))
