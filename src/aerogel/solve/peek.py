"""A few bytes of a file in a layer, when they are at hand: for remarks, never for results.

Nothing is made, fetched, unpacked or verified for them.
"""

from __future__ import annotations

import os

from aerogel.errors import AerogelError
from aerogel.files.codec import codec_named, open_at
from aerogel.files.tar import Readable
from aerogel.oci.digest import Digest
from aerogel.solve.materials import Materials

__all__ = ["are_huge", "has_indexes", "peek"]

_MOST = 8 << 20
"""Bytes of indexes that are read for a remark: some 80,000 files, which take 60 MB as a tree."""
_NEAR = 16 << 20
"""Bytes of a tar that are read over where a blob cannot be entered in the middle: some tens of milliseconds."""


def has_indexes(materials: Materials, layers: tuple[Digest, ...]) -> bool:
    """Whether the tree of the layers costs no more than reading their indexes, and these are not huge."""
    kept = materials.store.layers
    records = (kept.record(layer) for layer in layers)
    if not all(record is not None and record.index for record in records):
        return False
    return not are_huge(materials, layers)


def are_huge(materials: Materials, layers: tuple[Digest, ...]) -> bool:
    """Whether there are so many files in layers that looking at them for a remark would take long, and much memory."""
    return sum(map(materials.store.layers.index_size, layers)) > _MOST


def peek(materials: Materials, layer: Digest, offset: int, size: int) -> bytes:
    """Up to `size` bytes from `offset` of the tar of a layer; nothing when that is more than a moment's work."""
    record = materials.store.layers.record(layer)
    if record is None:
        return b""
    try:
        for name, descriptor in record.blobs.items():
            if name == "tar" or name.startswith("gzip-"):
                fd = materials.store.blobs.open_fd(descriptor.digest)
                try:
                    return _some(open_at(fd, codec_named(name), offset), size)
                finally:
                    os.close(fd)
        if not record.blobs or offset > _NEAR:
            return b""
        with materials.open_tar(layer) as stream:
            return _some(stream, offset + size)[offset:]
    except AerogelError:  # whoever needs the layer says what is wrong with it
        return b""


def _some(stream: Readable, size: int) -> bytes:
    pieces = []
    while size and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
