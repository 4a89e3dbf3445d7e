"""The archive client against the mirror that the host uses: real signatures, indexes and packages."""

from __future__ import annotations

import hashlib
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
from aerogel.files.entry import DIR, KIND_NAMES, SYM
from aerogel.net.http import Http

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
