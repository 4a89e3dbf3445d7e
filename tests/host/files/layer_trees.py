"""Layer tars and overlay mounts for the tests of this folder; skipped where mounting needs root."""

from __future__ import annotations

import ctypes
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aerogel.files import jobs
from aerogel.files.entry import Entry
from aerogel.files.tar import TarWriter, read_entries

_libc = ctypes.CDLL(None, use_errno=True)


def layer_tar(entries: list[tuple[Entry, bytes]]) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    for entry, content in entries:
        writer.entry(entry._replace(size=len(content)))
        if content:
            writer.content(content)
            writer.pad()
    writer.close()
    return out.getvalue()


def read_tar(data: bytes) -> dict[bytes, tuple[Entry, bytes]]:
    return {entry.path: (entry, content.read()) for entry, content in read_entries(io.BytesIO(data))}


def unpack(data: bytes, path: Path, overlay: str | None = None) -> dict[str, object]:
    path.mkdir(exist_ok=True)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        return jobs.extract({"path": str(path), "overlay": overlay}, [file.fileno()])


def run_job(job: Callable[[dict, list[int]], dict], args: dict) -> bytes:
    with tempfile.TemporaryFile() as file:
        job(args, [file.fileno()])
        file.seek(0)
        return file.read()


class Overlays:
    """Mounts overlays below a scratch directory of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounted: list[Path] = []

    def mount(self, lowers: list[Path], name: str = "m", options: str = "") -> Path:
        """Mounts; gives the merged directory. The upper one is `<name>-upper`."""
        merged, upper, work = (self.root / f"{name}{end}" for end in ("", "-upper", "-work"))
        for each in (merged, upper, work):
            each.mkdir()
        data = f"lowerdir={':'.join(map(str, reversed(lowers)))},upperdir={upper},workdir={work}"
        # in a user namespace, and with `userxattr`, redirects and metacopy cannot even be named
        data += options or ",redirect_dir=off,metacopy=off,index=off"
        if _libc.mount(b"overlay", os.fsencode(merged), b"overlay", 0, data.encode()) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._mounted.append(merged)
        return merged

    def close(self) -> None:
        for each in reversed(self._mounted):
            _libc.umount2(os.fsencode(each), 2)


@pytest.fixture
def overlays(tmp_path: Path) -> Iterator[Overlays]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    made = Overlays(tmp_path)
    probe = tmp_path / "probe-lower"
    probe.mkdir()
    try:
        made.mount([probe], "probe")
    except OSError as error:
        pytest.skip(f"overlayfs does not mount here: {error.strerror}")
    yield made
    made.close()


@contextmanager
def mount_tmpfs(path: Path, options: str) -> Iterator[None]:
    """A tmpfs on a directory."""
    if _libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, options.encode()) != 0:
        pytest.skip("tmpfs does not mount here")
    try:
        yield
    finally:
        _libc.umount2(os.fsencode(path), 2)
