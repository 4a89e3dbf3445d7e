"""A misspelt base where no registry can be asked: the guess comes first, the network after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli import main


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("FROM debain\nRUN x\n", "debian"),
        ("FROM gcr.io/distroless/pyton3\n", "gcr.io/distroless/python3"),
        ("FROM scratch AS build\nCOPY Dockerfile /\nFROM biuld\n", "build"),
        ("FROM scratch AS build\nCOPY Dockerfile /\nFROM scratch\nCOPY --from=biuld /a /b\n", "build"),
    ],
)
def test_the_guess_comes_first(
    text: str, guess: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "state"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text(text)
    assert main.main(["build", "--progress=plain", "."]) == 4
    error = capfd.readouterr().err
    assert "is not known here" in error
    hints = [line for line in error.splitlines() if line.startswith("hint: ")]
    assert hints[0] == f"hint: did you mean `{guess}`?"
    assert hints[1].startswith("hint: the registry, asked last, did not answer: ")
