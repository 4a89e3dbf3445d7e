"""What is known of each layer: its compressed blobs, its size and its index, by diff id.

::

    <data>/layers-v1/<2 hex>/<62 hex>/      the diff id
        blob.<codec>    JSON descriptor of the layer compressed with that codec; one file for each codec
        index           the entries of its tar (`files.index`), behind a magic, CRC-32 and length
        meta            {"diff_id": ..., "size": bytes of the uncompressed tar}; written last, makes the record

Each file is put in place whole and says the same whoever writes it, so writers need no lock. A `blob.<codec>` is
written after its blob, and is not believed when the blob is gone or has another size.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from aerogel.decoding import parse_json
from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.types import Descriptor, decode, encode
from aerogel.store.blobs import Blobs
from aerogel.store.disk import disk_errors, read_file, unlink
from aerogel.store.scratch import Scratch

if TYPE_CHECKING:
    from aerogel.files.index import IndexWriter, LayerIndex, Summary

__all__ = ["LayerRecord", "Layers"]

_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"AGi1"
_BLOB = "blob."
_CHUNK = 1 << 18


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as the store knows it."""

    diff_id: Digest
    size: int
    """Bytes of the uncompressed tar."""
    blobs: dict[str, Descriptor]
    """Codec name -> the blob, each present with the right size when the record was read."""
    index: bool
    """Whether the list of its entries is here."""


class Layers:
    """The layer records of one store."""

    def __init__(self, data: str, scratch: Scratch, blobs: Blobs) -> None:
        self._root = f"{data}/layers-v1"
        self._scratch = scratch
        self._blobs = blobs

    def path(self, diff_id: Digest) -> str:
        """The directory of what is known of a layer."""
        encoded = diff_id.partition(":")[2]
        return f"{self._root}/{encoded[:2]}/{encoded[2:]}"

    def record(self, diff_id: Digest) -> LayerRecord | None:
        """What is known of the layer, None when it was never saved. Raises `store.denied`, `store.io`."""
        path = self.path(diff_id)
        meta = read_file(f"{path}/meta")
        if meta is None:
            return None
        try:
            known: dict[str, Any] = parse_json(meta)
            size = known["size"]
            if known["diff_id"] != diff_id or not isinstance(size, int):
                raise KeyError
        except (ValueError, KeyError, TypeError):
            unlink(f"{path}/meta")
            return None
        with disk_errors(path):
            names = os.listdir(path)
        blobs = {}
        for name in sorted(names):
            if name.startswith(_BLOB):
                found = self._blob(f"{path}/{name}")
                if found is not None:
                    blobs[name.removeprefix(_BLOB)] = found
        return LayerRecord(diff_id=diff_id, size=size, blobs=blobs, index="index" in names)

    def _blob(self, path: str) -> Descriptor | None:
        data = read_file(path)
        if data is None:
            return None
        try:
            descriptor = decode(data, Descriptor)
        except AerogelError:
            unlink(path)
            return None
        return descriptor if self._blobs.size(descriptor.digest) == descriptor.size else None

    def save(
        self,
        diff_id: Digest,
        *,
        size: int,
        blobs: Mapping[str, Descriptor] | None = None,
        index: LayerIndex | IndexWriter | bytes | None = None,
    ) -> None:
        """Adds to what is known of the layer; what is known already stays.

        `size` is that of the uncompressed tar; `blobs` maps codec names to blobs that are in the store already.
        Raises `store.missing` for a blob that is not, and `store.*`.
        """
        path = self.path(diff_id)
        for codec, descriptor in (blobs or {}).items():
            if not codec or not codec.replace("-", "").replace(".", "").replace("_", "").isalnum():
                raise ValueError(f"{codec!r} is not the name of a codec")
            if self._blobs.size(descriptor.digest) != descriptor.size:
                raise AerogelError(
                    f"blob `{descriptor.digest}` of layer `{diff_id}` is not in the store with {descriptor.size} bytes",
                    code="store.missing",
                )
            plain = Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
            data = encode(plain)
            self._put(f"{path}/{_BLOB}{codec}", len(data), [data].copy)
        if index is not None:
            crc = length = 0
            for piece in _pieces(index):
                crc, length = zlib.crc32(piece, crc), length + len(piece)
            header = _HEADER.pack(_MAGIC, crc, length)
            self._put(f"{path}/index", len(header) + length, lambda: chain([header], _pieces(index)))
        meta = json.dumps({"diff_id": diff_id, "size": size}, sort_keys=True, separators=(",", ":")).encode()
        self._put(f"{path}/meta", len(meta), lambda: [meta])

    def _put(self, path: str, length: int, pieces: Callable[[], Iterable[bytes | bytearray]]) -> None:
        # A layer that is built again gives the same files: then there is nothing to write.
        if _size(path) == length:
            with disk_errors(path), open(path, "rb") as there:
                if all(there.read(len(piece)) == piece for piece in pieces()):
                    return
        self._scratch.write_file(path, pieces())

    def index(self, diff_id: Digest) -> LayerIndex:
        """The entries of the layer. Raises `store.missing`, and `store.corrupt` after dropping a damaged file."""
        from aerogel.files.index import LayerIndex

        return LayerIndex.loads(self.index_bytes(diff_id))

    def summary(self, diff_id: Digest) -> Summary:
        """What is asked of the layer as a whole. Raises as `index`."""
        from aerogel.files.index import read_summary

        with suppress(FileNotFoundError), open(f"{self.path(diff_id)}/index", "rb") as file:
            head = file.read(_HEADER.size)
            crc = length = 0
            while data := file.read(_CHUNK):
                crc, length = zlib.crc32(data, crc), length + len(data)
            if head == _HEADER.pack(_MAGIC, crc, length):
                file.seek(_HEADER.size)
                found = read_summary(file)
                if found is not None:
                    return found
        return self.index(diff_id).summary()

    def index_size(self, diff_id: Digest) -> int:
        """Bytes of the saved index, about 95 for an entry; 0 when there is none."""
        return _size(f"{self.path(diff_id)}/index") or 0

    def index_bytes(self, diff_id: Digest) -> bytes:
        """The same as it was saved."""
        path = f"{self.path(diff_id)}/index"
        data = read_file(path)
        if data is None:
            raise AerogelError(f"the index of layer `{diff_id}` is not in the store", code="store.missing")
        if len(data) >= _HEADER.size:
            magic, crc, length = _HEADER.unpack_from(data)
            body = data[_HEADER.size :]
            if magic == _MAGIC and length == len(body) and crc == zlib.crc32(body):
                return body
        unlink(path)
        raise AerogelError(
            f"the index of layer `{diff_id}` was damaged on the disk and is removed",
            code="store.corrupt",
            hints=["run the build again: it makes a new one"],
        )

    def all(self) -> Iterator[tuple[Digest, int]]:
        """Every layer that has a directory, with the bytes of its files (blobs not counted)."""
        try:
            folders = os.listdir(self._root)
        except FileNotFoundError:
            return
        for folder in folders:
            with disk_errors(self._root):
                rests = os.listdir(f"{self._root}/{folder}")
            for rest in rests:
                with os.scandir(f"{self._root}/{folder}/{rest}") as files:
                    yield Digest(f"sha256:{folder}{rest}"), sum(file.stat().st_size for file in files)

    def remove(self, diff_id: Digest) -> None:
        """Forgets a layer; its blobs stay until nothing else needs them. For `store.gc`."""
        path = self.path(diff_id)
        # `meta` goes first: from then on the record is absent, not half there.
        unlink(f"{path}/meta")
        if os.path.isdir(path):
            self._scratch.discard(path)


def _pieces(index: LayerIndex | IndexWriter | bytes) -> Iterable[bytes | bytearray]:
    """The saved form of an index."""
    if isinstance(index, bytes):
        return [index]
    from aerogel.files.index import LayerIndex

    return [index.dumps()] if isinstance(index, LayerIndex) else index.pieces()


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
