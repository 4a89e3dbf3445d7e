"""Where caches are kept: a tag of a registry, or a folder that is an OCI layout. One manifest each.

The manifest's config is the list of results (`CacheRecords`), its layers are those that the results name, each with
its diff id as an annotation. Everything that is read is checked against the digest that names it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, VerifiedReader, digest_of, hex_of, short
from aerogel.oci.image import MemoryBlobs
from aerogel.oci.reference import Reference
from aerogel.oci.types import EMPTY_JSON, OCI_EMPTY, OCI_MANIFEST, REF_NAME, Descriptor, Index, Manifest, decode, encode
from aerogel.registry.client import MAX_DOCUMENT, Registries
from aerogel.registry.push import Uploads
from aerogel.registry.referrers import list_referrers
from aerogel.store.disk import disk_errors
from aerogel.store.layout import LAYOUT, Root, check_layout, write_oci_layout
from aerogel.store.store import Store

__all__ = [
    "CACHE_TYPE",
    "LAYER",
    "RECORDS_TYPE",
    "SIZE",
    "FolderCache",
    "ImageCache",
    "Place",
    "RegistryCache",
    "Target",
    "check_by_writing",
    "parse_manifest",
]

CACHE_TYPE = "application/vnd.aerogel.cache.v1"
"""Artifact type of a cache."""
RECORDS_TYPE = "application/vnd.aerogel.cache.records.v1+json"
"""Media type of its config."""
LAYER = "io.aerogel.layer"
"""Annotation of a blob of a cache: the diff id of the layer in it."""
SIZE = "io.aerogel.size"
"""Annotation of a blob of a cache: the bytes of the uncompressed tar."""

_BUFFER = 1 << 20
_LEFT_S = 7 * 86400.0


class Target(Protocol):
    """Where a cache is written. `str()` names it in messages; those of one `home` share their blobs."""

    @property
    def home(self) -> str: ...

    @property
    def subject(self) -> Descriptor | None:
        """The image that the cache belongs to."""
        ...

    def check(self) -> None:
        """Raises now what would keep `finish` from writing, as far as it can be told."""
        ...

    def place(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Sees to it that a blob is there."""
        ...

    def finish(self, manifest: Manifest, records: bytes) -> None:
        """Puts the manifest under its name; its layers are there."""
        ...


class Place(Target, Protocol):
    """A cache that can be read too."""

    def manifest(self) -> bytes:
        """Raises `registry.*`, `net.*`, `cache.missing`."""
        ...

    def read(self, blob: Descriptor) -> bytes:
        """A small blob, checked."""
        ...

    def fetch(self, blob: Descriptor, file: BinaryIO, on_bytes: Callable[[int], object]) -> None:
        """Writes a blob, checked, into an empty file."""
        ...


class RegistryCache:
    """A tag of a registry."""

    def __init__(self, registries: Registries, reference: Reference) -> None:
        self._repository = registries.repository(reference)
        self._reference = reference

    def __str__(self) -> str:
        return self._reference.familiar()

    @property
    def home(self) -> str:
        return str(self._repository)

    @property
    def subject(self) -> None:
        return None

    def manifest(self) -> bytes:
        """The cache of this name, or that of the image of this name (`type=inline`)."""
        found = self._repository.document(self._reference)
        if _kind(found.data) == CACHE_TYPE:
            return found.data
        for artifact in list_referrers(self._repository, found.descriptor.digest):
            # What a list says of the kind of an artifact is not always so.
            name = Reference(self._reference.registry, self._reference.repository, None, artifact.digest)
            data = self._repository.document(name).data
            if _kind(data) == CACHE_TYPE:
                return data
        return found.data

    def read(self, blob: Descriptor) -> bytes:
        return self._repository.blobs().read(blob.digest, blob.size)

    def fetch(self, blob: Descriptor, file: BinaryIO, on_bytes: Callable[[int], object]) -> None:
        self._repository.fetch(blob.digest, blob.size, file, on_bytes=on_bytes)

    def check(self) -> None:
        check_by_writing(self)

    def place(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        Uploads(self._repository).blob(blob, open_blob)

    def finish(self, manifest: Manifest, records: bytes) -> None:
        uploads = Uploads(self._repository)
        uploads.blob(manifest.config, lambda: cast("BinaryIO", _reader(records, manifest.config)))
        data = encode(manifest)
        descriptor = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(data), size=len(data))
        uploads.manifest(data, descriptor, self._reference.tag or "latest")


class FolderCache:
    """A tag in an OCI layout. What it had under the same tag and nobody else needs is removed when a new one is there."""

    def __init__(self, folder: str, tag: str, store: Store, digest: str = "") -> None:
        self._folder = folder
        self._tag = tag
        self._store = store
        self._digest = digest

    def __str__(self) -> str:
        return self._folder

    @property
    def home(self) -> str:
        """None that lasts: what an old cache of a folder had goes when a new one is there."""
        return ""

    @property
    def subject(self) -> None:
        return None

    def _path(self, digest: Digest) -> str:
        return f"{self._folder}/blobs/{digest.replace(':', '/')}"

    def manifest(self) -> bytes:
        path = f"{self._folder}/index.json"
        if not os.path.exists(path):
            raise AerogelError(f"`{self._folder}` has no cache", code="cache.missing")
        with disk_errors(self._folder):
            index = decode(_small(path), Index, what=f"`{path}`")
        for each in index.manifests:
            named = each.annotations.get(REF_NAME) == self._tag
            if each.digest == self._digest if self._digest else named and each.artifact_type == CACHE_TYPE:
                return self.read(each)
        what = self._digest or self._tag
        raise AerogelError(f"`{self._folder}` has no cache `{what}`", code="cache.missing")

    def read(self, blob: Descriptor) -> bytes:
        if blob.size > MAX_DOCUMENT:
            raise AerogelError(
                f"blob `{blob.digest}` has {blob.size} bytes, too many for a document", code="cache.malformed"
            )
        with self._open(blob) as stream:
            return stream.read()

    def _open(self, blob: Descriptor) -> BinaryIO:
        try:
            file = Path(self._path(blob.digest)).open("rb")  # noqa: SIM115 - the caller closes it
        except FileNotFoundError:
            raise AerogelError(f"`{self._folder}` has no blob `{blob.digest}`", code="cache.missing") from None
        reader = VerifiedReader(file, blob.digest, blob.size, what=f"blob `{blob.digest}` of `{self._folder}`")
        return cast("BinaryIO", reader)

    def fetch(self, blob: Descriptor, file: BinaryIO, on_bytes: Callable[[int], object]) -> None:
        with disk_errors(self._folder), self._open(blob) as stream:
            while data := stream.read(_BUFFER):
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                on_bytes(len(data))

    def check(self) -> None:
        check_layout(self._folder)

    def place(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """A layer goes there as soon as it is made; what the folder has is not written again."""
        try:
            if os.stat(self._path(blob.digest)).st_size == blob.size:
                os.utime(self._path(blob.digest))  # nobody sweeps it away now
                return
        except FileNotFoundError:
            pass
        except PermissionError:
            return  # another user's, and there
        with disk_errors(self._folder):
            _put(Path(self._folder, "oci-layout"), lambda: cast("BinaryIO", io.BytesIO(LAYOUT)))
            _put(Path(self._path(blob.digest)), open_blob)

    def finish(self, manifest: Manifest, records: bytes) -> None:
        blobs = MemoryBlobs(self._store.blobs)
        blobs.put(records)
        placed = blobs.put(encode(manifest), OCI_MANIFEST)
        old = self._parts()
        root = Root(
            Descriptor(
                media_type=OCI_MANIFEST,
                digest=placed.digest,
                size=placed.size,
                artifact_type=CACHE_TYPE,
            ),
            annotations={REF_NAME: self._tag},
        )
        write_oci_layout(self._folder, [root], blobs)
        with disk_errors(self._folder):
            kept = self._parts()
            for digest in old - kept:
                Path(self._path(digest)).unlink(missing_ok=True)
            self._sweep(kept)

    def _sweep(self, kept: set[Digest]) -> None:
        """Removes what builds that were killed have left; younger files may be of one that still runs."""
        if not kept:
            return  # there is something else in the folder
        names = {hex_of(digest) for digest in kept}
        with os.scandir(f"{self._folder}/blobs/sha256") as entries:
            left = [entry.path for entry in entries if entry.name not in names]
        for path in left:
            with suppress(FileNotFoundError):  # others sweep too
                if os.lstat(path).st_mtime < time.time() - _LEFT_S:
                    os.unlink(path)

    def _parts(self) -> set[Digest]:
        """What the caches of the folder are made of; nothing when there is something else in the folder."""
        try:
            index = decode(_small(f"{self._folder}/index.json"), Index)
        except FileNotFoundError:
            return set()
        found: set[Digest] = set()
        for each in index.manifests:
            if each.artifact_type != CACHE_TYPE:
                return set()
            try:
                manifest = decode(self.read(each), Manifest)
            except AerogelError:
                return set()  # damaged: what it had is not known, and stays
            found |= {each.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}
        return found


class ImageCache:
    """What refers to an image of the store, and goes with it wherever it is pushed (`type=inline`). Read as that of a registry."""

    home = ""

    def __init__(self, subject: Descriptor, store: Store) -> None:
        self.subject = Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size)
        self._store = store

    def __str__(self) -> str:
        return f"of {short(self.subject.digest)}"

    def check(self) -> None:
        """It is in the store."""

    def place(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Blobs of the store are there."""

    def finish(self, manifest: Manifest, records: bytes) -> None:
        blobs = self._store.blobs
        blobs.put(records)
        placed = blobs.put(encode(manifest), OCI_MANIFEST)
        listed = Descriptor(media_type=OCI_MANIFEST, digest=placed.digest, size=placed.size, artifact_type=CACHE_TYPE)
        self._store.referrers.add(self.subject.digest, listed, lambda old: old.artifact_type == CACHE_TYPE)


def _put(target: Path, open_data: Callable[[], BinaryIO]) -> None:
    """Makes a file whole or not at all, whoever else makes the same one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fd, made = tempfile.mkstemp(prefix=".", dir=target.parent)
    try:
        with os.fdopen(fd, "wb") as file, open_data() as stream:
            shutil.copyfileobj(stream, file, _BUFFER)
        os.chmod(made, 0o644)
        os.rename(made, target)
    except BaseException:
        os.unlink(made)
        raise


def _kind(data: bytes) -> str:
    try:
        return str(json.loads(data).get("artifactType") or "")
    except (ValueError, AttributeError, RecursionError):
        return ""


def _small(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_DOCUMENT)


def _reader(data: bytes, blob: Descriptor) -> VerifiedReader:
    return VerifiedReader(io.BytesIO(data), blob.digest, blob.size)


def check_by_writing(place: Target) -> None:
    """Sees whether a place takes what is written, with the blob of two bytes that many artifacts have."""
    empty = Descriptor(media_type=OCI_EMPTY, digest=digest_of(EMPTY_JSON), size=len(EMPTY_JSON))
    place.place(empty, lambda: io.BytesIO(EMPTY_JSON))


def parse_manifest(data: bytes, origin: str) -> Manifest:
    """Raises `cache.malformed` for what is no cache of aerogel."""
    manifest = None
    if _kind(data) == CACHE_TYPE:
        manifest = decode(data, Manifest, what=f"the cache `{origin}`")
    if manifest is None or manifest.config.media_type != RECORDS_TYPE:
        raise AerogelError(f"`{origin}` is no cache of aerogel", code="cache.malformed")
    return manifest
