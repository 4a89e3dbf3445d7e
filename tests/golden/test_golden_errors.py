"""Golden errors: what a user sees of bad input that needs neither sandbox nor network to be found.

The others are in `integration/test_bad_input.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input import ERRORS, cases, check_form, copy_case, images, leftovers, transcript

from aerogel.cli import main


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own, and no settings of the user."""
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    for name in ("SOURCE_DATE_EPOCH", "NO_COLOR", "AEROGEL_ISOLATION", "AEROGEL_PLATFORM", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("AEROGEL_PROGRESS", "plain")
    monkeypatch.setenv("AEROGEL_BASES", "builtin")  # no registry is asked for a name that is nowhere else
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize("case", cases())
def test_golden_error(
    case: str,
    state: Path,
    tmp_path: Path,
    golden: Callable[[Path, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = copy_case(case, tmp_path / "context")
    monkeypatch.chdir(tmp_path / "context")
    status = main.main(words)
    seen = capsys.readouterr()
    text = transcript(words, seen.err, status, tmp_path / "context", tmp_path)
    check_form(text)
    golden(ERRORS / case / "expected", text)
    assert seen.out == ""
    assert images(state) == []
    assert leftovers(state) == []
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    assert main.main(["build", str(tmp_path / "good")]) == 0, capsys.readouterr().err
    assert len(images(state)) == 1
    assert leftovers(state) == []
