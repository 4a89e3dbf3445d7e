"""Attributes that a program set are not taken for those of overlayfs."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from aerogel.files.jobs import diff


@pytest.mark.parametrize(("marks", "names"), [("trusted", ["d"]), ("user", ["d", "d/.wh..wh..opq"])])
def test_only_the_marks_of_the_mount_count(tmp_path: Path, marks: str, names: list[str]) -> None:
    """As a rootless overlay does that is mounted inside of a step."""
    (tmp_path / "low/d").mkdir(parents=True)
    (tmp_path / "low/d/f").write_text("kept")
    (tmp_path / "up/d").mkdir(parents=True)
    (tmp_path / "up/d").chmod(0o700)
    os.setxattr(tmp_path / "up/d", "user.overlay.opaque", b"y")
    with (tmp_path / "tar").open("w+b") as file:
        diff({"upper": str(tmp_path / "up"), "lowers": [str(tmp_path / "low")], "marks": marks}, [file.fileno()])
        file.seek(0)
        with tarfile.open(fileobj=io.BytesIO(file.read())) as tar:
            assert tar.getnames() == names
