"""A device that stands for a deleted file is in no layer, on whatever rung a step could make it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.files.jobs import diff
from aerogel.sandbox import record


def test_a_device_that_means_a_removal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "null").touch()
    os.setxattr(tmp_path / "null", record.KEY, b"0 0 c 1 3")
    with (tmp_path.parent / "tar").open("wb") as file:
        args = {"upper": str(tmp_path), "lowers": [], "recorded": True}
        assert diff(args, [file.fileno()]) == {"entries": 1}
        (tmp_path / "d").mkdir()
        (tmp_path / "d/f").touch()
        os.setxattr(tmp_path / "d/f", record.KEY, b"0 0 c 0 0")
        with pytest.raises(AerogelError) as caught:
            diff(args, [file.fileno()])
    assert caught.value.code == "diff.whiteout-device"
    assert "`/d/f` cannot be stored in a layer" in caught.value.message
