"""Keeps what makers made: linking a Java runtime takes longer than all the rest, and every variant needs the same.

    <cache>/made-v1/<key>.tar     canonical tar of the files, and behind it the SHA-256 of that

`key` is the digest of all that decides the files, so what is kept is right for ever; it appears by rename, and readers
need no lock. Not for: making anything (`makers`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from aerogel.distroless.layout import Item, Layout, Place, write_layer
from aerogel.distroless.unpacked import Unpacked
from aerogel.files.entry import LNK, REG
from aerogel.files.tar import CHUNK, scan

__all__ = ["FOLDER", "contents_digest", "made_once", "packages_digest"]

FOLDER = "made-v1"
_DIGEST_SIZE = 32


def made_once(
    cache: Path, key: Iterable[bytes], epoch: int, stack: ExitStack, make: Callable[[Layout], None]
) -> dict[bytes, Item]:
    """The files that `make` puts into an empty layout, by path: those that are kept, else it is called.

    `epoch` is the time that all of them have, seconds since 1970. They can be read until `stack` is closed.
    """
    kept = cache / FOLDER / f"{_digest((*key, str(epoch).encode())).hex()}.tar"
    found = _open(kept, stack)
    if found is None:
        layout = Layout()
        layout.epoch = epoch
        make(layout)
        _save(layout, kept)
        found = _open(kept, stack)
        assert found is not None  # written a moment ago
    return found


def _open(kept: Path, stack: ExitStack) -> dict[bytes, Item] | None:
    try:
        stream = stack.enter_context(kept.open("rb"))
    except FileNotFoundError:
        return None
    if not _is_sound(stream):
        return None
    found: dict[bytes, Item] = {}
    for entry, at in scan(stream):
        if entry.kind == LNK:
            first = found[entry.link]
            found[entry.path] = Item(first.entry._replace(path=entry.path), first.content)
        elif entry.path:
            found[entry.path] = Item(entry, Place(stream.fileno(), at) if entry.kind == REG else b"")
    return found


def _is_sound(stream: BinaryIO) -> bool:
    """Whether the file is what was written; it stands at its begin then."""
    left = os.fstat(stream.fileno()).st_size - _DIGEST_SIZE
    hasher = hashlib.sha256()
    while left > 0 and (data := stream.read(min(CHUNK, left))):
        hasher.update(data)
        left -= len(data)
    if left or stream.read() != hasher.digest():
        return False
    stream.seek(0)
    return True


def _save(layout: Layout, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    fd, scratch = tempfile.mkstemp(prefix=".new-", dir=kept.parent)
    try:
        hasher = hashlib.sha256()
        with open(fd, "wb") as out:

            def write(data: bytes | memoryview) -> None:
                hasher.update(data)
                out.write(data)

            write_layer(layout.ordered(), write)
            out.write(hasher.digest())
        os.rename(scratch, kept)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
        raise


def packages_digest(packages: Iterable[Unpacked]) -> bytes:
    """Stands for the packages themselves, in whatever order they come."""
    return _digest(sorted(each.package.sha256.encode() for each in packages))


def contents_digest(items: Mapping[bytes, Item]) -> bytes:
    """Stands for paths, kinds, link targets and contents."""
    layout = Layout()
    parts = []
    for path in sorted(items):
        entry = items[path].entry
        content = layout.read(items[path]) if entry.kind in (REG, LNK) else entry.link
        parts += [path, bytes((entry.kind,)), hashlib.sha256(content).digest()]
    return _digest(parts)


def _digest(parts: Iterable[bytes]) -> bytes:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.digest()
