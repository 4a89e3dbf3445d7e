"""The layers of an image out of the layers of its steps: the same files with the date of the image.

A layer inside the store says nothing of dates (`solve.times`). Stamped, what the step wrote or copied has the image's
date, nothing that a RUN left is newer, and Python's compiled files record what their sources got. No step runs again
for another date. Layers of the base are not touched. What was stamped is remembered by the layer, the date and the
marks below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from aerogel.errors import AerogelError
from aerogel.files.codec import Codec, LayerBlob, LayerWriter
from aerogel.files.entry import REG, Entry
from aerogel.files.index import SMALL_FILES, IndexWriter, Summary, mark_of
from aerogel.files.pyc import HEAD, is_compiled, recorded_time, sources_of, with_time
from aerogel.files.tar import CHUNK, Readable, TarWriter, read_entries
from aerogel.oci.digest import Digest
from aerogel.solve.materials import Materials, save_layer
from aerogel.solve.stepkey import key_of
from aerogel.solve.times import COPIED_S

if TYPE_CHECKING:
    from aerogel.files.tree import LayerTree

__all__ = ["Stamper", "stamp", "take_run"]


class _Result(Protocol):
    """A `solver.Outcome`."""

    @property
    def layers(self) -> tuple[Digest, ...]: ...
    @property
    def chain(self) -> tuple[str, ...]: ...
    def _replace(self, *, layers: tuple[Digest, ...] = ..., chain: tuple[str, ...] = ...) -> Self: ...


_R = TypeVar("_R", bound=_Result)


class Stamper:
    """The entries of a layer with the date `epoch_s`, in the image whose lowest `bases` layers are not stamped.

    `marks` are those of the layers below; `below` gives the tree of these.
    """

    def __init__(self, epoch_s: int, marks: frozenset[int], below: Callable[[], LayerTree], bases: int) -> None:
        self.epoch_s = epoch_s
        self._marks = marks | {COPIED_S}
        self._below = below
        self._bases = bases
        self._is_run = False

    def begin(self, mark: int | None) -> None:
        """Begins with a layer, whose own mark this is: none for one that no RUN made."""
        self._is_run = mark is not None
        if mark is not None:
            self._marks |= {mark}

    def time(self, mtime: int) -> int:
        """The time in the image of a file of the layer."""
        if mtime in self._marks:
            return self.epoch_s
        # What a COPY layer has of other times are directories of the base.
        return min(mtime, self.epoch_s) if self._is_run else mtime

    def head(self, path: bytes, head: bytes) -> bytes:
        """The first bytes of a compiled file."""
        recorded = recorded_time(head)
        if recorded is None:
            return head
        time = self.time(recorded)
        if time != recorded:
            # Also of a mark: files of a base that was built here without a date have the time of what COPY brings.
            source = sources_of(path)
            found = self._below().lookup(source)
            at = self._below().origin(source)
            if found is not None and found.mtime == recorded and at is not None and at.layer < self._bases:
                return head
        return head if time == recorded else with_time(head, time)

    def changes(self, layer: Summary) -> bool:
        """Whether the layer is another one with the date."""
        return layer.mark is not None or any(self.time(time) != time for time in layer.times)


def stamp(outcome: _R, materials: Materials, codec: Codec) -> _R:
    """The result of a stage with the layers that its image has. Raises `store.*`."""
    if materials.times.keep:
        return outcome
    layers = outcome.layers
    bases = len(layers) - sum(1 for layer in outcome.chain if layer)
    made = [_stamped(layers, position, bases, materials, codec) for position in range(bases, len(layers))]
    new = iter(made)
    chain = tuple(next(new) if layer else "" for layer in outcome.chain)
    return outcome._replace(layers=(*layers[:bases], *made), chain=chain)


def _stamped(layers: Sequence[Digest], position: int, bases: int, materials: Materials, codec: Codec) -> Digest:
    layer, below = layers[position], layers[:position]
    summary = materials.summary(layer)
    stamper = _stamper(materials, below, bases)
    stamper.begin(summary.mark)
    if not stamper.changes(summary):
        return layer
    key = _key(materials, layer, summary, below, bases)
    store = materials.store
    with store.once(key, materials.on_wait):
        known = store.actions.get(key)
        if known is not None and materials.is_here(Digest(known["layers"][0])):
            return Digest(known["layers"][0])

        def take(stream: Readable) -> tuple[LayerBlob, Digest]:
            original, stamped = _take(stream, stamper, materials, codec, None)
            return original, stamped or layer

        original, made = materials.read_layer(layers, position, take)
        if original.diff_id != layer:
            raise AerogelError(
                f"layer `{layer}` gave `{original.diff_id}` when it was read again",
                code="store.corrupt",
                hints=["build again with `--no-cache`"],
            )
        _remember(materials, key, layer, made)
    return made


def take_run(
    stream: Readable, below: Sequence[Digest], bases: int, materials: Materials, codec: Codec
) -> tuple[LayerBlob, IndexWriter]:
    """Reads the layer of a RUN that an image will hold, once: what it is in the store, and stamped with its blob."""
    stamper = _stamper(materials, below, bases)
    index = IndexWriter()
    layer, stamped = _take(stream, stamper, materials, codec, index)
    save_layer(materials.store, layer, index)
    if stamped is not None:
        diff_id = Digest(layer.diff_id)
        _remember(materials, _key(materials, diff_id, index.summary(), below, bases), diff_id, stamped)
    return layer, index


def _stamper(materials: Materials, below: Sequence[Digest], bases: int) -> Stamper:
    marks = frozenset(mark for layer in below[bases:] if (mark := materials.summary(layer).mark) is not None)
    return Stamper(materials.times.epoch_s, marks, lambda: materials.tree(below), bases)


def _key(materials: Materials, layer: Digest, summary: Summary, below: Sequence[Digest], bases: int) -> Digest:
    marks = sorted({mark for each in below[bases:] if (mark := materials.summary(each).mark) is not None})
    # Only compiled files ask what is below: their source may be in the base.
    tree = [b"%d" % bases, *(each.encode() for each in below)] if summary.has_compiled else []
    return key_of(b"stamp", layer.encode(), b"%d" % materials.times.epoch_s, repr(marks).encode(), *tree)


def _remember(materials: Materials, key: Digest, layer: Digest, stamped: Digest) -> None:
    facts = {"op": "stamp", "epoch_s": materials.times.epoch_s, "inputs": [layer]}
    materials.store.actions.put(key, facts, {"layers": [stamped], "chain": []})


def _take(
    stream: Readable, stamper: Stamper, materials: Materials, codec: Codec, index: IndexWriter | None
) -> tuple[LayerBlob, Digest | None]:
    """Reads a layer's tar to its end: what it is, its index if asked for, and the stamped layer, which is stored.

    That is None when there are no entries.
    """
    store = materials.store
    mark: int | None = None
    with (
        LayerWriter(None, None) as original,
        store.blobs.write() as blob,
        LayerWriter(blob.fd, codec, blocks=store.blocks) as writer,
    ):
        tar = _Noting(writer.write)
        notes: dict[bytes, bytes] = {}
        source = _Tee(stream, original.write)
        for entry, content in read_entries(source, notes):
            if not len(tar.index):
                mark = mark_of(notes)
                stamper.begin(mark)
            if index is not None:
                index.add(entry, content.offset)
            tar.entry(entry._replace(mtime=stamper.time(entry.mtime)))
            if entry.kind != REG or not entry.size:
                continue
            if is_compiled(entry.path):
                tar.content(stamper.head(entry.path, content.read(HEAD)))
            while content.left:
                tar.content(content.some())
            tar.pad()
        while source.read(CHUNK):
            pass
        tar.close()
        if index is not None:
            index.small, index.mark = tar.index.small, mark
        found = original.finish()
        made = writer.finish()
        if not len(tar.index):
            blob.abort()
            return found, None
        blob.commit(Digest(str(made.digest)), made.size)
    save_layer(store, made, tar.index)
    return found, Digest(made.diff_id)


class _Tee:
    """Reads a stream and hands every byte on."""

    __slots__ = ("_copy", "_stream")

    def __init__(self, stream: Readable, copy: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._copy = copy

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        if data:
            self._copy(data)
        return data


class _Noting(TarWriter):
    """Notes what it writes, for the layer's index."""

    __slots__ = ("_keep", "index")

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        super().__init__(write)
        self.index = IndexWriter()
        self._keep = b""

    def entry(self, entry: Entry) -> None:
        super().entry(entry)
        self.index.add(entry, self.offset)
        self._keep = entry.path if entry.kind == REG and entry.path in SMALL_FILES else b""
        if self._keep:
            self.index.small[self._keep] = b""

    def content(self, data: bytes | memoryview) -> None:
        super().content(data)
        if self._keep:
            self.index.small[self._keep] += bytes(data)
