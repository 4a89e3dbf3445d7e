"""The layers of a base that are not here yet: fetched, checked, indexed and unpacked in one go, each inflated once.

While one layer is unpacked the next ones are fetched. Layers of other builders lie on each other in one directory, so
they are unpacked in their order; that directory gets its name when all of them were what the image says, and nobody
sees it before. Whatever goes wrong here, `Materials` fetches and unpacks step by step, and says what is wrong.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest

if TYPE_CHECKING:
    from aerogel.sandbox.launch import Helper
    from aerogel.solve.offers import Offer, Offers
    from aerogel.store.store import Store

__all__ = ["BLOCK", "Extraction", "Filling", "bring_unpacked", "flat_part", "offered_stack"]

_MOST_LOWERS = 60
BLOCK = 40
"""What is flat grows by so many directories at a time."""
_FETCHES = 3
_PIPE_BYTES = 1 << 20
"""The kernel gives no more to ordinary users."""


class _Materials(Protocol):
    """What of `Materials` is used here."""

    offers: Offers
    on_wait: Callable[[], object] | None
    store: Store
    helper: Callable[[], Helper]

    def is_stored(self, layer: Digest) -> bool: ...
    def is_foreign(self, layer: Digest) -> bool: ...


def flat_part(directories: int) -> int:
    """How many of so many directories, the lowest, are better one: each look-up of a name may go through all of them.

    A look-up in vain takes 9 us in one and about 100 in 60. What is flat changes only with every fortieth directory.
    """
    return (directories - BLOCK // 2) // BLOCK * BLOCK if directories > _MOST_LOWERS else 0


def offered_stack(layers: Sequence[Digest], materials: _Materials) -> dict[Digest, Offer]:
    """The lowest layers that go into one directory, if some are not here: with the offers of those, else empty."""
    found: dict[Digest, Offer] = {}
    for number, layer in enumerate(layers):
        if materials.is_stored(layer):
            if not materials.is_foreign(layer):
                return {each: found[each] for each in layers[:number] if each in found}
            continue
        offer = next((each for each in materials.offers.of(layer) if each.bring_through is not None), None)
        if offer is None:
            return {}
        found[layer] = offer
    return found


def bring_unpacked(layers: Sequence[Digest], offers: Mapping[Digest, Offer], fill: Filling) -> None:
    """Unpacks the layers, lowest first, into the directory of `fill`; `offers` has those that are fetched for that.

    Raises AerogelError for anything that went wrong; the directory is of no use then.
    """
    materials = fill.materials
    with ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch") as pool:
        coming = [pool.submit(_fetch, offer, materials) for offer in offers.values()]
        try:
            for layer in layers:
                if layer in offers:
                    _bring(layer, offers[layer], fill)
                else:
                    fill.feed(layer)
        finally:
            for each in coming:
                each.cancel()


class Filling:
    """A directory that layers are unpacked into: whose it is, the `extract` job's arguments, the ordinary way."""

    def __init__(self, materials: _Materials, args: dict[str, object], feed: Callable[[Digest], object]) -> None:
        self.materials = materials
        self.args = args
        self.feed = feed


def _fetch(offer: Offer, materials: _Materials) -> None:
    # What cannot be had is said where its bytes are asked for.
    with suppress(AerogelError):
        materials.store.blobs.open(offer.blob.digest, offer.blob.size).close()


def _bring(layer: Digest, offer: Offer, fill: Filling) -> None:
    materials = fill.materials
    with materials.store.once(f"bring-{layer}", materials.on_wait):
        if not materials.is_stored(layer) and offer.bring_through is not None:
            with Extraction(materials.helper(), fill.args) as extraction:
                offer.bring_through(lambda data: _pass(data, extraction, materials))
                extraction.finish()
            return
    fill.feed(layer)


def _pass(data: bytes, extraction: Extraction, materials: _Materials) -> None:
    if materials.on_wait is not None:
        materials.on_wait()
    extraction.write(data)


class Extraction:
    """An `extract` job that is given its tar piece by piece. A context manager; without `finish` it fails."""

    def __init__(self, helper: Helper, args: Mapping[str, object]) -> None:
        self._read, self._write = os.pipe()
        with suppress(OSError):  # the user has many of them
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, args=(helper, dict(args)), name="extract")
        self._thread.start()

    def _work(self, helper: Helper, args: dict[str, object]) -> None:
        try:
            helper.call("extract", args, [self._read])
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._failures.append(error)
        finally:
            os.close(self._read)

    def write(self, data: bytes) -> None:
        """Hands a piece on. Nothing more is taken when the job has failed; `finish` says why."""
        view = memoryview(data)
        try:
            while view and not self._failures:
                view = view[os.write(self._write, view) :]
        except BrokenPipeError:
            return

    def finish(self) -> None:
        """The tar is at its end. Raises what the job raised."""
        self._close()
        if self._failures:
            raise self._failures[0]

    def _close(self) -> None:
        fd, self._write = self._write, -1
        if fd >= 0:
            os.close(fd)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()
