"""The parts of `./check` have every test file, each once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import check
import pytest
from check import FAST, HOST

ROOT = Path(__file__).resolve().parents[2]


def files(place: str) -> set[Path]:
    path = ROOT / place
    return {path} if path.is_file() else set(path.rglob("test_*.py"))


def test_every_file_is_in_one_part() -> None:
    found = Counter[Path]()
    for part in HOST.values():
        left_out = [one.removeprefix("--ignore=") for one in part if one.startswith("--ignore=")]
        places = [one for one in part if not one.startswith("--")]
        assert all((ROOT / one).exists() for one in (*places, *left_out))
        found.update(set().union(*map(files, places)) - set().union(*map(files, left_out)))
    assert found == Counter(files("tests"))
    assert HOST["quick places"] == FAST


def test_little_disk_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "DISK_BYTES", 0)
    check.warn_of_little_disk()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(check, "DISK_BYTES", 10**18)
    check.warn_of_little_disk()
    assert capsys.readouterr().out.startswith("warning: the tests write about 1000000000 GB in `")
