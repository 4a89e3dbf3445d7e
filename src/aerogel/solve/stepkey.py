"""How keys of steps are made: the SHA-256 of length-framed parts, of which the first two are version and kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256

from aerogel.files.copy import CopyItem
from aerogel.files.hashing import Digests
from aerogel.graph.ops import frame
from aerogel.oci.digest import Digest
from aerogel.store.builds import Row

__all__ = ["KEY_VERSION", "KeyWriter", "key_of", "rows"]

KEY_VERSION = b"aerogel-step-v2"


def key_of(kind: bytes, *parts: bytes) -> Digest:
    """The key of these parts: no two lists of parts, and no two kinds, have the same."""
    return Digest("sha256:" + sha256(frame(KEY_VERSION, kind, *parts)).hexdigest())


class KeyWriter:
    """`key_of` for parts that come one after the other."""

    def __init__(self, kind: bytes) -> None:
        self._sum = sha256(frame(KEY_VERSION, kind))

    def add(self, *parts: bytes) -> None:
        self._sum.update(frame(*parts))

    def key(self) -> Digest:
        return Digest(f"sha256:{self._sum.hexdigest()}")


def rows(items: Iterable[CopyItem], source: Digests) -> Iterator[Row]:
    """What `content_key` covers of each item, as `Selections` keeps it; files by their path in the source."""
    for item in items:
        entry = item.entry
        content = b"" if item.source is None else source.digest(item.source)
        path = entry.path if item.source is None else item.source
        yield path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.link, content
