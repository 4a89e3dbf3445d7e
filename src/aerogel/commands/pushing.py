"""An image of the store on its way to a registry: blobs in parallel, then manifests, the tag last.

What another repository of the same registry is known to have, because the store has an image of that name, is
mounted from there. Used by `push` and `build --push`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from aerogel.commands.registries import Meter, in_parallel
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.events import Progress, step
from aerogel.oci.digest import Digest
from aerogel.oci.image import walk
from aerogel.oci.reference import Reference
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from aerogel.registry.client import Registries
from aerogel.registry.push import MOUNTED, PRESENT, UPLOADED, Uploads
from aerogel.store.store import Store

__all__ = ["push_image"]


def push_image(
    world: World,
    registries: Registries,
    descriptor: Descriptor,
    reference: Reference,
    *,
    number: int = 1,
    with_referrers: bool = True,
) -> int:
    """Gives the registry an image under a tag; returns how many bytes of blobs had to be sent.

    Raises `registry.*`, `net.*`, `store.missing`, `oci.*`.
    """
    store = world.store
    repository = registries.repository(reference)
    uploads = Uploads(repository)
    tag = reference.tag or str(descriptor.digest)
    with step(world.sink, number, f"push {reference.familiar()}") as running:
        if uploads.is_there(tag, descriptor.digest):
            running.note = "it is there"
            return _push_referrers(descriptor, store, uploads) if with_referrers else 0
        parts = walk(descriptor, store.blobs)
        documents = [part for part in parts if _is_document(part)]
        blobs = [
            part for part in parts if not _is_document(part) and not (part.urls and not store.blobs.has(part.digest))
        ]
        meter = Meter(world.sink, number, repository.name, sum(blob.size for blob in blobs))
        origins = _Origins(store, reference)
        outcomes: dict[str, list[int]] = {PRESENT: [], MOUNTED: [], UPLOADED: []}

        def send(blob: Descriptor) -> None:
            outcome = uploads.blob(
                blob,
                _opener(store, blob),
                mount_from=origins.find,
                on_bytes=meter.of(blob),
            )
            outcomes[outcome].append(blob.size)

        in_parallel((partial(send, blob) for blob in blobs), meter)
        for document in documents:
            data = store.blobs.read(document.digest, document.size)
            is_root = document.digest == descriptor.digest
            uploads.manifest(data, document, tag if is_root else document.digest)
        running.note = ", ".join(f"{len(sizes)} {outcome}" for outcome, sizes in outcomes.items() if sizes)
        world.sink.emit(Progress(number, repository.name, meter.done, meter.done))
        told = _push_referrers(descriptor, store, uploads) if with_referrers else 0
        return sum(outcomes[UPLOADED]) + told


def _push_referrers(descriptor: Descriptor, store: Store, uploads: Uploads) -> int:
    """What is told of the image, and of each one of an index, after it; returns the bytes of blobs that were sent."""
    sent = 0
    for subject in walk(descriptor, store.blobs):
        for artifact in store.referrers.of(subject.digest) if _is_document(subject) else ():
            if uploads.is_there(artifact.digest, artifact.digest):
                continue
            for part in walk(artifact, store.blobs)[:-1]:
                outcome = uploads.blob(part, partial(store.blobs.open, part.digest, part.size))
                sent += part.size if outcome == UPLOADED else 0
            data = store.blobs.read(artifact.digest, artifact.size)
            uploads.referrer(data, artifact, subject.digest)
    return sent


def _is_document(part: Descriptor) -> bool:
    return part.media_type in INDEX_TYPES or part.media_type in MANIFEST_TYPES


def _opener(store: Store, blob: Descriptor) -> Callable[[], BinaryIO]:
    """Opens a blob as it lies in the store: the registry compares it with its digest. If it is opened once more,
    something was wrong with it or on the way, and then it is checked here, for the words that say what.
    """
    opened = 0

    def open_blob() -> BinaryIO:
        nonlocal opened
        opened += 1
        if opened == 1:
            return store.blobs.open_unchecked(blob.digest, blob.size)
        return store.blobs.open(blob.digest, blob.size)

    return open_blob


class _Origins:
    """Which other repository of a registry has a blob, as far as the names in the store tell; looked up once."""

    def __init__(self, store: Store, target: Reference) -> None:
        self._store = store
        self._target = target
        self._lock = threading.Lock()
        self._known: dict[Digest, str] | None = None

    def find(self, digest: Digest) -> str:
        with self._lock:
            if self._known is None:
                self._known = self._look()
            return self._known.get(digest, "")

    def _look(self) -> dict[Digest, str]:
        found: dict[Digest, str] = {}
        for record in self._store.images.list():
            for name in record.references:
                if name.registry != self._target.registry or name.repository == self._target.repository:
                    continue
                try:
                    parts = walk(record.descriptor, self._store.blobs)
                except AerogelError:
                    continue  # an image that lost a part is no help, and no fault here
                for part in parts:
                    found.setdefault(part.digest, name.repository)
        return found
