"""Writing images as files that other tools read: OCI layout directories, OCI archives, Docker archives.

The same images give the same bytes, wherever and whenever they are written: names sorted, no times, no owners, only
what the descriptors need. Reading is `store.load`.
Spec: OCI image-spec v1.1 image-layout.md; Docker image spec v1.2 "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, REG, Entry
from aerogel.files.tar import CHUNK, TarWriter
from aerogel.oci.digest import Digest, digest_of, hex_of
from aerogel.oci.image import Blobs, Image, MemoryBlobs, create, images, load, walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import (
    LAYER_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_LAYER,
    REF_NAME,
    Descriptor,
    Index,
    decode,
    encode,
)
from aerogel.store.disk import disk_errors, read_file

__all__ = [
    "IMAGE_NAME",
    "LAYOUT",
    "Root",
    "check_layout",
    "write_docker_archive",
    "write_oci_archive",
    "write_oci_layout",
]

IMAGE_NAME = "io.containerd.image.name"
"""Annotation with the whole reference, as BuildKit, containerd, Docker and Podman write and read it."""

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

Write = Callable[[bytes | memoryview], object]


class Root(msgspec.Struct, frozen=True):
    """An image or index to be written, and its names."""

    descriptor: Descriptor
    references: tuple[Reference, ...] = ()
    referrers: tuple[Descriptor, ...] = ()
    """Artifacts that have the image, or one of the index, as their subject; a layout lists them beside it."""
    annotations: dict[str, str] = {}
    """Of the descriptor in the layout's index."""


def write_oci_archive(write: Write, roots: Sequence[Root], blobs: Blobs) -> None:
    """Writes an OCI layout as a tar stream to `write`. Raises what `blobs` raises (`store.missing`, `store.corrupt`);
    then what was written is to be thrown away.
    """
    parts = _parts(roots, blobs)
    writer = TarWriter(write)
    _file(writer, b"oci-layout", LAYOUT)
    _file(writer, b"index.json", encode(_index(roots, blobs)))
    _blobs(writer, parts, blobs)
    writer.close()


def write_docker_archive(
    write: Write, roots: Sequence[Root], blobs: Blobs, *, platform: Platform | None = None
) -> None:
    """Writes what `docker load` and `podman load` take; it is an OCI archive as well. Raises as `write_oci_archive`,
    and `oci.platform-missing` for an index without an image for `platform` (this machine's without it).

    The format has room for one platform. Layers in zstd, which Docker cannot load before version 23, are written
    plain, which gives such an image another digest (not another id).
    """
    held = MemoryBlobs(blobs)
    plain = _PlainLayers(blobs)
    chosen: list[tuple[Image, tuple[Reference, ...]]] = []
    for root in roots:
        image = load(root.descriptor, blobs, platform)
        chosen.append((plain.convert(image, held), root.references))
    tagged = [Root(image.descriptor, references) for image, references in chosen]
    listing = [
        {
            "Config": _blob_name(image.id).decode(),
            "Layers": [_blob_name(layer.digest).decode() for layer in image.manifest.layers],
            "RepoTags": sorted({_tagged(reference).familiar() for reference in references}) or None,
        }
        for image, references in chosen
    ]
    parts = {part.digest: part for image, _ in chosen for part in _image_parts(image)}
    writer = TarWriter(write)
    _file(writer, b"oci-layout", LAYOUT)
    _file(writer, b"index.json", encode(_index(tagged, held)))
    _file(writer, b"manifest.json", json.dumps(listing, sort_keys=True, separators=(",", ":")).encode())
    _blobs(writer, [parts[digest] for digest in sorted(parts)], held, plain)
    writer.close()


def write_oci_layout(directory: str, roots: Sequence[Root], blobs: Blobs) -> None:
    """Writes an OCI layout directory, or adds to the one that is there: an entry of the same name is replaced.

    The index is put in place last, whole; blobs that are there with the right size stay. Raises `layout.not-one` for
    a directory that holds other things, `store.*`.
    """
    index = _merged(_index(roots, blobs), directory)
    parts = _parts(roots, blobs)
    with disk_errors(directory):
        os.makedirs(f"{directory}/blobs", exist_ok=True)
        for part in parts:
            algorithm, _, encoded = part.digest.partition(":")
            folder = f"{directory}/blobs/{algorithm}"
            os.makedirs(folder, exist_ok=True)
            if not (part.urls and not blobs.has(part.digest)):
                _copy_out(part, blobs, folder, encoded)
        _place(directory, "oci-layout", LAYOUT)
        _place(directory, "index.json", encode(index))


def check_layout(directory: str) -> None:
    """Raises `layout.not-one` for a folder with something else in it than a layout."""
    with disk_errors(directory):
        holds = os.path.isdir(directory) and os.listdir(directory)
    if holds and not os.path.exists(f"{directory}/oci-layout"):
        raise AerogelError(
            f"`{directory}` is not empty and no OCI layout",
            code="layout.not-one",
            hints=["name a directory that does not exist, or one made by an earlier export"],
        )


def _merged(index: Index, directory: str) -> Index:
    """The new entries after the old ones that keep their names."""
    check_layout(directory)
    data = read_file(f"{directory}/index.json")
    if data is None:
        return index
    old = decode(data, Index, what=f"`{directory}/index.json`")
    new = {_key(each) for each in index.manifests}
    kept = tuple(each for each in old.manifests if _key(each) not in new)
    return msgspec.structs.replace(old, manifests=kept + index.manifests)


def _key(descriptor: Descriptor) -> tuple[str, str]:
    """What an entry of an index is known by: its name, or its digest when it has none."""
    name = descriptor.annotations.get(IMAGE_NAME, "")
    label = descriptor.annotations.get(REF_NAME, "")
    return (name, label) if name or label else ("", descriptor.digest)


def _copy_out(part: Descriptor, blobs: Blobs, folder: str, name: str) -> None:
    try:
        if os.stat(f"{folder}/{name}").st_size == part.size:
            return
    except FileNotFoundError:
        pass
    temporary = f"{folder}/.{name}.{os.getpid()}"
    try:
        with blobs.open(part.digest, part.size) as stream, open(temporary, "wb", buffering=0) as file:
            while data := stream.read(CHUNK):
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        os.rename(temporary, f"{folder}/{name}")
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _place(directory: str, name: str, data: bytes) -> None:
    temporary = f"{directory}/.{name}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(data)
    os.rename(temporary, f"{directory}/{name}")


def _index(roots: Sequence[Root], blobs: Blobs) -> Index:
    manifests = []
    for root in roots:
        plain = Descriptor(
            media_type=root.descriptor.media_type,
            digest=root.descriptor.digest,
            size=root.descriptor.size,
            artifact_type=root.descriptor.artifact_type,
            platform=_platform(root.descriptor, blobs),
            annotations=root.annotations,
        )
        named = [
            msgspec.structs.replace(
                plain, annotations={**plain.annotations, IMAGE_NAME: str(tagged), REF_NAME: tagged.tag or ""}
            )
            for tagged in map(_tagged, sorted(root.references, key=str))
        ]
        manifests += named or [plain]
    artifacts = {each.digest: each for root in roots for each in root.referrers}
    manifests += artifacts.values()
    return Index(schema_version=2, media_type=OCI_INDEX, manifests=tuple(manifests))


def _tagged(reference: Reference) -> Reference:
    if reference.tag is None:
        raise AerogelError(f"`{reference.familiar()}` has no tag to be written under", code="store.name")
    return msgspec.structs.replace(reference, digest=None)


def _platform(descriptor: Descriptor, blobs: Blobs) -> Platform | None:
    """The platform that the config tells, however the descriptor came here; none for an index or an artifact."""
    if descriptor.media_type not in MANIFEST_TYPES:
        return None
    found = images(descriptor, blobs)
    return found[0].config.platform.normal() if len(found) == 1 else None


def _parts(roots: Sequence[Root], blobs: Blobs) -> list[Descriptor]:
    """Every blob that is written, each once, by digest; what lives elsewhere by its URLs is left out."""
    tops = [top for root in roots for top in (root.descriptor, *root.referrers)]
    parts = {part.digest: part for top in tops for part in walk(top, blobs)}
    return [parts[digest] for digest in sorted(parts) if not parts[digest].urls or blobs.has(digest)]


def _image_parts(image: Image) -> Iterator[Descriptor]:
    yield image.descriptor
    yield image.manifest.config
    yield from image.manifest.layers


def _blob_name(digest: Digest) -> bytes:
    return f"blobs/{digest.replace(':', '/')}".encode()


def _file(writer: TarWriter, name: bytes, data: bytes) -> None:
    writer.entry(Entry(name, REG, 0o644, size=len(data)))
    writer.content(data)
    writer.pad()


def _blobs(writer: TarWriter, parts: Sequence[Descriptor], blobs: Blobs, plain: _PlainLayers | None = None) -> None:
    writer.entry(Entry(b"blobs", DIR, 0o755))
    for algorithm in sorted({part.digest.partition(":")[0] for part in parts}):
        writer.entry(Entry(f"blobs/{algorithm}".encode(), DIR, 0o755))
    for part in parts:
        writer.entry(Entry(_blob_name(part.digest), REG, 0o644, size=part.size))
        stream: Any = plain.open(part.digest) if plain is not None else None
        if stream is None:
            stream = blobs.open(part.digest, part.size)
        with stream:
            while data := stream.read(CHUNK):
                writer.content(data)
        writer.pad()


class _PlainLayers:
    """Layers that are written uncompressed: the blob that a plain tar would be, made while it is read."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._compressed: dict[Digest, Descriptor] = {}

    def convert(self, image: Image, held: MemoryBlobs) -> Image:
        """The image with its zstd layers as plain ones; itself when it has none."""
        layers = list(image.layers())
        if all(LAYER_TYPES.get(layer.descriptor.media_type) != "zstd" for layer in layers):
            return image
        written = []
        for layer in layers:
            descriptor = layer.descriptor
            if layer.compression == "zstd":
                self._compressed[layer.diff_id] = descriptor
                descriptor = Descriptor(media_type=OCI_LAYER, digest=layer.diff_id, size=self._measure(layer.diff_id))
            written.append(descriptor)
        made = create(image.config, written, held, annotations=image.manifest.annotations)
        if digest_of(image.config_bytes) == made.id:
            return made
        # The id is the config's bytes, which need not be canonical: they stay as they are.
        config = msgspec.structs.replace(made.manifest.config, digest=image.id, size=len(image.config_bytes))
        manifest = msgspec.structs.replace(made.manifest, config=config)
        data = encode(manifest)
        return Image(held.put(data, made.descriptor.media_type), manifest, image.config, data, image.config_bytes, held)

    def _measure(self, diff_id: Digest) -> int:
        size = 0
        with self._open(diff_id) as stream:
            while data := stream.read(CHUNK):
                size += len(data)
        return size

    def open(self, digest: Digest) -> Any:
        return self._open(digest) if digest in self._compressed else None

    def _open(self, diff_id: Digest) -> Any:
        from aerogel.files.codec import open_uncompressed
        from aerogel.oci.digest import VerifiedReader

        source = self._compressed[diff_id]
        inner = self._blobs.open(source.digest, source.size)
        plain = _Closing(open_uncompressed(inner, source.media_type), inner)
        return VerifiedReader(plain, diff_id, what=f"layer `{hex_of(diff_id)}`")  # type: ignore[arg-type]  # reads and closes


class _Closing:
    """A decompressor that closes the blob below it."""

    def __init__(self, stream: Any, inner: Any) -> None:
        self.read = stream.read
        self.close = inner.close
