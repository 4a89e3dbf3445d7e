"""`aerogel base` in this process, against a small signed archive of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_repo import Signer
from fault_server import FaultServer, serve
from own_bases import DECLARATION, Archive, Base

from aerogel.cli import main as entry
from aerogel.debian.keyring import Keyring
from aerogel.net.http import Http


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
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    monkeypatch.setattr(Keyring, "shipped", classmethod(lambda cls: cls(signer.public)))
    monkeypatch.setitem(Http.__init__.__kwdefaults__, "attempts", 1)
    monkeypatch.chdir(tmp_path)
    for name in ("SOURCE_DATE_EPOCH", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "AEROGEL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AEROGEL_DEBIAN_MIRROR", f"{archive.server.url}/debian")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    made = Base(tmp_path, capfd, monkeypatch)
    made.write("base.yaml", DECLARATION)
    return made
