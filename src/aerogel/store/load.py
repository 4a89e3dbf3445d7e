"""Reading images out of files that other tools wrote into the store: OCI layouts and archives, `docker save`.

Nothing in them is believed: every size, digest and diff id is made anew on the way in, links are followed inside the
archive only, documents have a largest size, and nothing is unpacked to a name that the archive gives. What does not
fit raises before anything has a name; blobs that came in until then are right and wait for `store.gc`.
Spec: OCI image-spec v1.1 image-layout.md; Docker image spec v1.2.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, Protocol, Self, cast

import msgspec

from aerogel.decoding import parse_json
from aerogel.errors import AerogelError
from aerogel.files.codec import open_uncompressed, sniff
from aerogel.files.entry import DIR, LNK, REG, SYM, shown
from aerogel.files.index import build_index
from aerogel.files.tar import CHUNK, scan
from aerogel.oci.digest import Digest, VerifiedReader, new_hash, of_hash, short
from aerogel.oci.image import Image, Layer, document, images, walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import (
    CONFIG_TYPES,
    INDEX_TYPES,
    LAYER_TYPES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
    encode,
)
from aerogel.store.blobs import MAX_DOCUMENT
from aerogel.store.disk import disk_error, disk_errors
from aerogel.store.layout import IMAGE_NAME
from aerogel.store.store import Store

__all__ = ["Loaded", "load_archive", "load_digest", "load_layout", "record_layer", "record_layers", "record_present"]

_MAX_FILES = 100_000
"""Files in an archive; the largest images of the world have a few hundred."""
_MAX_LINKS = 8

_TYPES = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


class Loaded(msgspec.Struct, frozen=True):
    """An image or index that is in the store now, and the names that the file had for it."""

    descriptor: Descriptor
    references: tuple[Reference, ...] = ()
    label: str = ""
    """An OCI name that is no reference, as a bare tag is; the caller may make one with it."""


class _Files(Protocol):
    """Files by name, wherever they are."""

    def size(self, name: str) -> int | None: ...

    def open(self, name: str) -> BinaryIO: ...


def load_archive(stream: BinaryIO, store: Store) -> list[Loaded]:
    """Puts the images of an archive (OCI or `docker save`, plain or compressed, pipe or file) in the store.

    Gives them no names: that is for the caller, with `store.images`. Raises `archive.*` for what is no such archive,
    `store.mismatch` and `oci.*` for what is not what it says, `tar.*`, `codec.*`, `store.*`.
    """
    with _Spool(stream, store) as file:
        return _load(_ArchiveFiles(file), store, "archive")


def load_layout(directory: str, store: Store) -> list[Loaded]:
    """The same from an OCI layout directory (or an unpacked `docker save`)."""
    return _load(_DirectoryFiles(directory), store, f"`{directory}`")


def load_digest(directory: str, digest: Digest, store: Store) -> Descriptor | None:
    """The image or index of a digest from an OCI layout directory, in the store then; None if it is not there.

    Raises `store.mismatch`, `archive.*` for one that is not whole or not what its digests say.
    """
    files = _DirectoryFiles(directory)
    blobs = _FileBlobs(files)
    if not os.path.isdir(directory) or not blobs.has(digest):
        return None
    data = blobs.read(digest)
    found = Descriptor(digest=digest, size=len(data))
    for part in walk(found, blobs):
        if store.blobs.size(part.digest) != part.size and not (part.urls and not blobs.has(part.digest)):
            with blobs.open(part.digest, part.size) as stream:
                store.blobs.copy_in(stream, part.digest, part.size)
    return found


def _load(files: _Files, store: Store, what: str) -> list[Loaded]:
    if files.size("index.json") is not None and files.size("oci-layout") is not None:
        return _load_oci(files, store)
    if files.size("manifest.json") is not None:
        return _load_docker(files, store)
    raise AerogelError(
        f"{what} holds no image: neither `index.json` with `oci-layout` nor `manifest.json` is in it",
        code="archive.no-image",
        hints=[
            "valid are OCI layouts and what `docker save` writes; for a root file system use `FROM scratch` and `ADD`"
        ],
    )


def _read_document(files: _Files, name: str) -> bytes:
    size = files.size(name)
    if size is None:
        raise AerogelError(f"archive has no file `{name}`", code="archive.missing")
    if size > MAX_DOCUMENT:
        raise AerogelError(
            f"`{name}` in the archive has {size} bytes, at most {MAX_DOCUMENT} are read", code="archive.too-large"
        )
    with files.open(name) as stream:
        data = stream.read(size)
    if len(data) != size:
        raise AerogelError(f"`{name}` in the archive is cut off", code="archive.truncated")
    return data


# OCI


class _FileBlobs:
    """The blobs of an OCI layout, checked as they are read."""

    def __init__(self, files: _Files) -> None:
        self._files = files

    @staticmethod
    def _name(digest: Digest) -> str:
        return f"blobs/{digest.replace(':', '/')}"

    def has(self, digest: Digest, /) -> bool:
        return self._files.size(self._name(digest)) is not None

    def open(self, digest: Digest, size: int | None = None, /) -> BinaryIO:
        name = self._name(digest)
        if self._files.size(name) is None:
            raise AerogelError(f"archive has no blob `{digest}`", code="archive.missing")
        reader = VerifiedReader(
            self._files.open(name), digest, size, what=f"blob `{digest}` in the archive", code="store.mismatch"
        )
        return cast("BinaryIO", reader)  # a forward reader

    def read(self, digest: Digest, size: int | None = None, /) -> bytes:
        if (self._files.size(self._name(digest)) or 0) > MAX_DOCUMENT:
            raise AerogelError(f"blob `{digest}` in the archive is too large for a document", code="archive.too-large")
        with self.open(digest, size) as stream:
            return stream.read()


def _load_oci(files: _Files, store: Store) -> list[Loaded]:
    version = decode(_read_document(files, "oci-layout"), _LayoutVersion, what="`oci-layout`").version
    if version != "1.0.0":
        raise AerogelError(f"OCI layout has version `{version}`, known is `1.0.0`", code="archive.version")
    index = decode(_read_document(files, "index.json"), Index, what="`index.json`")
    blobs = _FileBlobs(files)
    found: dict[Digest, Loaded] = {}
    for entry in index.manifests:
        references, label = _names_of(entry)
        for number, descriptor in enumerate(_present(entry, blobs)):
            known = found.get(descriptor.digest, Loaded(descriptor))
            more = references if number == 0 else ()
            found[descriptor.digest] = Loaded(
                known.descriptor, tuple(dict.fromkeys(known.references + more)), known.label or label
            )
    for loaded in found.values():
        for part in walk(loaded.descriptor, blobs):
            if part.urls and not blobs.has(part.digest):
                continue
            if store.blobs.size(part.digest) != part.size:
                with blobs.open(part.digest, part.size) as stream:
                    store.blobs.copy_in(stream, part.digest, part.size)
        for image in images(loaded.descriptor, store.blobs):
            record_layers(image, store)
    return [loaded for loaded in found.values() if not _record_referrer(loaded.descriptor, store)]


def _record_referrer(descriptor: Descriptor, store: Store) -> bool:
    """Keeps an artifact with the image that it tells of, if it is one; it is no image itself."""
    read, _ = document(descriptor, store.blobs)
    if not isinstance(read, Manifest) or read.subject is None or read.config.media_type in CONFIG_TYPES:
        return False
    listed = msgspec.structs.replace(
        descriptor, artifact_type=read.artifact_type or read.config.media_type, annotations=read.annotations
    )
    store.referrers.add(read.subject.digest, listed)
    return True


class _LayoutVersion(msgspec.Struct):
    version: str = msgspec.field(default="", name="imageLayoutVersion")
    unknown: str = msgspec.field(default="", name="(unknown)")


def _names_of(entry: Descriptor) -> tuple[tuple[Reference, ...], str]:
    """The references of an entry: containerd's whole name, else an OCI name that is more than a tag."""
    whole = entry.annotations.get(IMAGE_NAME, "")
    label = entry.annotations.get(REF_NAME, "")
    for name in (whole, label if "/" in label or ":" in label else ""):
        if name:
            with suppress(AerogelError):
                return (Reference.parse(name),), label
    return (), label


def _present(entry: Descriptor, blobs: _FileBlobs) -> list[Descriptor]:
    """The descriptor itself, or of an index that has not all of its manifests here (Docker 25 and later save one
    platform that way) those that are, the one for this machine first.
    """
    plain = Descriptor(media_type=entry.media_type, digest=entry.digest, size=entry.size)
    if entry.media_type not in INDEX_TYPES or not blobs.has(entry.digest):
        return [plain]
    index = decode(blobs.read(entry.digest, entry.size), Index, what=f"index `{entry.digest}`")
    here = [each for each in index.manifests if blobs.has(each.digest)]
    if len(here) == len(index.manifests):
        return [plain]
    chosen = Platform.host().choose([each.platform for each in here])
    if chosen is not None:
        here.insert(0, here.pop(chosen))
    return here


# Docker


class _Listed(msgspec.Struct):
    """One image in `manifest.json`."""

    config: str = msgspec.field(name="Config")
    layers: tuple[str, ...] = msgspec.field(default=(), name="Layers")
    tags: tuple[str, ...] = msgspec.field(default=(), name="RepoTags")
    unknown: str = msgspec.field(default="", name="(unknown)")


def _load_docker(files: _Files, store: Store) -> list[Loaded]:
    try:
        listing = parse_json(_read_document(files, "manifest.json"))
    except ValueError as error:
        raise AerogelError(f"`manifest.json` is not JSON: {error}", code="oci.malformed") from error
    if not isinstance(listing, list):
        raise AerogelError("`manifest.json` is malformed: expected `array`", code="oci.malformed")
    return [_load_listed(files, store, item) for item in listing]


def _load_listed(files: _Files, store: Store, item: object) -> Loaded:
    from aerogel.oci.types import from_dict

    listed = from_dict(item, _Listed, what="`manifest.json`")
    config_bytes = _read_document(files, listed.config)
    config = decode(config_bytes, ImageConfig, what=f"`{shown(listed.config.encode())}`")
    if len(config.rootfs.diff_ids) != len(listed.layers):
        raise AerogelError(
            f"`{listed.config}` names {len(config.rootfs.diff_ids)} layers, `manifest.json` has {len(listed.layers)}",
            code="oci.layers",
        )
    layers = [
        _take_layer(files, store, name, diff_id)
        for name, diff_id in zip(listed.layers, config.rootfs.diff_ids, strict=True)
    ]
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        config=store.blobs.put(config_bytes, OCI_CONFIG),
        layers=tuple(layers),
    )
    data = encode(manifest)
    descriptor = store.blobs.put(data, OCI_MANIFEST)
    record_layers(Image(descriptor, manifest, config, data, config_bytes, store.blobs), store)
    return Loaded(descriptor, tuple(dict.fromkeys(map(Reference.parse, listed.tags))))


def _take_layer(files: _Files, store: Store, name: str, diff_id: Digest) -> Descriptor:
    """A layer as it lies in the archive, compressed or not; what it holds is checked by `record_layers`."""
    size = files.size(name)
    if size is None:
        raise AerogelError(f"archive has no layer `{shown(name.encode())}`", code="archive.missing")
    with files.open(name) as stream:
        head = stream.read(512)
        media_type = _TYPES.get(sniff(head) or "", OCI_LAYER)
        if media_type == OCI_LAYER and store.blobs.size(diff_id) == size:
            return Descriptor(media_type=media_type, digest=diff_id, size=size)
        with store.blobs.write() as writer:
            while head:
                writer.write(head)
                head = stream.read(CHUNK)
            if writer.size != size:
                raise AerogelError(f"layer `{name}` in the archive is cut off", code="archive.truncated")
            digest = writer.commit(diff_id if media_type == OCI_LAYER else None)
    return Descriptor(media_type=media_type, digest=digest, size=size)


# Layers


def record_layers(image: Image, store: Store) -> None:
    """Makes the layers of an image, whose blobs are in the store, known by diff id, with their indexes.

    Reads each layer that is not known yet once and raises `oci.diff-id` when it is not what the config says.
    """
    for number, layer in enumerate(image.layers()):
        record_layer(layer, number, store)


def record_present(image: Image, store: Store) -> None:
    """The same for those layers whose blobs are in the store; what stayed in a registry stays there."""
    for number, layer in enumerate(image.layers()):
        if store.blobs.has(layer.descriptor.digest):
            record_layer(layer, number, store)


def record_layer(layer: Layer, number: int, store: Store, tee: Callable[[bytes], object] | None = None) -> None:
    """The same for one layer, the `number`th of its image; different ones may be recorded at the same time.

    `tee` gets every byte of the layer's tar, unless nothing needs to be read.
    """
    if layer.descriptor.urls and not store.blobs.has(layer.descriptor.digest):
        return
    if layer.descriptor.media_type not in LAYER_TYPES:
        return
    known = store.layers.record(layer.diff_id)
    same = known is not None and any(blob.digest == layer.descriptor.digest for blob in known.blobs.values())
    if known is None or not known.index or not same:
        _record_layer(layer, number, store, tee)


def _record_layer(layer: Layer, number: int, store: Store, tee: Callable[[bytes], object] | None) -> None:
    state = new_hash(layer.diff_id)
    size = 0

    def take(data: bytes) -> None:
        nonlocal size
        state.update(data)
        size += len(data)
        if tee is not None:
            tee(data)

    descriptor = layer.descriptor
    with store.blobs.open(descriptor.digest, descriptor.size) as stream:
        index = build_index(open_uncompressed(stream, descriptor.media_type), take)
    found = of_hash(state)
    if found != layer.diff_id:
        raise AerogelError(
            f"layer {number} (`{descriptor.digest}`) is not what the config of its image says",
            code="oci.diff-id",
            detail=f"expected {layer.diff_id}\nfound    {found}",
        )
    # A plain tar is read at any offset; how others were made is not known.
    codec = f"foreign-{short(descriptor.digest)}"
    store.layers.save(layer.diff_id, size=size, blobs={codec: descriptor}, index=index)


# Where files are


class _DirectoryFiles:
    """Files under a directory; names cannot lead out of it, links that the user made may."""

    def __init__(self, root: str) -> None:
        self._root = root

    def _path(self, name: str) -> str:
        clean = posixpath.normpath(name)
        if clean.startswith(("/", "../")) or clean == ".." or "\0" in clean:
            raise AerogelError(f"`{shown(name.encode())}` leads out of the directory", code="archive.path")
        return f"{self._root}/{clean}"

    def size(self, name: str) -> int | None:
        try:
            state = os.stat(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise disk_error(self._root, error) from error
        return state.st_size if stat.S_ISREG(state.st_mode) else None

    def open(self, name: str) -> BinaryIO:
        with disk_errors(self._root):
            return open(self._path(name), "rb", buffering=0)


class _ArchiveFiles:
    """Files of a tar archive by where they lie in it; of two with one name the last counts, as when unpacked."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            self._scan()
        except AerogelError as error:
            if error.code in ("tar.header", "tar.truncated") and not self._places:
                raise AerogelError(
                    "this is no tar archive",
                    code="archive.no-image",
                    hints=["valid are OCI archives and what `docker save` writes, compressed or not"],
                ) from error
            raise

    def _scan(self) -> None:
        self._file.seek(0)
        for number, (entry, offset) in enumerate(scan(self._file)):
            if number >= _MAX_FILES:
                raise AerogelError(f"archive has more than {_MAX_FILES} files", code="archive.too-many")
            name = entry.path.decode("utf-8", "surrogateescape")
            self._places.pop(name, None)
            self._links.pop(name, None)
            if entry.kind == REG:
                self._places[name] = (offset, entry.size)
            elif entry.kind == SYM:
                # Docker before 25 saves a layer that occurs twice as a link to `../<id>/layer.tar`.
                target = entry.link.decode("utf-8", "surrogateescape")
                self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            elif entry.kind == LNK:
                self._links[name] = entry.link.decode("utf-8", "surrogateescape")
            elif entry.kind != DIR:
                raise AerogelError(f"archive has a device or fifo `{shown(entry.path)}`", code="archive.kind")

    def _place(self, name: str) -> tuple[int, int] | None:
        name = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            if name not in self._links:
                break
            name = self._links[name]
        return self._places.get(name)

    def size(self, name: str) -> int | None:
        place = self._place(name)
        return None if place is None else place[1]

    def open(self, name: str) -> BinaryIO:
        place = self._place(name)
        if place is None:
            raise AerogelError(f"archive has no file `{shown(name.encode())}`", code="archive.missing")
        return cast("BinaryIO", _Slice(self._file, *place))  # a forward reader


class _Slice:
    """A part of a file, read forward; several may be open, the file's position is not used in between."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._at = offset
        self._left = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._left = 0

    def read(self, size: int = -1, /) -> bytes:
        want = self._left if size < 0 else min(size, self._left)
        self._file.seek(self._at)
        data = self._file.read(want)
        self._at += len(data)
        self._left -= len(data)
        return data


class _Spool:
    """The archive as a plain file that can be read at any place: itself, or a copy in scratch space."""

    def __init__(self, stream: BinaryIO, store: Store) -> None:
        self._stream = stream
        self._store = store
        self._copy: BinaryIO | None = None

    def __enter__(self) -> BinaryIO:
        head = self._stream.read(512)
        family = sniff(head)
        seekable = False
        with suppress(OSError, AttributeError):
            seekable = self._stream.seekable()
        if seekable and family in ("tar", None):
            return self._stream
        source: Any = _Prefixed(head, self._stream)
        if family not in ("tar", None):
            source = open_uncompressed(source, family or "tar")
        fd, path = self._store.data_scratch.file()
        self._copy = os.fdopen(fd, "w+b", buffering=0)
        # The name is not needed: what nobody holds open is gone, however this process ends.
        os.unlink(path)
        try:
            with disk_errors(self._store.data):
                while data := source.read(CHUNK):
                    view = memoryview(data)
                    while view:
                        view = view[os.write(fd, view) :]
        except BaseException:
            self._copy.close()
            raise
        return cast("BinaryIO", self._copy)

    def __exit__(self, *exc: object) -> None:
        if self._copy is not None:
            self._copy.close()


class _Prefixed(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._stream.read(size)
