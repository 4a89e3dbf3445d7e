"""The files of an image as the container sees them, read from the blobs of its layers without unpacking anything.

Each layer is decompressed once for each call of `read`, from front to back, and only when it has a file that is
wanted. A file that must be entered at any place is held in memory up to 8 MiB, a larger one in a file without a name
while it is looked at: one at a time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import BinaryIO

from aerogel.errors import AerogelError
from aerogel.files.codec import open_uncompressed
from aerogel.files.entry import REG
from aerogel.files.index import LayerIndex
from aerogel.files.tar import CHUNK, Readable
from aerogel.files.tree import LayerTree, Origin
from aerogel.oci.image import Image
from aerogel.oci.types import Descriptor

__all__ = ["MAX_FILE", "Contents", "File"]

MAX_FILE = 1 << 30
"""Bytes of a file that is entered at any place; larger ones are left out."""

_IN_MEMORY = 8 << 20


class File:
    """One regular file while it goes by. `path` is absolute; `read` goes forward."""

    def __init__(self, path: bytes, size: int, layer: str, stream: Readable, spool: Callable[[], int]) -> None:
        self.path = "/" + path.decode("utf-8", "backslashreplace")
        self.size = size
        self.layer = layer
        self.left = size
        self._stream = stream
        self._spool = spool
        self._fd = -1

    def read(self, size: int) -> bytes:
        """Up to `size` of the next bytes, all of them unless the file ends."""
        pieces: list[bytes] = []
        want = min(size, self.left)
        while want:
            data = self._stream.read(min(want, CHUNK))
            if not data:
                raise AerogelError(f"the layer ends inside `{self.path}`", code="tar.truncated")
            pieces.append(data)
            want -= len(data)
            self.left -= len(data)
        return b"".join(pieces)

    def whole(self, limit: int) -> bytes | None:
        """All that is left, None when it is more than `limit`."""
        return self.read(self.left) if self.left <= limit else None

    def seekable(self, head: bytes) -> BinaryIO | None:
        """The file to be entered at any place, `head` being what was read of it; None when it is larger than `MAX_FILE`."""
        if self.size > MAX_FILE:
            return None
        if self.size <= _IN_MEMORY:
            return io.BytesIO(head + self.read(self.left))
        self._fd = self._spool()
        self._write(head)
        while self.left:
            self._write(self.read(min(self.left, CHUNK)))
        return os.fdopen(os.dup(self._fd), "rb", buffering=1 << 16)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """Goes to the end of the file."""
        while self.left:
            self.read(min(self.left, CHUNK))
        if self._fd >= 0:
            os.close(self._fd)


class Contents:
    """The merged files of one image. `spool` gives a descriptor of a fresh file without a name."""

    def __init__(self, image: Image, indexes: Sequence[LayerIndex], spool: Callable[[], int]) -> None:
        self.image = image
        self.tree = LayerTree(indexes)
        self._spool = spool

    def paths(self) -> list[bytes]:
        """Every regular file, sorted; of several names of one file each."""
        return [entry.path for entry in self.tree.walk() if entry.kind == REG]

    def layer_of(self, path: bytes) -> str:
        """Diff id of the layer that a file lies in; empty for a path that is not there."""
        origin = self.tree.origin(path)
        return "" if origin is None else self.image.config.rootfs.diff_ids[origin.layer]

    def read(self, paths: Iterable[bytes], take: Callable[[File], object]) -> None:
        """Calls `take` for each file, in the order in which they lie in the layers.

        Raises `store.missing`, `store.corrupt`, `codec.*`, and what `take` raises.
        """
        wanted: dict[int, list[tuple[Origin, bytes]]] = {}
        for path in paths:
            origin = self.tree.origin(path)
            if origin is not None and origin.entry.kind == REG:
                wanted.setdefault(origin.layer, []).append((origin, path))
        layers = self.image.layers()
        for number in sorted(wanted):
            self._read_layer(layers[number].descriptor, layers[number].diff_id, wanted[number], take)

    def _read_layer(
        self, blob: Descriptor, diff_id: str, wanted: list[tuple[Origin, bytes]], take: Callable[[File], object]
    ) -> None:
        wanted.sort(key=lambda each: (each[0].offset, each[1]))
        with self.image.blobs.open(blob.digest, blob.size) as compressed:
            stream = open_uncompressed(compressed, blob.media_type)
            at = 0
            last = -1
            for origin, path in wanted:
                if origin.offset == last:
                    continue  # a second name of the same file
                last = origin.offset
                at += _skip(stream, origin.offset - at, diff_id)
                file = File(path, origin.entry.size, diff_id, stream, self._spool)
                try:
                    take(file)
                finally:
                    with suppress(AerogelError):
                        file.finish()
                at += origin.entry.size - file.left
            # Only at its end a stream says whether it was what its digest says.
            while stream.read(CHUNK):
                pass


def _skip(stream: Readable, size: int, layer: str) -> int:
    left = size
    while left:
        data = stream.read(min(left, CHUNK))
        if not data:
            raise AerogelError(f"the tar of layer `{layer}` is cut off", code="tar.truncated")
        left -= len(data)
    return size
