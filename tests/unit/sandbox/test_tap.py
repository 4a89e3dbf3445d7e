"""Which program makes a network of a sandbox's own, and what is said where none can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import tap


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path with both programs, and a device that can be opened."""
    for name in ("pasta", "slirp4netns"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "tun").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tap, "_TUN", str(tmp_path / "tun"))
    return tmp_path


def refused(rung: str) -> str:
    with pytest.raises(AerogelError) as caught:
        tap.choose(rung)
    assert caught.value.exit_status == EXIT_HOST
    return " | ".join((caught.value.code, caught.value.message, *caught.value.hints))


def test_the_program_of_each_rung(programs: Path) -> None:
    assert [tap.choose(rung).name for rung in ("root", "ident", "subid", "single")] == [
        "slirp4netns", "slirp4netns", "pasta", "pasta"
    ]  # fmt: skip
    (programs / "pasta").unlink()
    assert tap.choose("subid").name == "slirp4netns"


def test_no_program(programs: Path) -> None:
    (programs / "slirp4netns").unlink()
    assert "needs `slirp4netns`, which is not installed | `apt-get install slirp4netns`" in refused("root")
    (programs / "pasta").unlink()
    said = refused("subid")
    assert said.startswith("sandbox.no-network-tool | `--network sandbox` needs `pasta` or `slirp4netns`")


def test_no_device(programs: Path) -> None:
    (programs / "tun").unlink()
    said = refused("subid")
    assert said.startswith("sandbox.no-tun | ")
    assert "which is not there | as root: `modprobe tun`" in said


def test_a_device_that_may_not_be_opened(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: path != str(programs / "tun"))
    monkeypatch.setattr(tap.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "which this user may not open | as root: `chmod 666" in refused("subid")


def test_without_namespaces(programs: Path) -> None:
    assert refused("chroot").startswith("sandbox.no-network | a network of its own needs namespaces")
