"""Where blobs can be had that are not here: layers of base images that nothing needed yet.

::

    <data>/origins-v1/<algorithm>/<hex>     JSON: {"places": ["registry/repository", ...]}

A blob that is asked for and not here is brought by `Blobs.on_missing`, which reads this. A record that cannot be read
counts as absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator

from aerogel.decoding import parse_json
from aerogel.oci.digest import Digest
from aerogel.store.disk import read_file, unlink
from aerogel.store.scratch import Scratch

__all__ = ["Origins"]

_MOST = 8


class Origins:
    """The origins of one store."""

    def __init__(self, data: str, scratch: Scratch) -> None:
        self._root = f"{data}/origins-v1"
        self._scratch = scratch

    def _path(self, digest: Digest) -> str:
        return f"{self._root}/{digest.replace(':', '/')}"

    def of(self, digest: Digest) -> tuple[str, ...]:
        """Repositories that have a blob, the one that was told last first."""
        try:
            places = parse_json(read_file(self._path(digest)) or b"").get("places")
        except (ValueError, AttributeError):
            return ()
        return tuple(str(each) for each in places) if isinstance(places, list) else ()

    def note(self, digest: Digest, place: str) -> None:
        """A repository has a blob. Raises `store.*`."""
        known = self.of(digest)
        if known[:1] != (place,):
            places = [place, *(each for each in known if each != place)][:_MOST]
            self._scratch.write_file(self._path(digest), json.dumps({"places": places}).encode())

    def keep(self, wanted: Container[str]) -> None:
        """Forgets all but what is wanted."""
        for digest in self._all():
            if digest not in wanted:
                unlink(self._path(digest))

    def _all(self) -> Iterator[Digest]:
        try:
            algorithms = os.listdir(self._root)
        except FileNotFoundError:
            return
        for algorithm in algorithms:
            for encoded in os.listdir(f"{self._root}/{algorithm}"):
                yield Digest(f"{algorithm}:{encoded}")
