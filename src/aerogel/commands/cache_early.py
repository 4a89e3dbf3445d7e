"""Layers on their way to a cache while the build still runs: each as soon as its step has made it.

What could not be sent is tried again when the build ends, where its fault counts; so nothing that goes wrong here is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.types import Descriptor

__all__ = ["Early"]

_PARALLEL = 2
"""Threads that compress and send beside the steps."""

Send = Callable[[tuple[Digest, ...]], Descriptor]


class Early:
    """The transfers to one cache. Threads may share it; `close` is called once."""

    def __init__(self, send: Send, wanted: frozenset[str]) -> None:
        self._send = send
        self._wanted = wanted
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._futures: dict[Digest, Future[Descriptor]] = {}
        self._is_closed = False

    def add(self, node: str, layers: tuple[Digest, ...]) -> None:
        """A step, by the digest of its node, has made the last of the layers; those of other builds are left out."""
        with self._lock:
            if self._is_closed or node not in self._wanted or layers[-1] in self._futures:
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="cache")
            self._futures[layers[-1]] = self._pool.submit(partial(self._send, layers))

    def sent(self, layer: Digest) -> Descriptor | None:
        """What the cache has of a layer, when it was sent; waits for a transfer that has begun."""
        future = self._futures.get(layer)
        if future is None:
            return None
        try:
            return future.result()
        except AerogelError:
            return None  # tried once more by whoever asks

    def close(self) -> None:
        """Waits for what has begun and drops the rest."""
        with self._lock:
            self._is_closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
