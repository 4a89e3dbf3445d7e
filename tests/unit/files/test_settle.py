"""What a step wrote, made the same whenever it ran."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aerogel.files.pyc import HEAD, fits, recorded_time
from aerogel.files.settle import DROPPED, EMPTIED, settle

NEWEST = 1_700_000_000
MARK = NEWEST + 1
SECOND = 10**9


class Layers:
    """An upper directory above a lower one, as overlayfs leaves them."""

    def __init__(self, root: Path) -> None:
        self.lower, self.upper = root / "lower", root / "upper"
        self.lower.mkdir()
        self.upper.mkdir()
        # The clock of the file system.
        self.since_ns = self.upper.stat().st_mtime_ns

    def write(self, name: str, data: bytes = b"x", mtime: int | None = None, *, lower: bool = False) -> Path:
        path = (self.lower if lower else self.upper) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if mtime is not None:
            os.utime(path, (mtime, mtime))
        return path

    def settle(self, **options: object) -> int:
        fds = [os.open(each, os.O_RDONLY) for each in (self.upper, self.lower)]
        options = {"since_ns": self.since_ns, "newest": NEWEST, **options}
        try:
            return settle(fds[0], fds[1:], **options)  # type: ignore[arg-type] # of the test
        finally:
            for fd in fds:
                os.close(fd)


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


def mtime(path: Path) -> int:
    return path.lstat().st_mtime_ns


def test_what_was_written_gets_the_mark(layers: Layers) -> None:
    written = layers.write("d/written")
    old = layers.write("d/old", mtime=1_234_567_890)
    os.utime(old, ns=(5, 1_234_567_890_123_456_789))
    link = layers.upper / "link"
    link.symlink_to("nowhere")
    pipe = layers.upper / "pipe"
    os.mkfifo(pipe)
    future = layers.write("future", mtime=4_000_000_000)
    assert layers.settle() == MARK
    for path in (written, written.parent, link, pipe, future):
        assert mtime(path) == MARK * SECOND, path
    assert mtime(old) == 1_234_567_890 * SECOND
    assert not link.exists()


def test_the_mark_is_after_everything_older(layers: Layers) -> None:
    """Files that a step unpacked may be newer than all that was there."""
    layers.write("source", mtime=NEWEST + 500)
    made = layers.write("made")
    assert layers.settle() == NEWEST + 501
    assert mtime(made) == (NEWEST + 501) * SECOND


def test_a_clock_that_went_back(layers: Layers) -> None:
    """The step began at a time that is in the future by now: what it wrote is still known as new."""
    made = layers.write("made")
    layers.since_ns += 3600 * SECOND
    assert layers.settle() == MARK
    assert mtime(made) == MARK * SECOND


def test_times_that_only_this_step_saw(layers: Layers) -> None:
    copied = layers.write("copied", mtime=1_600_000_000)
    layers.settle(unsettled={1_600_000_000: 315532800})
    assert mtime(copied) == 315532800 * SECOND


def compiled(source: Path, place: Path | None = None) -> Path:
    made = py_compile.compile(str(source), cfile=str(place) if place else None, doraise=True)
    assert made is not None
    return Path(made)


def head(path: Path) -> bytes:
    return path.read_bytes()[:HEAD]


def test_compiled_files_fit_what_the_step_wrote(layers: Layers) -> None:
    source = layers.write("app/m.py", b"x = 1\n")
    made = compiled(source)
    legacy = compiled(source, source.with_suffix(".pyc"))
    size = made.stat().st_size
    layers.settle()
    assert fits(head(made), MARK, 6)
    assert fits(head(legacy), MARK, 6)
    assert made.stat().st_size == size
    assert mtime(made) == MARK * SECOND


def test_compiled_files_fit_a_source_of_another_layer(layers: Layers) -> None:
    source = layers.write("app/m.py", b"x = 1\n", 1_500_000_000, lower=True)
    made = compiled(source, layers.upper / "app/__pycache__/m.cpython-311.pyc")
    before = made.read_bytes()
    layers.settle()
    assert made.read_bytes() == before


def test_a_compiled_file_that_does_not_fit_is_not_made_to(layers: Layers) -> None:
    source = layers.write("app/m.py", b"x = 1\n")
    made = compiled(source)
    time.sleep(1.1)
    source.write_text("x = 2\n")
    before = made.read_bytes()
    layers.settle()
    assert made.read_bytes() == before
    assert not fits(head(made), MARK, 6)


def test_a_compiled_file_without_source(layers: Layers) -> None:
    source = layers.write("app/m.py", b"x = 1\n")
    made = compiled(source, source.with_suffix(".pyc"))
    source.unlink()
    old = compiled(layers.write("old/n.py", b"y = 1\n", 1_400_000_000))
    (layers.upper / "old/n.py").unlink()
    layers.settle()
    assert recorded_time(head(made)) == MARK, "not the time of this run"
    assert recorded_time(head(old)) == 1_400_000_000


def test_compiled_files_say_nothing_of_a_folder_that_is_gone(layers: Layers) -> None:
    """As `pip install --target` leaves them: compiled elsewhere, under a random name."""
    source = layers.write("app/m.py", b"def f():\n    return f.__code__.co_filename\n")
    py_compile.compile(str(source), dfile="/tmp/pip-target-f93us4m_/lib/python/m.py", doraise=True)
    made = next((layers.upper / "app/__pycache__").iterdir())
    size = made.stat().st_size
    layers.settle()
    assert b"/tmp/pip-target-00000000/lib/python/m.py" in made.read_bytes()
    assert made.stat().st_size == size
    os.utime(source, (MARK, MARK))
    done = subprocess.run([sys.executable, "-c", "import m; print(m.f())"], cwd=source.parent, capture_output=True)
    assert done.stdout.decode().strip() == str(source)


def test_names_alone_make_nothing_a_compiled_file(layers: Layers) -> None:
    texts = [layers.write("a.pyc", b""), layers.write("b.pyc", b"short"), layers.write("c.pyc", b"z" * 100)]
    (layers.upper / "d.pyc").mkdir()
    (layers.upper / "e.pyc").symlink_to("/etc/passwd")
    os.mkfifo(layers.upper / "f.pyc")
    before = [path.read_bytes() for path in texts]
    layers.settle()
    assert [path.read_bytes() for path in texts] == before


def test_logs_are_emptied_and_caches_dropped(layers: Layers) -> None:
    logs = [layers.write(name, b"2026-11-21 status installed\n") for name in EMPTIED]
    dropped = []
    for name in DROPPED:
        dropped += [
            layers.write(name.replace("*", home) + "/deep/file")
            for home in (["root", "home/u"] if "*" in name else [""])
        ]
    kept = layers.write("var/log/app.log")
    layers.settle()
    assert [path.read_bytes() for path in logs] == [b""] * len(logs)
    assert not any(path.exists() for path in dropped)
    assert kept.read_bytes() == b"x"
    assert {mtime(path) for path in layers.upper.rglob("*")} == {MARK * SECOND}


def test_logs_and_caches_are_left_when_asked(layers: Layers) -> None:
    log = layers.write("var/log/dpkg.log", b"2026\n")
    cache = layers.write("root/.npm/_cacache/x")
    layers.settle(keep_volatile=True)
    assert log.read_bytes() == b"2026\n"
    assert cache.exists()


def test_the_day_of_a_password(layers: Layers) -> None:
    today = int(time.time()) // 86400
    text = f"root:*:12000:0:99999:7:::\nold:!:11000::::::\nnew:!:{today}::::::\nnone:!:::::::\n"
    shadow = layers.write("etc/shadow", text.encode())
    only_new = layers.write("etc/shadow-", f"new:!:{today}::::::\n".encode())
    layers.settle()
    assert shadow.read_text() == text.replace(str(today), "12000")
    assert only_new.read_text() == "new:!:3652::::::\n"


def test_lists_of_packages_have_no_time_of_their_own(layers: Layers) -> None:
    """Mirrors of the same archive say other times, or none."""
    told = layers.write("var/lib/apt/lists/debian_InRelease", mtime=NEWEST + 500)
    assert layers.settle() == MARK
    assert mtime(told) == MARK * SECOND


def test_links_lead_nowhere(layers: Layers, tmp_path: Path) -> None:
    """An image may have a link where a log is expected: what it leads to is not touched."""
    outside = tmp_path / "outside"
    (outside / "npm/_cacache").mkdir(parents=True)
    (outside / "dpkg.log").write_text("mine")
    (outside / "shadow").write_text("a:!:99999:\n")
    layers.write("var/x")
    (layers.upper / "var/log").symlink_to(outside)
    (layers.upper / "root").mkdir()
    (layers.upper / "root/.npm").symlink_to(outside / "npm")
    (layers.upper / "etc").mkdir()
    (layers.upper / "etc/shadow").symlink_to(outside / "shadow")
    (layers.upper / "m.pyc").symlink_to(outside / "dpkg.log")
    shutil.copystat(outside, outside)
    layers.settle()
    assert (outside / "dpkg.log").read_text() == "mine"
    assert (outside / "shadow").read_text() == "a:!:99999:\n"
    assert (outside / "npm/_cacache").is_dir()
