"""Layers that are not here but can be had: of a cache in a registry or a folder, of a base image not fetched yet.

A layer is brought when its bytes are asked for and not before, so a build that only names it moves nothing. What
comes is checked by whoever offers it: a layer is its diff id, wherever it comes from.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.types import Descriptor

__all__ = ["Offer", "Offers"]


class Offer(NamedTuple):
    """One place that has a layer.

    `origin` names it in messages; what has the same `home` has the same blobs. `bring` puts it in the store, where it has a blob then, and raises unless it is what its diff id says. `blob` is
    what that place has.
    """

    origin: str
    blob: Descriptor
    bring: Callable[[], object]
    size: int = 0
    """Bytes of the uncompressed tar; 0 when the place does not tell."""
    home: str = ""
    is_part: bool = False
    """The blob belongs to a base image, and an image made from that names it as it is."""
    bring_through: Callable[[Callable[[bytes], object]], object] | None = None
    """`bring`, which hands the layer's tar on while it reads it; that is what the diff id says if nothing is raised."""


class Offers:
    """The offers of one run, by layer. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Digest, tuple[Offer, ...]] = {}

    def add(self, layer: Digest, offer: Offer) -> None:
        with self._lock:
            known = self._known.get(layer, ())
            if all((each.origin, each.blob) != (offer.origin, offer.blob) for each in known):
                self._known[layer] = (*known, offer)

    def of(self, layer: Digest) -> tuple[Offer, ...]:
        """Those of a layer, first come first."""
        return self._known.get(layer, ())

    def part(self, layer: Digest) -> Descriptor | None:
        """The blob that base images have for the layer; None when they do not agree, or none has it.

        An image may name it although it is not here: that the blob holds the layer is said by the same base.
        """
        blobs = {(each.blob.digest, each.blob.size): each.blob for each in self.of(layer) if each.is_part}
        return next(iter(blobs.values())) if len(blobs) == 1 else None

    def drop(self, origin: str) -> None:
        """Nothing more is taken from a place."""
        with self._lock:
            self._known = {
                layer: left
                for layer, offers in self._known.items()
                if (left := tuple(each for each in offers if each.origin != origin))
            }

    def bring(self, layer: Digest) -> None:
        """Puts the layer in the store, from the first place that really has it. Raises the fault of the last one."""
        fault: AerogelError | None = None
        for offer in self.of(layer):
            try:
                offer.bring()
            except AerogelError as error:
                fault = error
            else:
                return
        if fault is not None:
            raise fault
