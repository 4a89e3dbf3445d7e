"""Compiled Python files as CPython writes and reads them."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.files.pyc import HEAD, fits, is_compiled, recorded_time, sources_of, with_time


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (b"a/__pycache__/m.cpython-313.pyc", b"a/m.py"),
        (b"a/__pycache__/m.cpython-311.opt-1.pyc", b"a/m.py"),
        (b"__pycache__/m.cpython-313.pyc", b"m.py"),
        (b"__pycache__/with.dots.cpython-313.opt-2.pyc", b"with.dots.py"),
        (b"a/m.pyc", b"a/m.py"),
        (b"m.pyc", b"m.py"),
    ],
)
def test_where_the_source_is(path: bytes, source: bytes) -> None:
    assert sources_of(path) == source
    assert is_compiled(path)
    assert not is_compiled(source)


@pytest.mark.parametrize("name", ["m", "m.n", "m-1", "m.opt-x"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_where_the_interpreter_says_the_source_is(name: str, level: int) -> None:
    path = importlib.util.cache_from_source(f"/d/{name}.py", optimization=level or "")
    assert sources_of(path.encode()) == f"/d/{name}.py".encode()


def test_the_interpreter_takes_what_was_changed(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text("print('imported')\n")
    os.utime(source, (1_700_000_000, 1_700_000_000))
    made = Path(py_compile.compile(str(source), doraise=True) or "")
    data = made.read_bytes()
    assert recorded_time(data[:HEAD]) == 1_700_000_000
    assert fits(data[:HEAD], 1_700_000_000, source.stat().st_size)
    os.utime(source, (315532800, 315532800))
    assert run(tmp_path) == (False, True)
    made.write_bytes(with_time(data[:HEAD], 315532800) + data[HEAD:])
    assert len(made.read_bytes()) == len(data)
    assert run(tmp_path) == (True, False)


def run(folder: Path) -> tuple[bool, bool]:
    """Whether the interpreter found that the compiled file matches, and whether it was written again."""
    before = [path.read_bytes() for path in folder.glob("__pycache__/*")]
    argv = [sys.executable, "-v", "-c", "import m"]
    done = subprocess.run(argv, cwd=folder, env={}, capture_output=True, text=True)
    assert done.stdout == "imported\n"
    after = [path.read_bytes() for path in folder.glob("__pycache__/*")]
    return f"matches {folder}/m.py" in done.stderr, after != before


@pytest.mark.parametrize(
    "mode", [py_compile.PycInvalidationMode.CHECKED_HASH, py_compile.PycInvalidationMode.UNCHECKED_HASH]
)
def test_a_hash_is_left_alone(tmp_path: Path, mode: py_compile.PycInvalidationMode) -> None:
    source = tmp_path / "m.py"
    source.write_text("x = 1\n")
    made = py_compile.compile(str(source), doraise=True, invalidation_mode=mode)
    head = Path(made or "").read_bytes()[:HEAD]
    assert recorded_time(head) is None
    assert not fits(head, int(source.stat().st_mtime), 6)


@pytest.mark.parametrize(
    ("magic", "at"), [(3394, 8), (3413, 8), (3627, 8), (3379, 4), (3230, 4), (62211, 0), (0, 0), (3160, 0)]
)
def test_magic_numbers(magic: int, at: int) -> None:
    words = [0, 7, 9] if at == 8 else [7, 9, 0]
    head = struct.pack("<HH3I", magic, 0x0A0D, *words)
    assert recorded_time(head) == (7 if at else None)
    assert fits(head, 7, 9) is bool(at)
    assert not fits(head[:15], 7, 9)
    assert not fits(head.replace(b"\r\n", b"\n\r"), 7, 9)
    if at:
        assert with_time(head, 1 << 33 | 5) == head[:at] + b"\5\0\0\0" + head[at + 4 :]
    else:
        with pytest.raises(ValueError):
            with_time(head, 1)


@given(st.binary(max_size=20), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_any_bytes(head: bytes, mtime: int, size: int) -> None:
    if fits(head, mtime, size):
        new = with_time(head[:HEAD], 77)
        assert fits(new, 77, size)
        assert len(new) == HEAD
    recorded_time(head)
    sources_of(head)
