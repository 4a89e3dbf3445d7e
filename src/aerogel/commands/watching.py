"""Blobs whose reading is shown as progress: for copies that something else reads, as writers of archives do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import BinaryIO, Self, cast

from aerogel.commands.registries import Meter
from aerogel.events import Sink
from aerogel.oci.digest import Digest
from aerogel.oci.image import Blobs, walk
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, Descriptor

__all__ = ["Watched", "watch"]


def watch(tops: Iterable[Descriptor], blobs: Blobs, sink: Sink, number: int, label: str) -> Watched:
    """The same blobs; what is read of those that `tops` need is told as progress of the step `number`."""
    parts = {part.digest: part for top in tops for part in walk(top, blobs)}
    told = [part for part in parts.values() if part.media_type not in INDEX_TYPES | MANIFEST_TYPES]
    return Watched(blobs, Meter(sink, number, label, sum(part.size for part in told)), told)


class Watched:
    """Blobs of another place. What is opened again is counted again."""

    def __init__(self, blobs: Blobs, meter: Meter, parts: Iterable[Descriptor]) -> None:
        self._blobs = blobs
        self._counters = {part.digest: meter.of(part) for part in parts}
        self._counts = dict.fromkeys(self._counters, 0)

    def has(self, digest: Digest, /) -> bool:
        return self._blobs.has(digest)

    def read(self, digest: Digest, size: int | None = None, /) -> bytes:
        return self._blobs.read(digest, size)

    def open(self, digest: Digest, size: int | None = None, /) -> BinaryIO:
        stream = self._blobs.open(digest, size)
        if digest not in self._counters:
            return stream
        self._count(digest, -self._counts[digest])
        return cast("BinaryIO", _Stream(stream, lambda count: self._count(digest, count)))

    def _count(self, digest: Digest, count: int) -> None:
        if count:
            self._counts[digest] += count
            self._counters[digest](count)


class _Stream:
    """As much of a stream as readers of blobs use."""

    def __init__(self, stream: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_bytes = on_bytes

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._on_bytes(len(data))
        return data

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
