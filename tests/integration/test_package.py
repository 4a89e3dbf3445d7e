"""`pip install .`: the command works, and no file of the source is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from aerogel import __version__

ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path) -> set[str]:
    return {
        str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file() and "__pycache__" not in str(one)
    }


def test_installed_package(tmp_path):
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(tmp_path),
        str(ROOT),
    ]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "aerogel") == files(ROOT / "src/aerogel")
    environ = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    command = tmp_path / "bin/aerogel"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, env=environ, cwd=tmp_path)
    assert done.stdout == f"aerogel version {__version__}\n"
    metadata = next(tmp_path.glob("aerogel-*.dist-info/METADATA")).read_text()
    assert "License-Expression: Apache-2.0" in metadata
