"""`aerogel base` in this process, against a small signed archive of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_repo import Signer
from fault_server import FaultServer, serve
from loop_registry import LoopRegistry, serve_registry
from own_bases import Archive, Base, open_base
from own_images import BOTH, OS_RELEASE, declared


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serve() as running:
        yield running


@pytest.fixture
def archive(signer: Signer, server: FaultServer) -> Archive:
    made = Archive(signer, server)
    made.put("busybox-static", entries=(("./usr/bin/busybox", b"\x7fELF [\0[[\0cat\0sh\0U"),))
    made.publish()
    return made


@pytest.fixture
def base(
    archive: Archive,
    signer: Signer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Base:
    return open_base(archive, signer, tmp_path, monkeypatch, capfd)


@pytest.fixture
def registry() -> Iterator[LoopRegistry]:
    with serve_registry() as running:
        yield running


@pytest.fixture
def ground(base: Base, archive: Archive, registry: LoopRegistry) -> str:
    """An image of ours in the registry, for two platforms, with a library installed."""
    for name in ("base-files", "ca-certificates", "media-types", "netbase", "tzdata", "tzdata-legacy"):
        files = (
            (("./usr/lib/os-release", OS_RELEASE),) if name == "base-files" else (("./usr/share/x/" + name, b"x\n"),)
        )
        archive.put(name, "1.1", entries=files, Architecture="all")
    archive.put("libtool1", Architecture="arm64", entries=(("./usr/lib/libtool.so.1", b"library\n"),))
    archive.put("tool", Architecture="arm64", Depends="libtool1 (>= 1)")
    archive.arches = ["amd64", "arm64"]
    archive.publish()
    text = declared(
        "static", "packages: [libtool1]\nimage: {entrypoint: [/usr/bin/first], cmd: [a], env: {A: '1', B: '2'}}\n"
    )
    base.write("ground.yaml", text.replace("name: mine", "name: ground"))
    name = f"{registry.host}/team/ground:1"
    base("base", "build", *BOTH, "--push", "-t", name, "ground.yaml:nonroot")
    return name
