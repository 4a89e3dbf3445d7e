"""How keys of steps are made: the SHA-256 of length-framed parts, of which the first two are version and kind."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from aerogel.files.copy import CopyItem
from aerogel.files.hashing import Digests
from aerogel.graph.ops import frame
from aerogel.oci.digest import Digest
from aerogel.store.builds import Row

__all__ = ["KEY_VERSION", "key_of", "rows"]

KEY_VERSION = b"aerogel-step-v2"


def key_of(kind: bytes, *parts: bytes) -> Digest:
    """The key of these parts: no two lists of parts, and no two kinds, have the same."""
    return Digest("sha256:" + sha256(frame(KEY_VERSION, kind, *parts)).hexdigest())


def rows(items: Iterable[CopyItem], source: Digests) -> list[Row]:
    """What `content_key` covers of each item, as `Selections` keeps it; files by their path in the source."""
    found = []
    for item in items:
        entry = item.entry
        content = b"" if item.source is None else source.digest(item.source)
        path = entry.path if item.source is None else item.source
        found.append((path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.link, content))
    return found
