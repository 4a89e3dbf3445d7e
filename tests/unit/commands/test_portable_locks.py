"""Locks that replay on other kinds of machine: the makers' tools of each, against a small signed archive."""

from __future__ import annotations

import json
import shutil

import pytest
from own_bases import AMD64, DECLARATION, Archive, Base, layers

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
