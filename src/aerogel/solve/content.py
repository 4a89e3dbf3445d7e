"""The bytes of the files that a COPY takes, in the order in which its layer wants them.

From a context: opened below the context's descriptor. From layers: out of the blob at the offset that the index
names, reading forward; a layer without a blob is read by the helper, which sees mapped owners, through one pipe.
Nothing is ever opened by a path that an image controls.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from tempfile import TemporaryFile
from typing import Protocol

from aerogel.errors import AerogelError
from aerogel.files.codec import codec_named, open_at
from aerogel.files.copy import CopyItem
from aerogel.files.entry import REG, Entry, shown
from aerogel.files.host import HostTree
from aerogel.files.pyc import HEAD, fits, is_compiled, sources_of, with_time
from aerogel.files.tar import Readable, TarWriter
from aerogel.files.tree import LayerTree, Origin
from aerogel.oci.digest import Digest
from aerogel.solve.archives import Archives
from aerogel.solve.materials import Materials
from aerogel.solve.times import COPIED_S
from aerogel.store.disk import disk_errors

__all__ = ["ContextContent", "InlineContent", "LayerContent", "Source", "write_items"]

_CHUNK = 1 << 18
_NEAR = 4 << 20


class Source(Protocol):
    """Where the content of regular files comes from.

    `identity` says what content an item has, empty if that is known only after reading it.
    """

    def write(self, item: CopyItem, tar: TarWriter) -> None: ...
    def identity(self, item: CopyItem) -> bytes: ...
    def close(self) -> None: ...


def write_items(items: Iterable[tuple[CopyItem, Source]], tar: TarWriter) -> None:
    """Writes the items, which are in the order of a layer, as one tar."""
    for item, source in items:
        if item.entry.kind == REG and item.source is not None and item.entry.size:
            source.write(item, tar)
        else:
            tar.entry(item.entry)
    tar.close()


class ContextContent:
    """Files of a local context, and of archives in it, for which `folder` has room.

    `copied` is the time that they get, None for their own.
    """

    def __init__(self, tree: HostTree, folder: str, copied: int | None = COPIED_S) -> None:
        self._tree = tree
        self._copied = copied
        self.archives = Archives(tree, folder)

    def identity(self, item: CopyItem) -> bytes:
        if item.archive is not None:
            return b"in %s %s" % (self._tree.digest(item.archive), item.source or b"")
        return self._tree.digest(item.source or b"")

    def write(self, item: CopyItem, tar: TarWriter) -> None:
        if item.archive is not None:
            if self._copied is not None and is_compiled(item.source or b""):
                tar = _Refitting(tar, self.archives.source(item), self._copied)
            self.archives.write(item, tar)
            return
        path = item.source or b""
        fd = self._tree.open(path)
        try:
            # The key was made of what the file was; a step may have run since.
            self._tree.check_unchanged(path, fd)
            if self._copied is not None and is_compiled(path) and self._tree.fits(path):
                source = self._tree.lookup(sources_of(path))
                tar = _Refitting(tar, source, self._copied)
            tar.file_fd(item.entry, fd)
            self._tree.check_unchanged(path, fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        self.archives.close()


class InlineContent:
    """A file whose content stands in the Dockerfile."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def identity(self, item: CopyItem) -> bytes:
        del item
        return sha256(self._content).digest()

    def write(self, item: CopyItem, tar: TarWriter) -> None:
        tar.entry(item.entry)
        tar.content(self._content)
        tar.pad()

    def close(self) -> None:
        """Nothing is kept open."""


class LayerContent:
    """Files of the layers of an image or of another stage.

    An image is fixed: its files are known by their place in its layers, and not read to know them.
    """

    def __init__(
        self, materials: Materials, layers: Sequence[Digest], tree: LayerTree, *, is_image: bool = False
    ) -> None:
        self._materials = materials
        self._layers = layers
        self._tree = tree
        self._is_image = is_image
        self._readers: dict[int, _Reader] = {}

    def identity(self, item: CopyItem) -> bytes:
        if not self._is_image:
            return b""
        at = _origin(self._tree, item.source or b"")
        known = b"at %s %s" % (self._layers[at.layer].encode(), at.entry.path)
        source = self._source(item)
        return known if source is None else b"%s of %d %d" % (known, source.mtime, source.size)

    def _source(self, item: CopyItem) -> Entry | None:
        """The source of a compiled file, whose time changes by being copied."""
        path = item.source or b""
        if not is_compiled(path) or self._materials.times.copied is None:
            return None
        return self._tree.lookup(sources_of(path))

    def digests(self, items: Collection[CopyItem]) -> dict[bytes, bytes]:
        """The SHA-256 of the contents of these items by their path in the source, all read in one go."""
        found: dict[bytes, bytes] = {}
        reading = LayerContent(self._materials, self._layers, self._tree)
        try:
            reading.open(items)
            for item in items:
                if item.source is not None and item.entry.kind == REG and item.entry.size:
                    hasher = _Hasher()
                    reading.write(item, hasher)
                    found[item.source] = hasher.digest()
        finally:
            reading.close()
        return found

    def open(self, items: Iterable[CopyItem]) -> None:
        """Makes the content of these items ready, in this order. `close` is owed even if it raises."""
        wanted: dict[int, list[tuple[bytes, int, int]]] = {}
        for item in items:
            if item.entry.kind == REG and item.source is not None and item.entry.size:
                at = _origin(self._tree, item.source)
                wanted.setdefault(at.layer, []).append((at.entry.path, at.offset, at.entry.size))
        for number, files in wanted.items():
            self._readers[number] = _reader(self._materials, self._layers, number, files)

    def write(self, item: CopyItem, tar: TarWriter) -> None:
        at = _origin(self._tree, item.source or b"")
        entry = at.entry
        if entry.size != item.entry.size:
            raise AssertionError(f"{entry.path!r} has two sizes")
        source, copied = self._source(item), self._materials.times.copied
        if source is not None and copied is not None:
            tar = _Refitting(tar, source, copied)
        tar.entry(item.entry)
        reader = self._readers[at.layer]
        reader.seek(entry.path, at.offset)
        left = entry.size
        while left:
            data = reader.read(min(left, _CHUNK))
            if not data:
                raise AerogelError(f"`/{shown(entry.path)}` ends {left} bytes early in its layer", code="store.corrupt")
            tar.content(data)
            left -= len(data)
        tar.pad()

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()


class _Hasher(TarWriter):
    """Takes the content of one file and writes nothing."""

    __slots__ = ("_sum",)

    def __init__(self) -> None:
        self._sum = sha256()
        super().__init__(self._sum.update)

    def entry(self, entry: Entry) -> None:
        del entry

    def content(self, data: bytes | memoryview) -> None:
        self._sum.update(data)

    def pad(self) -> None:
        """Nothing was written."""

    def digest(self) -> bytes:
        return self._sum.digest()


class _Refitting(TarWriter):
    """Writes one compiled file: one that fits its source fits it at the time that the source gets as well."""

    __slots__ = ("_head", "_source", "_tar", "_time")

    def __init__(self, tar: TarWriter, source: Entry | None, time: int) -> None:
        super().__init__(tar.content)
        self._tar = tar
        self._source = source
        self._time = time
        self._head: bytes | None = b""

    def entry(self, entry: Entry) -> None:
        self._tar.entry(entry)

    def content(self, data: bytes | memoryview) -> None:
        if self._head is None:
            self._tar.content(data)
            return
        self._head += data
        if len(self._head) >= HEAD:
            self._end_head()

    def pad(self) -> None:
        if self._head is not None:
            self._end_head()
        self._tar.pad()

    def _end_head(self) -> None:
        data, self._head = self._head or b"", None
        source = self._source
        if source is not None and fits(data[:HEAD], source.mtime, source.size):
            data = with_time(data[:HEAD], self._time) + data[HEAD:]
        self._tar.content(data)


def _origin(tree: LayerTree, path: bytes) -> Origin:
    found = tree.origin(path)
    if found is None:
        raise AssertionError(f"{path!r} has no content")
    return found


class _Reader(Protocol):
    def seek(self, path: bytes, offset: int) -> None: ...
    def read(self, size: int) -> bytes: ...
    def close(self) -> None: ...


def _reader(
    materials: Materials, layers: Sequence[Digest], number: int, files: list[tuple[bytes, int, int]]
) -> _Reader:
    record = materials.store.layers.record(layers[number])
    if record is None or not record.blobs:
        return _HelperReader(materials, materials.directories([layers[number]])[0], files)
    for name, descriptor in record.blobs.items():
        if name == "tar" or name.startswith("gzip-"):
            materials.verify(descriptor)
            return _BlobReader(materials.store.blobs.open_fd(descriptor.digest), name)
    with materials.open_tar(layers[number]) as tar:
        return _SpoolReader(tar, files, materials.store.cache)


class _BlobReader:
    """A blob of ours: jumps forward by members, reads on when the next file is near."""

    def __init__(self, fd: int, codec: str) -> None:
        self._fd = fd
        self._codec = codec_named(codec)
        self._at = -1
        self._stream: Readable | None = None

    def seek(self, path: bytes, offset: int) -> None:
        del path
        if self._stream is None or not self._at <= offset <= self._at + _NEAR:
            self._stream = open_at(self._fd, self._codec, offset)
            self._at = offset
        while self._at < offset:
            if not self.read(min(offset - self._at, _CHUNK)):
                return

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size) if self._stream is not None else b""
        self._at += len(data)
        return data

    def close(self) -> None:
        os.close(self._fd)


class _SpoolReader:
    """A blob that cannot be entered in the middle: one pass keeps what is wanted in a nameless file."""

    def __init__(self, tar: Readable, files: list[tuple[bytes, int, int]], folder: str) -> None:
        self._places: dict[int, int] = {}
        with disk_errors(folder):
            self._spool = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
            self._take(tar, files)

    def _take(self, tar: Readable, files: list[tuple[bytes, int, int]]) -> None:
        at = 0
        for _, offset, size in sorted(set(files), key=lambda file: file[1]):
            self._places[offset] = self._spool.tell()
            while at < offset + size:
                data = tar.read(min(offset - at if at < offset else offset + size - at, _CHUNK))
                if not data:
                    raise AerogelError("a layer ends before one of its files", code="store.corrupt")
                if at >= offset:
                    self._spool.write(data)
                at += len(data)

    def seek(self, path: bytes, offset: int) -> None:
        del path
        self._spool.seek(self._places[offset])

    def read(self, size: int) -> bytes:
        return self._spool.read(size)

    def close(self) -> None:
        self._spool.close()


class _HelperReader:
    """A layer that is only a directory: the helper sends the files one after the other, in our order."""

    def __init__(self, materials: Materials, directory: str, files: list[tuple[bytes, int, int]]) -> None:
        self._read_fd, write_fd = os.pipe()
        self._left = 0
        self._files = iter(files)
        self._failures: list[BaseException] = []
        args = {
            "root": directory,
            "paths": [path.decode("utf-8", "surrogateescape") for path, _, _ in files],
            "sizes": [f[2] for f in files],
        }

        def work() -> None:
            try:
                materials.helper().call("read", args, [write_fd])
            except BaseException as error:  # noqa: BLE001 - raised again by `read`
                self._failures.append(error)
            finally:
                os.close(write_fd)

        self._thread = threading.Thread(target=work, name="job read")
        self._thread.start()

    def seek(self, path: bytes, offset: int) -> None:
        del offset
        expected, _, size = next(self._files)
        if expected != path or self._left:
            raise AssertionError(f"{path!r} is not the next file")
        self._left = size

    def read(self, size: int) -> bytes:
        data = os.read(self._read_fd, min(size, self._left))
        if not data:
            self._thread.join()
            if self._failures:
                raise self._failures[0]
        self._left -= len(data)
        return data

    def close(self) -> None:
        os.close(self._read_fd)
        self._thread.join()
