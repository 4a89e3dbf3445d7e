"""Command lines that are run in the process of the tests, with a store of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli import main as entry
from aerogel.net.http import Http


class Shell:
    """Runs command lines in this process, with a store of its own."""

    def __init__(self, capfd: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capfd = capfd
        self.folder = folder
        self.err = ""

    def __call__(self, *words: str, status: int = 0) -> str:
        found = entry.main([*words, "--progress", "plain"])
        out, self.err = self._capfd.readouterr()
        assert found == status, self.err
        return out

    def errors(self) -> str:
        return self._capfd.readouterr()[1]

    def fails(self, *words: str, status: int = 1) -> str:
        self(*words, status=status)
        return self.err


def make_shell(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    """One whose working directory and store are in a folder, and which knows nothing of this machine's registries."""
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    monkeypatch.setitem(Http.__init__.__kwdefaults__, "sleep", lambda _: None)
    monkeypatch.chdir(folder)
    for name in ("REGISTRY_AUTH_FILE", "AEROGEL_BASES", "AEROGEL_INSECURE_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))
    monkeypatch.setenv("AEROGEL_ROOT", str(folder / "root"))
    return Shell(capfd, folder)
