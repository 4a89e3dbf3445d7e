"""Ways through a graph: down to the base of a node, up to all that is built on some nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aerogel.graph.ops import Node
from aerogel.graph.steps import Step

__all__ = ["above", "down"]


def down(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    current: Node | None = node
    while current is not None:
        yield current
        current = current.root


def above(steps: Sequence[Step], forced: set[str]) -> set[str]:
    """The nodes whose history holds a forced one: what was kept of them says nothing about this run."""
    found = set(forced)
    for step in steps:
        if any(each.digest in found for each in step.node.inputs):
            found.add(step.node.digest)
    return found
