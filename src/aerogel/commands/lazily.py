"""Base images of registries without their layers: manifest and config come, a layer only when its bytes are asked for.

The store then has an image whose blobs are not all here, and knows where they are (`store.origins`). Whoever opens
such a blob gets it: `bring_blob` is what the store of a run calls.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import BinaryIO, cast

from aerogel.commands.policy import enforce
from aerogel.commands.registries import Meter, Pulled, keep_image, open_registries
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.events import step
from aerogel.oci.digest import Digest, short
from aerogel.oci.image import Image, load
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.registry.client import Registries
from aerogel.solve.offers import Offer, Offers
from aerogel.store.load import record_layer

__all__ = ["Bringer", "offer_layers", "pull_lazily"]


def pull_lazily(
    world: World, registries: Registries, reference: Reference, platform: Platform, offers: Offers, *, number: int
) -> Pulled:
    """Manifest and config of a base image, under its name in the store; its layers are offered.

    It may be for another platform: the rule `InvalidBaseImagePlatform` warns. Raises `registry.*`, `net.*`, `oci.*`,
    `store.*`.
    """
    store = world.store
    repository = registries.repository(reference)
    with step(world.sink, number, f"pull {reference.familiar()}") as running:
        source = repository.blobs()
        served = source.resolve(reference)
        remote = load(served, source, platform)
        enforce(world, repository, reference, served.digest, remote.digest)
        absent = [layer for layer in remote.layers() if not store.blobs.has(layer.descriptor.digest)]
        for layer in absent:
            if not layer.descriptor.urls:
                store.origins.note(layer.descriptor.digest, str(repository))
        image = keep_image(store, reference, remote, served, source)
        running.note = f"{len(absent)} layers stay there until they are needed" if absent else "all layers are here"
    offer_layers(image, world, offers)
    return Pulled(reference=reference, image=image, served=served, size=0)


def offer_layers(image: Image, world: World, offers: Offers) -> None:
    """Lets a run have the layers of an image of the store that it does not have, or has not unpacked yet."""
    store = world.store
    for number, layer in enumerate(image.layers()):
        blob = layer.descriptor
        bring = partial(record_layer, layer, number, store)
        through = partial(record_layer, layer, number, store) if not blob.urls else None
        offers.add(layer.diff_id, Offer(image.digest, blob, bring, is_part=True, bring_through=through))


class Bringer:
    """Brings missing blobs of one run. Threads may share it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._registries: Registries | None = None

    def _open(self) -> Registries:
        with self._lock:
            if self._registries is None:
                self._registries = open_registries(self._world)
            return self._registries

    def close(self) -> None:
        with self._lock:
            registries, self._registries = self._registries, None
        if registries is not None:
            registries.close()

    def __call__(self, digest: Digest, size: int | None) -> bool:
        """Whether the blob is here now. Raises `registry.*`, `net.*`, `store.*`."""
        store = self._world.store
        places = store.origins.of(digest)
        if not places:
            return False
        with store.once(f"blob-{digest}"):
            if store.blobs.has(digest):
                return True
            for number, place in enumerate(places, 1):
                try:
                    self._fetch(digest, size, place)
                except AerogelError:
                    if number == len(places):
                        raise
                else:
                    return True
        return False

    def _fetch(self, digest: Digest, size: int | None, place: str) -> None:
        world = self._world
        reference = Reference.parse(f"{place}@{digest}")
        number = world.take_numbers()
        with (
            step(world.sink, number, f"fetch layer {short(digest)} of {reference.repository}"),
            world.store.blobs.write() as writer,
        ):
            meter = Meter(world.sink, number, short(digest), size or 0)
            with os.fdopen(os.dup(writer.fd), "r+b", buffering=0) as file:
                self._open().repository(reference).fetch(digest, size, cast("BinaryIO", file), on_bytes=meter.add)
            writer.commit(digest, size)
