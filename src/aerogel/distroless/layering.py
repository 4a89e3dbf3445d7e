"""Which layer a file of a base goes into: one for all, or the large packages apart, so that updates and pulls are small.

`origin` puts what one source package brings into a layer of its own, the largest first, up to the budget; what is small
and what is generated is in the last layer. Each layer has every directory that leads to its files, with the owner and
mode that it has in the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aerogel.distroless.declaration import Layers
from aerogel.distroless.layout import Item
from aerogel.files.entry import DIR, parents

__all__ = ["BUDGET", "SMALLEST", "layered"]

BUDGET = 4
"""Layers when nothing else is said."""
SMALLEST = 1_000_000
"""Bytes of content below which a source gets no layer of its own."""


def layered(items: Sequence[Item], sources: Mapping[str, str], how: Layers | None) -> list[list[Item]]:
    """The items of each layer in canonical order, lowest layer first. `sources` has the source of each package."""
    if how is None or how.strategy != "origin":
        return [list(items)]
    sizes: dict[str, int] = {}
    for item in items:
        source = sources.get(item.owner)
        if source is not None:
            sizes[source] = sizes.get(source, 0) + item.entry.size
    large = sorted((source for source, size in sizes.items() if size >= SMALLEST), key=lambda one: (-sizes[one], one))
    own = {source: number for number, source in enumerate(sorted(large[: (how.budget or BUDGET) - 1]))}
    last = len(own)
    members: list[set[bytes]] = [set() for _ in range(last + 1)]
    for item in items:
        if item.entry.kind != DIR:
            members[own.get(sources.get(item.owner, ""), last)].add(item.entry.path)
    for paths in members:
        paths |= {parent for path in tuple(paths) for parent in parents(path)}
    placed = set().union(*members)
    # A directory with nothing in it is nobody's way: it stands in the last layer.
    members[last] |= {item.entry.path for item in items if item.entry.path not in placed}
    return [found for paths in members if (found := [item for item in items if item.entry.path in paths])]
