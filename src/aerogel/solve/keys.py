"""The keys under which results of steps are kept: what a node is and works on, and nothing else.

Two keys for each node. The *definition key* covers the whole history: operation, definition keys of the inputs,
content of the local files that a COPY selects; it is known before anything runs. The *content key* covers the
operation and the layers that the inputs really have, so a step hits although its producer ran again with the same
result. Both are length-framed, versioned, and cover the time stamp that layers get.
"""

from __future__ import annotations

import hashlib

import msgspec

from aerogel.files.copy import CopyOptions
from aerogel.files.hashing import content_key
from aerogel.files.host import HostTree
from aerogel.files.tree import LayerTree
from aerogel.graph.ops import Base, Copy, Local, Node, frame
from aerogel.oci.digest import Digest
from aerogel.solve.selection import select

__all__ = ["KEY_VERSION", "Keys", "content_of_node"]

KEY_VERSION = b"aerogel-step-v1"

_encode = msgspec.json.Encoder(order="sorted").encode


class Keys:
    """Definition keys of the nodes of one build. `contexts` are the local contexts by name."""

    def __init__(self, contexts: dict[str, HostTree], epoch_s: int) -> None:
        self._contexts = contexts
        self._epoch = b"%d" % epoch_s
        self._known: dict[str, Digest] = {}
        self._local: dict[str, str] = {}

    def definition(self, node: Node) -> Digest:
        """The definition key; reads (or knows) the local files that the node and its inputs select."""
        todo = [node]
        while todo:
            current = todo[-1]
            if current.digest in self._known:
                todo.pop()
                continue
            missing = [each for each in current.inputs if each.digest not in self._known]
            if missing:
                todo += missing
                continue
            todo.pop()
            self._known[current.digest] = _digest(
                b"definition",
                self._epoch,
                current.digest.encode(),
                self.local(current).encode(),
                *(self._known[each.digest].encode() for each in current.inputs),
            )
        return self._known[node.digest]

    def local(self, node: Node) -> str:
        """The digest of what a COPY selects from a local context; empty for every other node."""
        if not isinstance(node.op, Copy) or len(node.inputs) < 2 or not isinstance(node.inputs[1].op, Local):
            return ""
        if node.digest not in self._local:
            tree = self._contexts[node.inputs[1].op.name]
            self._local[node.digest] = _selected(node.op, tree)
        return self._local[node.digest]

    def content(self, node: Node, inputs: tuple[tuple[Digest, ...], ...]) -> Digest:
        """The content key; `inputs` are the layers of each input (none for a local context)."""
        return _digest(
            b"content",
            self._epoch,
            _encode(node.op),
            node.platform.encode(),
            self.local(node).encode(),
            *(frame(*(layer.encode() for layer in layers)) for layers in inputs),
        )


def content_of_node(node: Node) -> tuple[Digest, ...]:
    """The layers of a base."""
    return tuple(Digest(each) for each in node.op.diff_ids) if isinstance(node.op, Base) else ()


def _selected(op: Copy, tree: HostTree) -> str:
    """The content key of the selection alone: to the root of an empty target, with no owner, no mode."""
    options = CopyOptions(keep_owner=op.keep_owner, parents=op.parents, exclude=op.exclude)
    return content_key(select(op, tree, LayerTree([]), options, dest="/"), tree)


def _digest(*parts: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(frame(KEY_VERSION, *parts)).hexdigest())
