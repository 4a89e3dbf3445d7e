"""Whether an image is what it says: every digest, size and diff id made anew, every count and type compared.

The oracle of the tests and the check before an image is handed out. It shares no code with what writes layers:
inflating is the standard library's and zstandard's own. Collects all problems and stops at none.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, is_digest, new_hash, of_hash
from aerogel.oci.image import MAX_DEPTH, Blobs, Image, document
from aerogel.oci.platform import Platform
from aerogel.oci.types import (
    CONFIG_TYPES,
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    LAYER_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
)

__all__ = ["Seen", "validate", "validate_descriptor"]

_CHUNK = 1 << 18
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_PORT = re.compile(r"\d{1,5}(/(tcp|udp|sctp))?")


Seen = set[tuple[Digest, Digest | None]]
"""Layers in which nothing was wrong: digest of the blob, diff id."""


def validate(image: Image, seen: Seen | None = None) -> list[str]:
    """All that is wrong with an image, in words; empty when nothing is. Reads every layer once.

    Layers in `seen` are not read again; those that are right join them.
    """
    problems = _document_problems(image.manifest_bytes, image.descriptor, "manifest")
    problems += _manifest_problems(image.manifest, image.descriptor)
    problems += _document_problems(image.config_bytes, image.manifest.config, "config")
    problems += _config_problems(image.config, image.descriptor.platform)
    diff_ids = image.config.rootfs.diff_ids
    if len(diff_ids) != len(image.manifest.layers):
        problems.append(f"manifest has {len(image.manifest.layers)} layers, config has {len(diff_ids)} diff ids")
    for number, layer in enumerate(image.manifest.layers):
        diff_id = diff_ids[number] if number < len(diff_ids) else None
        if seen is not None and (layer.digest, diff_id) in seen and image.blobs.has(layer.digest):
            continue
        found = _layer_problems(image.blobs, layer, diff_id)
        if seen is not None and not found:
            seen.add((layer.digest, diff_id))
        problems += [f"layer {number}: {text}" for text in found]
    return problems


def validate_descriptor(descriptor: Descriptor, blobs: Blobs, seen: Seen | None = None) -> list[str]:
    """The same for an image or a whole index, artifacts in it included."""
    return _descriptor_problems(descriptor, blobs, seen, set(), 0)


def _descriptor_problems(
    descriptor: Descriptor, blobs: Blobs, seen: Seen | None, done: set[Digest], depth: int
) -> list[str]:
    if descriptor.digest in done:
        return []
    done.add(descriptor.digest)
    if depth == MAX_DEPTH:
        return [f"index is nested more than {MAX_DEPTH} deep"]
    try:
        found, data = document(descriptor, blobs)
    except AerogelError as error:
        return [_told(error)]
    if isinstance(found, Index):
        problems = _document_problems(data, descriptor, "index")
        if found.schema_version != 2:
            problems.append(f"index: schema version is {found.schema_version}, not 2")
        for number, inner in enumerate(found.manifests):
            problems += [
                f"manifest {number}: {text}" for text in _descriptor_problems(inner, blobs, seen, done, depth + 1)
            ]
        return problems
    if found.config.media_type not in CONFIG_TYPES:
        return _document_problems(data, descriptor, "manifest") + _artifact_problems(found, blobs)
    try:
        config_bytes = blobs.read(found.config.digest, found.config.size)
        config = decode(config_bytes, ImageConfig, what="config")
    except AerogelError as error:
        return [_told(error)]
    return validate(Image(descriptor, found, config, data, config_bytes, blobs), seen)


def _told(error: AerogelError) -> str:
    detail = error.detail.replace("\n", ", ")
    return f"{error.message}: {detail}" if detail else error.message


def _document_problems(data: bytes, descriptor: Descriptor, what: str) -> list[str]:
    problems = []
    if len(data) != descriptor.size:
        problems.append(f"{what}: size is {len(data)}, descriptor says {descriptor.size}")
    state = new_hash(descriptor.digest)
    state.update(data)
    if of_hash(state) != descriptor.digest:
        problems.append(f"{what}: digest is {of_hash(state)}, descriptor says {descriptor.digest}")
    return problems


def _manifest_problems(manifest: Manifest, descriptor: Descriptor) -> list[str]:
    problems = []
    if manifest.schema_version != 2:
        problems.append(f"manifest: schema version is {manifest.schema_version}, not 2")
    if descriptor.media_type not in MANIFEST_TYPES:
        problems.append(f"manifest: media type `{descriptor.media_type}` is not an image manifest's")
    if manifest.media_type and manifest.media_type != descriptor.media_type:
        problems.append(f"manifest: says it is `{manifest.media_type}`, descriptor says `{descriptor.media_type}`")
    if manifest.config.media_type not in CONFIG_TYPES:
        problems.append(f"config: media type `{manifest.config.media_type}` is not an image config's")
    elif (descriptor.media_type, manifest.config.media_type) in (
        (OCI_MANIFEST, DOCKER_CONFIG),
        (DOCKER_MANIFEST, OCI_CONFIG),
    ):
        problems.append("config: media type is of Docker and manifest's of OCI, or the other way round")
    problems += [f"layer {n}: size is 0" for n, layer in enumerate(manifest.layers) if not layer.size]
    return problems


def _config_problems(config: ImageConfig, platform: Platform | None) -> list[str]:
    problems = []
    if not config.os:
        problems.append("config: no `os`")
    if not config.architecture:
        problems.append("config: no `architecture`")
    if platform is not None and platform.normal() != config.platform.normal():
        mine = config.platform.normal()
        if (platform.os, platform.architecture, platform.normal().variant) != (
            mine.os,
            mine.architecture,
            mine.variant,
        ):
            problems.append(f"config: platform is `{mine}`, descriptor says `{platform}`")
    if config.rootfs.type != "layers":
        problems.append(f"config: rootfs type is `{config.rootfs.type}`, not `layers`")
    filled = sum(not entry.empty_layer for entry in config.history)
    if config.history and filled != len(config.rootfs.diff_ids):
        problems.append(
            f"config: history has {filled} entries with a layer, there are {len(config.rootfs.diff_ids)} layers"
        )
    for where, created in (("created", config.created), *(("history", entry.created) for entry in config.history)):
        if created and not _TIME.fullmatch(created):
            problems.append(f"config: {where}: `{created}` is not an RFC 3339 time")
    problems += [
        f"config: environment entry `{item}` is not `NAME=value`" for item in config.config.env if item.find("=") < 1
    ]
    problems += [
        f"config: exposed port `{port}` is not `port/protocol`"
        for port in config.config.exposed_ports
        if not _PORT.fullmatch(port)
    ]
    return problems


def _layer_problems(blobs: Blobs, layer: Descriptor, diff_id: Digest | None) -> list[str]:
    compression = LAYER_TYPES.get(layer.media_type)
    if compression is None:
        return [f"media type `{layer.media_type}` is not a layer's"]
    if not blobs.has(layer.digest):
        return [] if layer.urls else [f"blob `{layer.digest}` is missing"]
    problems = []
    plain = hashlib.sha256()
    try:
        with blobs.open(layer.digest, layer.size) as stream:
            source = _Counting(stream, layer.digest)
            try:
                for data in _inflated(source, compression):
                    plain.update(data)
            except (zlib.error, EOFError) as error:
                problems.append(f"is not {compression}: {error}")
            while source.read(_CHUNK):
                pass
    except AerogelError as error:
        return [*problems, _told(error)]
    if source.size != layer.size:
        problems.append(f"size is {source.size}, descriptor says {layer.size}")
    if of_hash(source.state) != layer.digest:
        problems.append(f"digest is {of_hash(source.state)}, descriptor says {layer.digest}")
    if not problems and diff_id is not None and of_hash(plain) != diff_id:
        problems.append(f"diff id is {of_hash(plain)}, config says {diff_id}")
    return problems


def _artifact_problems(manifest: Manifest, blobs: Blobs) -> list[str]:
    problems = []
    for part in (manifest.config, *manifest.layers):
        if not is_digest(part.digest) or not blobs.has(part.digest):
            problems.append(f"blob `{part.digest}` is missing")
            continue
        try:
            with blobs.open(part.digest, part.size) as stream:
                source = _Counting(stream, part.digest)
                while source.read(_CHUNK):
                    pass
        except AerogelError as error:
            problems.append(_told(error))
            continue
        if source.size != part.size or of_hash(source.state) != part.digest:
            problems.append(f"blob `{part.digest}` has other content")
    return problems


class _Counting:
    """Reads on and takes size and digest of what went by, trusting no reader below."""

    def __init__(self, stream: BinaryIO, like: Digest) -> None:
        self._stream = stream
        self.state = new_hash(like)
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self.state.update(data)
        self.size += len(data)
        return data


def _inflated(source: _Counting, compression: str) -> Iterator[bytes]:
    """The plain bytes in pieces of bounded size, whatever the input inflates to."""
    if compression == "gzip":
        yield from _gunzip(source)
    elif compression == "zstd":
        import zstandard

        try:
            with zstandard.ZstdDecompressor().stream_reader(
                source,  # type: ignore[arg-type]  # it only reads
                read_across_frames=True,
                closefd=False,
            ) as reader:
                while data := reader.read(_CHUNK):
                    yield data
        except zstandard.ZstdError as error:
            raise zlib.error(str(error)) from error
    else:
        while data := source.read(_CHUNK):
            yield data


def _gunzip(source: _Counting) -> Iterator[bytes]:
    """Every member of a gzip stream."""
    data = source.read(_CHUNK)
    if not data:
        raise EOFError("it is empty")
    while data:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            piece = member.decompress(data, _CHUNK)
            if piece:
                yield piece
            data = member.unconsumed_tail
            if not data and not member.eof:
                data = source.read(_CHUNK)
                if not data and not piece:
                    raise EOFError("it ends inside a member")
        data = member.unused_data or source.read(_CHUNK)
