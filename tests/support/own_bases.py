"""A small signed archive of this process, and `aerogel base` run against it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from debian_repo import Repo, Signer, deb
from fault_server import FaultServer

from aerogel.cli import main as entry
from aerogel.debian.keyring import Keyring
from aerogel.net.http import Http

OS_RELEASE = b'NAME="Debian GNU/Linux"\nVERSION_ID="13"\n'
DECLARATION = """\
apiVersion: aerogel/v1
kind: Base
name: mine
extends: static
packages: [tool]
"""
AMD64 = ("--platform", "linux/amd64")


class Base:
    """Runs commands in this process; `said` is what the last one wrote to standard error."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.said = ""
        self._capfd = capfd
        self._monkeypatch = monkeypatch

    def __call__(self, *words: str, status: int = 0) -> str:
        found = entry.main([*words, "--progress", "plain"])
        out, self.said = self._capfd.readouterr()
        assert found == status, out + self.said
        return out.strip()

    def data(self, *words: str, status: int = 0):
        return json.loads(self(*words, "--json", status=status))

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def on_another_machine(self, name: str) -> None:
        self._monkeypatch.setenv("AEROGEL_ROOT", str(self.folder / name))

    @property
    def lock(self):
        return json.loads((self.folder / "base.lock.json").read_text())


class Archive:
    """Debian in small; `security` is the archive beside it."""

    def __init__(self, signer: Signer, server: FaultServer) -> None:
        self.server = server
        self.arches = ["amd64"]
        self.main, self.security = Repo(signer), Repo(signer, root="/debian-security")
        files = (("./usr/lib/os-release", OS_RELEASE), ("./etc/motd", b"welcome\n"))
        self.put("base-files", entries=files)
        for name in ("ca-certificates", "media-types", "netbase", "tzdata", "tzdata-legacy"):
            self.put(name, entries=((f"./usr/share/{name}", b"data\n"),))
        self.put("tool", Depends="libtool1 (>= 1)")
        self.put("libtool1", entries=(("./usr/lib/libtool.so.1", b"library\n"),))
        self.main.suites["trixie-updates"] = []
        self.security.suites["trixie-security"] = []
        self.publish()

    def put(self, name: str, version: str = "1.0", *, suite: str = "trixie", entries=None, **fields: str) -> None:
        repo = self.security if suite.endswith("security") else self.main
        given = {"Package": name, "Version": version, **fields}
        repo.put(suite, given, deb(given, entries or ((f"./usr/bin/{name}", f"{name} {version}\n".encode()),)))

    def publish(self) -> None:
        for suite in ("trixie", "trixie-updates"):
            self.server.files |= self.main.publish(suite, arches=self.arches)
        self.server.files |= self.security.publish("trixie-security", arches=self.arches)


def open_base(
    archive: Archive,
    signer: Signer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Base:
    """A folder with a declaration, whose Debian is an archive of this process."""
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    monkeypatch.setattr(Keyring, "shipped", classmethod(lambda cls: cls(signer.public)))
    monkeypatch.setitem(Http.__init__.__kwdefaults__, "attempts", 1)
    monkeypatch.chdir(folder)
    for name in ("SOURCE_DATE_EPOCH", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "AEROGEL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AEROGEL_DEBIAN_MIRROR", f"{archive.server.url}/debian")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("AEROGEL_ROOT", str(folder / "root"))
    made = Base(folder, capfd, monkeypatch)
    made.write("base.yaml", DECLARATION)
    return made


def layers(base: Base, reference: str) -> list[str]:
    return json.loads(base("inspect", reference))[0]["RootFS"]["Layers"]
