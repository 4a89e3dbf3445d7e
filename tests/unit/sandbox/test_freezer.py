from __future__ import annotations

import os
from pathlib import Path

import pytest

from aerogel.sandbox import freezer
from aerogel.sandbox.freezer import Freezer


def group(path: Path) -> Path:
    path.mkdir(parents=True)
    for name in ("cgroup.procs", "cgroup.freeze"):
        (path / name).write_text("")
    (path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    return path


@pytest.mark.parametrize(
    ("place", "frozen"),
    [
        ("aerogel-main", "aerogel-main/paused"),  # the keeper and its user's shell are in it as well
        ("aerogel-17-3", "aerogel-17-3"),
        ("aerogel-17-paused", "aerogel-17-paused/paused"),
        ("session.scope", "session.scope/paused"),
    ],
)
def test_only_a_group_of_the_container_alone_is_frozen_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, frozen: str
) -> None:
    own = group(tmp_path / place)
    made = group(own / "paused")
    monkeypatch.setattr(freezer, "hierarchies", lambda _proc: {"": str(own)})
    ours = Freezer(lambda: [os.getpid()], "paused")
    expected = tmp_path / frozen
    for each in (own, made):
        assert (each / "cgroup.freeze").read_text() == ("1" if each == expected else ""), each
    assert made.joinpath("cgroup.procs").read_text() == (str(os.getpid()) if expected == made else "")
    ours.thaw()
    assert (expected / "cgroup.freeze").read_text() == "0"
