"""The archive client against the mirror that the host uses: real signatures, indexes and packages."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from aerogel.debian.archive import Archive
from aerogel.debian.control import relations
from aerogel.debian.deb import open_deb
from aerogel.debian.mirror import discover
from aerogel.debian.resolve import Chosen, resolve
from aerogel.debian.version import satisfies
from aerogel.distroless.base import select
from aerogel.distroless.catalogue import Choice, built_in, declarations
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES
from aerogel.files.entry import DIR, KIND_NAMES, SYM
from aerogel.net.http import Http
from aerogel.oci.platform import Platform

pytestmark = pytest.mark.network

TRIXIE = ("trixie", "trixie-updates", "trixie-security")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def archive(cache: Path) -> Archive:
    return Archive(discover(), cache, Http())


def test_every_suite_is_signed_by_debian(archive: Archive) -> None:
    for suite in (*TRIXIE, "bookworm", "bookworm-updates", "bookworm-security", "bullseye"):
        release = archive.release(suite)
        assert release.codename == suite
        assert release.origin == "Debian"
        assert release.signers
        assert "amd64" in release.architectures


def closed(found: list[Chosen], arch: str) -> None:
    """Every relation of every package is met, and by something before it unless there is a cycle."""
    by_name = {chosen.package.name: chosen.package for chosen in found}
    provided: dict[str, list[str]] = {}
    for package in by_name.values():
        for group in relations(package.provides):
            provided.setdefault(group[0].name, []).append(group[0].version)
    for package in by_name.values():
        assert package.architecture in ("all", arch)
        for group in relations(f"{package.pre_depends}, {package.depends}"):
            assert any(
                (r.name in by_name and satisfies(by_name[r.name].version, r.operator, r.version))
                or any(not r.operator or (v and satisfies(v, r.operator, r.version)) for v in provided.get(r.name, []))
                for r in group
            ), (package.name, group)
    for chosen in found:
        assert chosen.why[-1] == chosen.package.name


def test_python_resolves(archive: Archive) -> None:
    indexes = archive.indexes(TRIXIE)
    found = resolve(["python3.13-minimal", "libpython3.13-stdlib"], indexes, arch="amd64")
    closed(found, "amd64")
    names = [chosen.package.name for chosen in found]
    assert {"libc6", "libssl3t64", "libexpat1", "libsqlite3-0", "python3.13-minimal"} <= set(names)
    assert (
        names.index("gcc-14-base") < names.index("libc6") < names.index("libexpat1") < names.index("python3.13-minimal")
    )
    assert len(found) < 40


def test_the_build_root_resolves(archive: Archive) -> None:
    found = resolve(["apt"], archive.indexes(TRIXIE), arch="amd64", essential=True)
    closed(found, "amd64")
    names = {chosen.package.name for chosen in found}
    assert {"apt", "base-files", "bash", "coreutils", "dpkg", "libc-bin", "perl-base", "tar"} <= names
    assert not names & {"systemd", "python3", "perl"}
    assert 50 < len(names) < 100


@pytest.mark.parametrize("arch", ["arm64", "armhf", "s390x", "ppc64el", "riscv64"])
@pytest.mark.slow
def test_other_architectures(archive: Archive, arch: str) -> None:
    """Only the main suite: mirrors are known to be out of step with themselves for some ports' updates."""
    found = resolve(["python3.13-minimal"], archive.indexes(["trixie"], arch=arch), arch=arch)
    closed(found, arch)


def test_a_second_run_needs_no_network_and_little_time(archive: Archive, cache: Path) -> None:
    archive.indexes(TRIXIE)
    began = time.process_time()
    again = Archive(discover(), cache, Http(), offline=True)
    resolve(["python3.13-minimal", "libpython3.13-stdlib"], again.indexes(TRIXIE), arch="amd64")
    assert time.process_time() - began < 1.0  # 0.06 s


def test_packages_are_fetched_and_read_as_dpkg_reads_them(archive: Archive) -> None:
    indexes = archive.indexes(TRIXIE)
    wanted = [index.named(name)[0] for name in ("libc6", "base-files", "tzdata", "bash") for index in indexes[:1]]
    for package, path in zip(wanted, archive.fetch_all(wanted), strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256
        with open_deb(path) as found:
            assert f"Package: {package.name}\n".encode() in found.control["control"]
            ours = {}
            md5sums: dict[bytes, str] = {}
            for entry, content in found.entries():
                target = b" -> " + entry.link if entry.kind == SYM else b""
                ours[b"./" + entry.path + (b"/" if entry.kind == DIR and entry.path else b"") + target] = entry.kind
                md5sums[entry.path] = hashlib.md5(content.read()).hexdigest()
            for line in found.control["md5sums"].splitlines():
                digest, _, name = line.partition(b"  ")
                assert md5sums[name] == digest.decode(), name
        if shutil.which("dpkg-deb"):
            listed = subprocess.run(["dpkg-deb", "--contents", path], capture_output=True, check=True).stdout
            theirs = {line.split(None, 5)[5].partition(b" link to ")[0]: line[:1] for line in listed.splitlines()}
            assert set(ours) == set(theirs)
            for name, kind in ours.items():
                assert {b"-": "file", b"d": "directory", b"l": "symbolic link", b"h": "hard link"}[
                    theirs[name]
                ] == KIND_NAMES[kind]


class Family:
    """What built-in bases mean today: versions by name of package."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._found: dict[tuple[str, ...], dict[str, str]] = {}

    def packages(self, name: str, release: str, platform: str, *more: str) -> dict[str, str]:
        key = (name, release, platform, *more)
        if key not in self._found:
            recipe = Choice(built_in(name), release, "latest", None, more).recipe()
            chosen = select(recipe, Platform.parse(platform), self._archive)
            self._found[key] = {each.name: each.version for each in chosen.packages}
        return self._found[key]


@pytest.fixture(scope="module")
def family(cache: Path) -> Family:
    """Of all releases: Debian's testing, and Debian 11, are signed for a while only."""
    return Family(Archive(discover(), cache, Http(), allow_expired=True))


BUILDERS = {
    "python3-build": {"trixie": ("python3",), "bookworm": ("python3",)},
    "java-build": {"trixie": ("java21",), "bookworm": ("java17",)},
    "nodejs22-build": {"trixie": ("nodejs22",), "bookworm": ("nodejs22",)},
    "nodejs24-build": {"trixie": ("nodejs24",), "bookworm": ("nodejs24",)},
    "nodejs26-build": {"trixie": ("nodejs26",), "bookworm": ("nodejs26",)},
    "go-build": {"trixie": ("base", "cc"), "bookworm": ("base", "cc")},
    "cc-build": {"trixie": ("cc", "dotnet-deps"), "bookworm": ("cc", "dotnet-deps")},
    "debian": {
        "trixie": ("base-nossl", "base", "cc", "java25", "nginx", "perl", "php", "ruby"),
        "bookworm": ("base-nossl", "base", "cc", "nginx", "perl", "php", "ruby"),
    },
}
"""What is meant to run what each builds."""


@pytest.mark.parametrize("release", ["trixie", "bookworm"])
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_what_builds_is_of_the_versions_that_run(family: Family, arch: str, release: str) -> None:
    """One index for all: whatever two bases of a release have both is of one version, libraries and interpreters too."""
    platform = f"linux/{arch}"
    assert {name for name, one in declarations().items() if built_in(name).method == "dpkg"} == BUILDERS.keys()
    running = {
        name: family.packages(name, release, platform)
        for name in declarations()
        if name not in BUILDERS and release in built_in(name).releases
    }
    for builder, meant in BUILDERS.items():
        building = family.packages(builder, release, platform)
        for name, has in running.items():
            shared = building.keys() & has.keys()
            others = {each: (building[each], has[each]) for each in shared if building[each] != has[each]}
            assert not others, (builder, name)
        for name in meant[release]:
            both = building.keys() & running[name].keys()
            libraries = {"libc6"} | ({"libstdc++6"} & running[name].keys() if builder != "debian" else set())
            assert libraries <= both, (builder, name)
    python = {"trixie": "3.13", "bookworm": "3.11"}[release]
    assert f"python{python}-minimal" in running["python3"]
    building = family.packages("python3-build", release, platform)
    assert [each for each in building if re.fullmatch(r"libpython3\.\d+-stdlib", each)] == [f"libpython{python}-stdlib"]
    assert building["python3-minimal"].startswith(f"{python}.")
    java = {"trixie": "21", "bookworm": "17"}[release]
    majors = {
        each.split("-")[1] for each in family.packages("java-build", release, platform) if each.startswith("openjdk-")
    }
    assert majors == {java}
    assert f"openjdk-{java}-jdk-headless" in running[f"java{java}"]
    ssl = {"trixie": "libssl3t64", "bookworm": "libssl3"}[release]
    for builder, name in (("python3-build", "python3"), ("cc-build", "cc"), ("go-build", "base")):
        assert ssl in family.packages(builder, release, platform).keys() & running[name].keys()


def test_packages_can_be_added_to_every_base(family: Family) -> None:
    """`FROM aerogel/NAME+libpq5+tzdata`: each closure holds, and what the base itself has is of the same version."""
    for name in declarations():
        for release in built_in(name).releases:
            plain = family.packages(name, release, "linux/amd64")
            more = family.packages(name, release, "linux/amd64", "libpq5", "tzdata")
            assert {"libpq5", "tzdata"} <= more.keys(), (name, release)
            assert plain.items() <= more.items(), (name, release)


def test_bases_are_for_the_architectures_that_debian_has(archive: Archive) -> None:
    """All that the project knows and the signed Release file names, but for what comes from elsewhere or is for builders."""
    for release in ("trixie", "bookworm"):
        there = {
            platform
            for platform, arch in DEBIAN_ARCHITECTURES.items()
            if arch in archive.release(release).architectures
        }
        for name in declarations():
            if release not in built_in(name).releases:
                continue
            made = set(built_in(name).platforms_of(release))
            if name.startswith("nodejs"):  # the registry of npm has these
                assert made == {"linux/amd64", "linux/arm64"}
            elif built_in(name).method == "dpkg":
                assert made == there
            else:
                assert made == there - {"linux/386"}  # upstream has no image for it
