"""An image as a view over blobs, wherever these are: read it, walk it, make it, copy it.

Places (store, registry, archive) implement `Blobs`; the functions here know none of them. Nothing is cached and
nothing is changed: a function that would change an image returns another one.
Spec: OCI image-spec v1.1 manifest.md, image-index.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Protocol

import msgspec

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, check, digest_of
from aerogel.oci.platform import Platform
from aerogel.oci.types import (
    CONFIG_TYPES,
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    DOCKER_TYPES,
    INDEX_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
    encode,
)

__all__ = [
    "MAX_DEPTH",
    "Blobs",
    "Image",
    "Layer",
    "MemoryBlobs",
    "WritableBlobs",
    "copy",
    "create",
    "create_index",
    "document",
    "images",
    "load",
    "walk",
]

MAX_DEPTH = 4
"""Index in index in index: deeper is refused."""


class Blobs(Protocol):
    """A place to read blobs from."""

    def has(self, digest: Digest, /) -> bool: ...

    def open(self, digest: Digest, size: int | None = None, /) -> BinaryIO:
        """A stream that raises at its end unless it held what the digest says; the caller closes it."""
        ...

    def read(self, digest: Digest, size: int | None = None, /) -> bytes:
        """The whole of a small blob, checked."""
        ...


class WritableBlobs(Blobs, Protocol):
    """A place that takes blobs too."""

    def put(self, data: bytes, media_type: str = "", /) -> Descriptor: ...

    def copy_in(self, stream: BinaryIO, digest: Digest, size: int | None = None, /) -> Digest: ...


class Layer(msgspec.Struct, frozen=True):
    """A layer of an image: the blob and the digest of the tar in it."""

    descriptor: Descriptor
    diff_id: Digest

    @property
    def compression(self) -> str:
        """`gzip`, `zstd`, or empty for a plain tar. Raises `oci.media-type` for what is no layer."""
        known = LAYER_TYPES.get(self.descriptor.media_type)
        if known is None:
            raise AerogelError(
                f"layer `{self.descriptor.digest}` has media type `{self.descriptor.media_type}`, which is no file system layer",
                code="oci.media-type",
            )
        return known


class Image(msgspec.Struct, frozen=True, eq=False):
    """One image of one platform. The documents as bytes are what the digests name; the values are read from them."""

    descriptor: Descriptor
    """Of the manifest."""
    manifest: Manifest
    config: ImageConfig
    manifest_bytes: bytes
    config_bytes: bytes
    blobs: Blobs

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest

    @property
    def id(self) -> Digest:
        """Docker's image id: the digest of the config."""
        return self.manifest.config.digest

    @property
    def size(self) -> int:
        """Bytes of all blobs, each once."""
        parts = (self.descriptor, self.manifest.config, *self.manifest.layers)
        return sum({part.digest: part.size for part in parts}.values())

    def layers(self) -> tuple[Layer, ...]:
        """The layers, lowest first. Raises `oci.layers` when config and manifest disagree on their number."""
        diff_ids = self.config.rootfs.diff_ids
        if len(diff_ids) != len(self.manifest.layers):
            raise AerogelError(
                f"image `{self.digest}` has {len(self.manifest.layers)} layers, its config names {len(diff_ids)}",
                code="oci.layers",
            )
        return tuple(map(Layer, self.manifest.layers, diff_ids))


def document(descriptor: Descriptor, blobs: Blobs) -> tuple[Manifest | Index, bytes]:
    """The manifest or index that a descriptor names, and its bytes.

    Raises `oci.malformed`, `oci.media-type` for what is neither or both at once (CVE-2021-41190), and what
    `blobs` raises.
    """
    data = blobs.read(descriptor.digest, descriptor.size)
    what = f"manifest `{descriptor.digest}`"
    head = decode(data, _Head, what=what)
    kind = descriptor.media_type or head.mediaType
    if head.schemaVersion == 1:
        raise AerogelError(
            f"{what} has schema version 1, which no tool makes since 2017",
            code="oci.media-type",
            hints=["push the image again with any current tool"],
        )
    if not kind:
        kind = OCI_INDEX if head.manifests is not None else OCI_MANIFEST
    if head.mediaType and head.mediaType != kind:
        raise AerogelError(f"{what} is `{head.mediaType}`, but was named as `{kind}`", code="oci.media-type")
    if head.manifests is not None and (head.layers is not None or head.config is not None):
        raise AerogelError(f"{what} is an index and an image at once", code="oci.media-type")
    if kind in INDEX_TYPES:
        return decode(data, Index, what=what), data
    if kind in MANIFEST_TYPES:
        return decode(data, Manifest, what=what), data
    raise AerogelError(f"{what} has media type `{kind}`, which is neither an image nor an index", code="oci.media-type")


class _Head(msgspec.Struct):
    """As much of a manifest or index as tells which it is."""

    schemaVersion: int = 0  # noqa: N815 - the spec's name
    mediaType: str = ""  # noqa: N815 - the spec's name
    manifests: object = None
    layers: object = None
    config: object = None
    unknown: str = msgspec.field(default="", name="(unknown)")


def load(descriptor: Descriptor, blobs: Blobs, platform: Platform | None = None) -> Image:
    """The image that a descriptor names; of an index the one for `platform` (this machine's without it).

    Raises `oci.platform-missing` with the platforms there are, `oci.not-an-image`, and as `document`.
    """
    for _ in range(MAX_DEPTH):
        found, data = document(descriptor, blobs)
        if isinstance(found, Manifest):
            return _image(descriptor, found, data, blobs)
        descriptor = _choose(found, descriptor, platform or Platform.host())
    raise AerogelError(f"index `{descriptor.digest}` is nested more than {MAX_DEPTH} deep", code="oci.malformed")


def _choose(index: Index, descriptor: Descriptor, platform: Platform) -> Descriptor:
    candidates = [each for each in index.manifests if not _is_attestation(each)]
    chosen = platform.choose([each.platform for each in candidates])
    if chosen is None and len(candidates) == 1 and candidates[0].platform is None:
        chosen = 0
    if chosen is None:
        there = ", ".join(f"`{each.platform}`" for each in candidates if each.platform is not None)
        raise AerogelError(
            f"index `{descriptor.digest}` has no image for `{platform}`",
            code="oci.platform-missing",
            hints=[f"it has {there}" if there else "it has no image with a platform"],
        )
    return candidates[chosen]


def _is_attestation(descriptor: Descriptor) -> bool:
    """BuildKit puts provenance and SBOM beside the images, for the platform `unknown/unknown`."""
    return descriptor.annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def _image(descriptor: Descriptor, manifest: Manifest, data: bytes, blobs: Blobs) -> Image:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise AerogelError(
            f"`{descriptor.digest}` is not an image: its config is `{manifest.config.media_type}`",
            code="oci.not-an-image",
        )
    config_bytes = blobs.read(manifest.config.digest, manifest.config.size)
    config = decode(config_bytes, ImageConfig, what=f"config `{manifest.config.digest}`")
    return Image(descriptor, manifest, config, data, config_bytes, blobs)


def images(descriptor: Descriptor, blobs: Blobs) -> tuple[Image, ...]:
    """All images that a descriptor stands for, attestations and other artifacts left out. Raises as `load`."""
    found = []
    for inner, data, read in _documents(descriptor, blobs):
        if isinstance(read, Manifest) and read.config.media_type in CONFIG_TYPES and not _is_attestation(inner):
            found.append(_image(inner, read, data, blobs))
    return tuple(found)


def _documents(
    descriptor: Descriptor, blobs: Blobs, seen: set[Digest] | None = None, depth: int = 0
) -> Iterator[tuple[Descriptor, bytes, Manifest | Index]]:
    """All manifests and indexes from a descriptor down, each once, inner ones first."""
    if depth >= MAX_DEPTH:
        raise AerogelError(f"index `{descriptor.digest}` is nested more than {MAX_DEPTH} deep", code="oci.malformed")
    seen = set() if seen is None else seen
    if descriptor.digest in seen:
        return
    seen.add(descriptor.digest)
    found, data = document(descriptor, blobs)
    if isinstance(found, Index):
        for inner in found.manifests:
            yield from _documents(inner, blobs, seen, depth + 1)
    yield descriptor, data, found


def walk(descriptor: Descriptor, blobs: Blobs) -> tuple[Descriptor, ...]:
    """Every blob that a descriptor needs, each once, before what refers to it; the descriptor itself is last.

    Raises as `document`.
    """
    found: dict[Digest, Descriptor] = {}
    for outer, _, read in _documents(descriptor, blobs):
        if isinstance(read, Manifest):
            for part in (read.config, *read.layers):
                found.setdefault(part.digest, part)
        found.setdefault(outer.digest, outer)
    return tuple(found.values())


def copy(descriptor: Descriptor, source: Blobs, target: WritableBlobs) -> int:
    """Copies a whole image or index; returns how many bytes had to move. The descriptor itself comes last."""
    moved = 0
    for part in walk(descriptor, source):
        if not target.has(part.digest):
            with source.open(part.digest, part.size) as stream:
                target.copy_in(stream, part.digest, part.size)
            moved += part.size
    return moved


def create(
    config: ImageConfig,
    layers: Sequence[Descriptor],
    blobs: WritableBlobs,
    *,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> Image:
    """Puts config and manifest of an image in `blobs`; the layers are there already, in the config's order.

    With `docker` all media types are Docker's schema 2 instead of OCI's, those of the layers too.
    """
    config_bytes = encode(config)
    config_descriptor = blobs.put(config_bytes, DOCKER_CONFIG if docker else OCI_CONFIG)
    plain = tuple(
        Descriptor(
            media_type=DOCKER_TYPES.get(each.media_type, each.media_type) if docker else each.media_type,
            digest=each.digest,
            size=each.size,
            annotations=each.annotations,
        )
        for each in layers
    )
    kind = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = Manifest(
        schema_version=2,
        media_type=kind,
        config=config_descriptor,
        layers=plain,
        annotations=dict(annotations or {}),
    )
    data = encode(manifest)
    descriptor = msgspec.structs.replace(blobs.put(data, kind), platform=config.platform.normal())
    return Image(descriptor, manifest, config, data, config_bytes, blobs)


def create_index(
    manifests: Sequence[Descriptor], blobs: WritableBlobs, *, annotations: Mapping[str, str] | None = None
) -> Descriptor:
    """Puts an OCI index of these manifests in `blobs`, in the given order."""
    index = Index(
        schema_version=2, media_type=OCI_INDEX, manifests=tuple(manifests), annotations=dict(annotations or {})
    )
    return blobs.put(encode(index), OCI_INDEX)


class MemoryBlobs:
    """Blobs in memory: for documents that are made on the way to somewhere, over another place if given."""

    def __init__(self, below: Blobs | None = None) -> None:
        self._held: dict[Digest, bytes] = {}
        self._below = below

    def has(self, digest: Digest, /) -> bool:
        return digest in self._held or (self._below is not None and self._below.has(digest))

    def open(self, digest: Digest, size: int | None = None, /) -> BinaryIO:
        """Raises `oci.missing`."""
        import io

        if digest not in self._held and self._below is not None:
            return self._below.open(digest, size)
        return io.BytesIO(self.read(digest, size))

    def read(self, digest: Digest, size: int | None = None, /) -> bytes:
        """Raises `oci.missing`, `oci.digest-mismatch`."""
        data = self._held.get(digest)
        if data is None:
            if self._below is not None:
                return self._below.read(digest, size)
            raise AerogelError(f"blob `{digest}` is not here", code="oci.missing")
        if size is not None and size != len(data):
            raise AerogelError(f"blob `{digest}` has {len(data)} bytes, not {size}", code="oci.digest-mismatch")
        return data

    def put(self, data: bytes, media_type: str = "", /) -> Descriptor:
        digest = digest_of(data)
        self._held[digest] = data
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def copy_in(self, stream: BinaryIO, digest: Digest, size: int | None = None, /) -> Digest:
        """Raises `oci.digest-mismatch`."""
        data = stream.read(-1 if size is None else size + 1)
        check(data, digest, what=f"blob `{digest}`")
        self._held[digest] = data
        return digest
