"""The files of an image as one tree, streamed in the order of their paths: what `tar`, `local` and `--squash` write.

Each layer's tar is read once from front to back, several layers side by side, while the merged tree is walked. A
layer whose files do not lie in the order of their paths (other tools make such) is first copied, as far as its files
are seen, to a file without a name. Nothing is unpacked; memory does not grow with the size of files.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

from aerogel.errors import AerogelError
from aerogel.files.entry import LNK, REG, Entry
from aerogel.files.index import SMALL_FILES, LayerIndex
from aerogel.files.tar import CHUNK, Readable, TarWriter
from aerogel.files.tree import LayerTree, Origin
from aerogel.oci.digest import Digest
from aerogel.store.store import Store

__all__ = ["OpenTar", "linked", "write_entries"]

OpenTar = Callable[[Digest], AbstractContextManager[Readable]]
"""Opens the uncompressed tar of a layer; `Materials.open_tar`."""


def linked(tree: LayerTree, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Origin | None]]:
    """The entries, the second and further names of one file as hard links to the first, and where content lies."""
    first: dict[Hashable, bytes] = {}
    for entry in entries:
        inode = tree.inode(entry.path)
        if inode is not None and inode in first:
            yield entry._replace(kind=LNK, size=0, link=first[inode]), None
            continue
        if inode is not None:
            first[inode] = entry.path
        yield entry, tree.origin(entry.path) if entry.kind == REG and entry.size else None


def write_entries(
    write: Callable[[bytes | memoryview], object],
    entries: Sequence[tuple[Entry, Origin | None]],
    layers: Sequence[Digest],
    open_tar: OpenTar,
    store: Store,
) -> LayerIndex:
    """Writes a canonical tar of the entries, whose index is returned; those with an origin get their content from there.

    Raises `store.missing`, `store.corrupt`, `tar.*`, `codec.*`; then what was written is to be thrown away.
    """
    wanted: dict[int, list[Origin]] = {}
    for _, origin in entries:
        if origin is not None:
            wanted.setdefault(origin.layer, []).append(origin)
    writer = TarWriter(write)
    offsets: list[int] = []
    small: dict[bytes, bytes] = {}
    with ExitStack() as stack:
        readers: dict[int, _Reader] = {}
        for entry, origin in entries:
            writer.entry(entry)
            offsets.append(writer.offset)
            is_small = entry.path in SMALL_FILES and entry.kind == REG
            if is_small:
                small[entry.path] = b""
            if origin is None:
                continue
            reader = readers.get(origin.layer)
            if reader is None:
                reader = _reader(wanted[origin.layer], layers[origin.layer], open_tar, store, stack)
                readers[origin.layer] = reader
            if is_small:
                pieces: list[bytes] = []
                reader.copy(origin, pieces.append)
                small[entry.path] = b"".join(pieces)
                writer.content(small[entry.path])
            else:
                reader.copy(origin, writer.content)
            writer.pad()
        for reader in readers.values():
            reader.finish()
    writer.close()
    return LayerIndex([entry for entry, _ in entries], offsets, small)


class _Reader:
    """One layer's tar, read forward."""

    def __init__(self, stream: Readable, name: str) -> None:
        self._stream = stream
        self._name = name
        self._at = 0

    def copy(self, origin: Origin, write: Callable[[bytes], object]) -> None:
        self._take(origin.offset - self._at, None)
        self._take(origin.entry.size, write)

    def _take(self, left: int, write: Callable[[bytes], object] | None) -> None:
        self._at += left
        while left:
            data = self._stream.read(min(left, CHUNK))
            if not data:
                raise AerogelError(f"the tar of layer `{self._name}` is cut off", code="tar.truncated")
            left -= len(data)
            if write is not None:
                write(data)

    def finish(self) -> None:
        """Reads to the end: only there a stream of the store says whether it was what its digest says."""
        while self._stream.read(CHUNK):
            pass


class _Spooled(_Reader):
    """The wanted files of a layer in a file of their own, at any place."""

    def __init__(self, fd: int, places: dict[int, int]) -> None:
        self._fd = fd
        self._places = places

    def copy(self, origin: Origin, write: Callable[[bytes], object]) -> None:
        at = self._places[origin.offset]
        end = at + origin.entry.size
        while at < end:
            data = os.pread(self._fd, min(CHUNK, end - at), at)
            if not data:
                raise AerogelError("scratch space lost what was written there", code="store.io")
            at += len(data)
            write(data)

    def finish(self) -> None:
        """The layer was read to its end before."""


def _reader(origins: list[Origin], layer: Digest, open_tar: OpenTar, store: Store, stack: ExitStack) -> _Reader:
    offsets = [origin.offset for origin in origins]
    plain = _Reader(stack.enter_context(open_tar(layer)), layer)
    if all(one < other for one, other in itertools.pairwise(offsets)):
        return plain
    fd, path = store.scratch.file()
    # The name is not needed: what nobody holds open is gone, however this process ends.
    os.unlink(path)
    stack.callback(os.close, fd)
    places: dict[int, int] = {}
    size = 0
    for origin in sorted(set(origins), key=lambda one: one.offset):
        places[origin.offset] = size
        plain.copy(origin, lambda data: _write(fd, data))
        size += origin.entry.size
    plain.finish()
    return _Spooled(fd, places)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
