"""Directories of cache mounts in a cache of results: with `cache-mounts=true`, those that the build's steps mount.

They are one archive, as `aerogel cache export` writes it, and a blob of the cache. What is here already stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import BinaryIO

from aerogel.commands.cache_export import write_archive
from aerogel.commands.cache_import import read_archive
from aerogel.commands.world import World
from aerogel.graph.ops import Node, Run
from aerogel.oci.types import Descriptor
from aerogel.store.mounts import CacheMounts

__all__ = ["MOUNTS", "pack", "unpack"]

MOUNTS = "application/vnd.aerogel.cache.mounts.v1.tar"
"""Media type of the archive."""


def pack(nodes: Iterable[Node], world: World) -> Descriptor | None:
    """Puts the archive in the store; None when the steps mount no cache that is there.

    Raises `store.cache-in-use`, `store.*`.
    """
    ids = {mount.id or mount.target for node in nodes if isinstance(node.op, Run) for mount in node.op.mounts
           if mount.type == "cache"}  # fmt: skip
    if not ids:
        return None
    kept = CacheMounts(world.store.cache, world.store.scratch)
    mapping = world.helper().rung.map_id
    chosen = [one for one in kept.all() if one.number == 0 and one.mapping == mapping and one.about.id in ids]
    if not chosen:
        return None
    from hashlib import sha256

    from aerogel.oci.digest import Digest

    with world.store.blobs.write() as writer:
        total = 0
        hashed = sha256()
        with os.fdopen(os.dup(writer.fd), "wb") as stream:
            write_archive(stream, sorted(chosen, key=lambda one: one.about.name), kept, world)
        with os.fdopen(os.dup(writer.fd), "rb") as stream:
            stream.seek(0)
            while data := stream.read(1 << 20):
                hashed.update(data)
                total += len(data)
        digest = Digest(f"sha256:{hashed.hexdigest()}")
        writer.commit(digest, total)
    return Descriptor(media_type=MOUNTS, digest=digest, size=total)


def unpack(stream: BinaryIO, world: World) -> tuple[str, ...]:
    """Makes the caches of an archive that are not here; their ids. Raises `cache.archive`, `extract.*`, `store.*`."""
    return read_archive(stream, world).imported
