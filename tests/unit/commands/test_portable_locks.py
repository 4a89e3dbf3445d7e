"""Locks that replay on other kinds of machine: the makers' tools of each, against a small signed archive."""

from __future__ import annotations

import json
import shutil

import pytest
from own_bases import AMD64, DECLARATION, OS_RELEASE, Archive, Base, layers

from aerogel.distroless.makers import MAKERS
from aerogel.oci.platform import Platform


@pytest.fixture
def locale(base: Base, archive: Archive) -> Base:
    """A base with a maker: a package brings what it would make, so nothing is run, but its tools are chosen and fetched."""
    base.write("base.yaml", DECLARATION.replace("[tool]", "[tool, libc-bin]") + "locales: [C.UTF-8]\n")
    for arch in ("amd64", "arm64"):
        files = (("./usr/lib/locale/C.utf8/LC_CTYPE", arch.encode()),)
        archive.put("libc-bin", entries=files, Architecture=arch, Depends="libc6")
        archive.put("libc6", Architecture=arch)
    archive.put("locales", Architecture="all")
    publish(archive)
    return base


def publish(archive: Archive) -> None:
    for suite in ("trixie", "trixie-updates"):
        archive.server.files |= archive.main.publish(suite, arches=("amd64", "arm64"))
    archive.server.files |= archive.security.publish("trixie-security", arches=("amd64", "arm64"))


def on_a_machine_of(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(Platform, "host", classmethod(lambda cls: cls.parse(name)))


def test_a_lock_has_tools_for_each_kind_of_machine(locale: Base, archive: Archive, monkeypatch: pytest.MonkeyPatch):
    on_a_machine_of(monkeypatch, "linux/amd64")
    locale("base", "lock", *AMD64)
    found = {
        host: [(one["name"], one["arch"], one["why"]) for one in tools["locales"]]
        for host, tools in locale.lock["hosts"].items()
    }
    assert found == {
        f"linux/{arch}": [
            ("libc6", arch, ["libc-bin", "libc6"]),
            ("libc-bin", arch, ["libc-bin"]),
            ("locales", "all", ["locales"]),
        ]
        for arch in ("amd64", "arm64")
    }
    locale("base", "build", *AMD64, "--locked", "-t", "one")
    locale("base", "vendor")
    expected = layers(locale, "one")
    assert {path.name for path in (locale.folder / "vendor").glob("libc6*")} == {
        "libc6_1.0_amd64.deb",
        "libc6_1.0_arm64.deb",
    }
    # Another kind of machine takes its own, and the digests are those of the lock.
    archive.server.files.clear()
    for number, machine in enumerate(("linux/arm64", "linux/amd64")):
        on_a_machine_of(monkeypatch, machine)
        locale.on_another_machine(f"other{number}")
        locale("base", "build", *AMD64, "--locked", "-t", "two")
        assert layers(locale, "two") == expected
        debs = (locale.folder / f"other{number}/cache/debian-v1/debs-v1").glob("*/*.deb")
        tool = {one["sha256"] for one in locale.lock["hosts"][machine]["locales"]}
        assert tool <= {path.stem for path in debs}
    on_a_machine_of(monkeypatch, "linux/s390x")
    locale.on_another_machine("third")
    locale("base", "build", *AMD64, "--locked", status=3)
    assert (
        "error: the lock names no tools with which a machine of `linux/s390x` can make files of `mine:latest`"
        in locale.said
    )
    assert "hint: compose it on `linux/amd64` or `linux/arm64`" in locale.said
    assert "hint: lock it for this machine too: `aerogel base lock base.yaml`, with `--hosts`" in locale.said


def test_machines_that_a_lock_is_for(locale: Base, archive: Archive, monkeypatch: pytest.MonkeyPatch):
    on_a_machine_of(monkeypatch, "linux/amd64")
    locale("base", "lock", *AMD64, "--hosts", "linux/amd64")
    assert list(locale.lock["hosts"]) == ["linux/amd64"]
    locale("base", "update")
    locale("base", "lock")
    assert list(locale.lock["hosts"]) == ["linux/amd64"]
    shutil.copy(locale.folder / "base.lock.json", locale.folder / "old.json")
    locale("base", "lock", "--hosts", "arm64,amd64")
    assert list(locale.lock["hosts"]) == ["linux/amd64", "linux/arm64"]
    rows = locale("base", "diff", "old.json", "base.lock.json").split("\n")
    assert [row.split() for row in rows[1:]] == [
        [f"locales:{name}", "-", "1.0", "added", "linux/arm64"] for name in ("libc-bin", "libc6", "locales")
    ]
    # Debian has fewer machines than a lock may name.
    locale("base", "lock", "--hosts", "linux/amd64,linux/s390x", status=1)
    assert "s390x" in locale.said
    files = (("./usr/lib/locale/C.utf8/LC_CTYPE", b"newer"),)
    archive.put("libc-bin", "2.0", entries=files, Architecture="amd64", Depends="libc6")
    archive.publish()
    locale("base", "update")
    assert "machines of `linux/arm64` will not be able to compose by this lock: " in locale.said
    assert list(locale.lock["hosts"]) == ["linux/amd64"]
    publish(archive)
    locale.on_another_machine("second")
    locale("base", "lock", "--hosts", "linux/amd64,linux/arm64")
    text = "warning: `libc-bin`, which makes files, is not of one version for all machines: 1.0, 2.0"
    assert text in locale.said


def test_a_lock_of_an_older_form_is_told(locale: Base):
    locale("base", "lock", *AMD64)
    older = locale.lock | {"schema": "aerogel/base-lock/v1"}
    del older["hosts"]
    locale.write("base.lock.json", json.dumps(older))
    locale("base", "build", *AMD64, "--locked", status=2)
    assert (
        "error: `base.lock.json` is a lock of the form `aerogel/base-lock/v1`, not `aerogel/base-lock/v2`\n"
        in locale.said
    )
    assert "hint: make it anew: `aerogel base lock base.yaml`" in locale.said
    locale("base", "lock", *AMD64)
    assert locale.lock["schema"] == "aerogel/base-lock/v2"


EMPTY = ("ca-certificates", "media-types", "netbase", "tzdata", "tzdata-legacy")
VARIANTS = "variants: {{debug: null, debug-nonroot: null{}}}\n"
PLATFORMS = ("--platform", "linux/amd64,linux/arm64")


def tools(base: Base) -> dict[str, list[str]]:
    """By kind of machine the versions of the tools: libc6, libc-bin, locales."""
    return {host: [one["version"] for one in tools["locales"]] for host, tools in base.lock["hosts"].items()}


def in_images(base: Base, *names: str) -> list[list[str]]:
    found = [one["packages"] for _, one in sorted(base.lock["platforms"].items())]
    return [[one["version"] for one in packages if one["name"] in names] for packages in found]


@pytest.fixture
def on_two(locale: Base, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Base:
    """The lock of it for two platforms."""
    on_a_machine_of(monkeypatch, "linux/amd64")
    for name in ("base-files", *EMPTY, "tool", "libtool1"):
        entries = (("./usr/lib/os-release", OS_RELEASE),) if name == "base-files" else None
        archive.put(name, entries=entries, Architecture="arm64")
    publish(archive)
    locale.write("base.yaml", (locale.folder / "base.yaml").read_text() + VARIANTS.format(""))
    locale("base", "lock", *PLATFORMS)
    return locale


def newer(archive: Archive, version: str, *arches: str, suite: str = "trixie") -> None:
    """What a maker works on and works with."""
    for arch in arches:
        files = (("./usr/lib/locale/C.utf8/LC_CTYPE", version.encode()),)
        archive.put("libc-bin", version, suite=suite, entries=files, Architecture=arch, Depends="libc6")
    archive.put("locales", version, suite=suite, Architecture="all")
    publish(archive)


def test_tools_stay_while_what_they_work_on_stays(on_two: Base, archive: Archive):
    """Today's tools do not fit what a lock keeps: a Java is linked by the `jlink` of its own version."""
    newer(archive, "2.0", "amd64", "arm64")
    archive.put("libtool1", "1.0+deb13u1", suite="trixie-security")
    publish(archive)
    before = on_two.lock
    found = on_two.data("base", "update", "--security-only")["changes"]
    assert [(one["name"], one["platform"]) for one in found] == [("libtool1", "linux/amd64")]
    assert on_two.lock["hosts"] == before["hosts"]
    on_two.on_another_machine("second")
    on_two("base", "build", *AMD64, "--locked")
    # They go along where it moves.
    newer(archive, "3.0+deb13u1", "amd64", "arm64", suite="trixie-security")
    on_two("base", "update", "--security-only")
    assert in_images(on_two, "libc-bin") == [["3.0+deb13u1"]] * 2
    assert tools(on_two) == {f"linux/{arch}": ["1.0", "3.0+deb13u1", "3.0+deb13u1"] for arch in ("amd64", "arm64")}
    on_two.on_another_machine("third")
    on_two("base", "build", *AMD64, "--locked")


def test_a_fix_that_is_there_for_one_platform(on_two: Base, archive: Archive, monkeypatch: pytest.MonkeyPatch):
    newer(archive, "2.0+deb13u1", "amd64", suite="trixie-security")
    on_two("base", "update", "--security-only")
    assert in_images(on_two, "libc-bin") == [["2.0+deb13u1"], ["1.0"]]
    assert tools(on_two)["linux/amd64"] == ["1.0", "2.0+deb13u1", "2.0+deb13u1"]
    on_two.on_another_machine("second")
    on_two("base", "build", *PLATFORMS, "--locked")


def test_a_fix_of_what_must_be_of_the_version_of_its_tools_waits(
    on_two: Base, archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    assert [maker.name for maker in MAKERS if maker.tied] == ["java"]
    monkeypatch.setattr("aerogel.commands.keeping._TIED", frozenset(("locales",)))
    newer(archive, "2.0+deb13u1", "amd64", suite="trixie-security")
    archive.put("libtool1", "1.0+deb13u1", suite="trixie-security")
    publish(archive)
    before = on_two.lock
    found = on_two.data("base", "update", "--security-only")["changes"]
    assert [(one["name"], one["platform"]) for one in found] == [("libtool1", "linux/amd64")]
    assert (
        "warning: `libc-bin` moves on `linux/amd64` and not on `linux/arm64` yet, so it stays on all: "
        "what makes files of it must be of its version\n"
    ) in on_two.said
    assert on_two.lock["hosts"] == before["hosts"]
    newer(archive, "2.0+deb13u1", "arm64", suite="trixie-security")
    on_two("base", "update", "--security-only")
    assert in_images(on_two, "libc-bin") == [["2.0+deb13u1"]] * 2


def test_a_new_tag_takes_what_the_others_keep(on_two: Base, archive: Archive):
    """A lock has one version of a package for a platform: that of today, for the new tag alone, was taken for all."""
    newer(archive, "2.0", "amd64", "arm64")
    text = (on_two.folder / "base.yaml").read_text()
    on_two.write("base.yaml", text.replace(VARIANTS.format(""), VARIANTS.format(", more: {packages: [added]}")))
    archive.put("added", Architecture="all", Depends="libc-bin")
    publish(archive)
    on_two("base", "update", "--security-only")
    assert in_images(on_two, "libc-bin", "added") == [["1.0", "1.0"]] * 2
    on_two.on_another_machine("second")
    on_two("base", "build", *AMD64, "--locked")
    on_two("base", "build", *AMD64, "--locked", "./base.yaml:more")


def test_a_machine_that_a_lock_has_no_tools_for_moves_nothing(
    on_two: Base, archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    on_two("base", "lock", *PLATFORMS, "--hosts", "linux/amd64")
    on_a_machine_of(monkeypatch, "linux/arm64")
    on_two("base", "update", "--security-only", status=3)
    assert "error: the lock names no tools with which a machine of `linux/arm64` can make files" in on_two.said
