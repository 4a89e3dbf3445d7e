"""Files of layers with other times, and everything else as it is below."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.files.jobs import show

OLD, NEW = 315532800, 1_700_000_000


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    os.utime(path, (OLD, OLD))


def test_only_the_time_differs(tmp_path: Path) -> None:
    low, high, made = tmp_path / "low", tmp_path / "high", tmp_path / "made"
    write(low / "d/e/f", "below")
    write(high / "d/e/f", "above", 0o4751)
    write(low / "d/other", "only below")
    os.setxattr(high / "d/e/f", "user.word", b"kept")
    os.setxattr(high / "d/e", "user.overlay.opaque", b"y")
    (low / "d").chmod(0o700)
    (high / "d").chmod(0o2775)
    for folder in (high / "d/e", high / "d", low / "d"):
        os.utime(folder, (OLD, OLD))
    rows = [["d/e/f", NEW], ["d/other", NEW + 1], ["d/e", NEW + 2]]
    assert show({"path": str(made), "lowers": [str(low), str(high)], "rows": rows}, []) == {"entries": 3}
    f, d, e = (os.lstat(made / name) for name in ("d/e/f", "d", "d/e"))
    assert (made / "d/e/f").read_text() == "above"
    assert (made / "d/other").read_text() == "only below"
    assert (stat.S_IMODE(f.st_mode), f.st_mtime_ns) == (0o4751, NEW * 10**9)
    assert (stat.S_IMODE(d.st_mode), d.st_mtime) == (0o2775, OLD), "the way to it is as it was"
    assert e.st_mtime == NEW + 2
    assert os.listxattr(made / "d/e/f") == ["user.word"]
    assert os.listxattr(made / "d/e") == [], "or it would hide what is below"


def test_nothing_is_read_through_a_link(tmp_path: Path) -> None:
    write(tmp_path / "outside/f", "secret")
    (tmp_path / "low").mkdir()
    (tmp_path / "low/d").symlink_to(tmp_path / "outside")
    with pytest.raises(AerogelError) as caught:
        show({"path": str(tmp_path / "made"), "lowers": [str(tmp_path / "low")], "rows": [["d/f", NEW]]}, [])
    assert caught.value.code == "shown.failed"
