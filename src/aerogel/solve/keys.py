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
from aerogel.graph.ops import Base, Copy, Git, Http, Local, Node, Run, frame
from aerogel.oci.digest import Digest
from aerogel.solve.remotes import Remotes
from aerogel.solve.selection import select

__all__ = ["KEY_VERSION", "Keys", "content_of_node"]

KEY_VERSION = b"aerogel-step-v1"

_encode = msgspec.json.Encoder(order="sorted").encode


class Keys:
    """Definition keys of the nodes of one build. `contexts` are the local contexts by name."""

    def __init__(self, contexts: dict[str, HostTree], remotes: Remotes, epoch_s: int) -> None:
        self._contexts = contexts
        self._remotes = remotes
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
        """What a node takes from local contexts, URLs and repositories: COPY, ADD, mounts of RUN; else empty.

        Fetches. Raises `copy.*`, `solve.mount-source`, `net.*`, `git.*`, `remote.checksum`.
        """
        if isinstance(node.op, Run):
            return self._mounted(node, node.op)
        if not isinstance(node.op, Copy):
            return ""
        if node.digest not in self._local:
            found = []
            for number, side in enumerate(node.inputs[1:], 1):
                if isinstance(side.op, Local):
                    found.append(_selected(node.op, number, self._contexts[side.op.name]))
                elif isinstance(side.op, Http | Git):
                    found.append(self._remotes.identity(side.op))
            self._local[node.digest] = "\n".join(found)
        return self._local[node.digest]

    def _mounted(self, node: Node, op: Run) -> str:
        """What the mounts of a RUN show of local contexts."""
        if len(node.inputs) < 2:
            return ""
        if node.digest not in self._local:
            from aerogel.solve.subtree import context_digest

            found = []
            for number, mount in enumerate(op.mounts):
                side = node.inputs[mount.input].op if mount.input > 0 else None
                if isinstance(side, Local):
                    found.append(context_digest(self._contexts[side.name], mount.source, number))
            self._local[node.digest] = "\n".join(found)
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


def _selected(op: Copy, number: int, tree: HostTree) -> str:
    """The content key of the selection alone: to the root of an empty target, with no owner, no mode."""
    options = CopyOptions(keep_owner=op.keep_owner, parents=op.parents, exclude=op.exclude)
    return content_key(select(op, number, tree, LayerTree([]), options, dest="/"), tree)


def _digest(*parts: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(frame(KEY_VERSION, *parts)).hexdigest())
