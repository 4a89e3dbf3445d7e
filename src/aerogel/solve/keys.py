"""The keys under which results of steps are kept: what a node is and works on, and nothing else.

For each node there are two. The *definition key* covers the whole history: operation, definition keys of the inputs,
content of the local files that a COPY selects; it is known before anything runs. The *content key* covers what the
step really reads, so it hits although its producer ran again:

RUN             the operation, the layers of its root, and of each bind mount what is at the path that it shows
COPY, ADD,      the entries of the layer that would be written, with the digests of their contents (`file.Copying`):
WORKDIR         neither the rest of its sources nor the rest of its root
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from aerogel.files.copy import CopyItem, CopyOptions
from aerogel.files.hashing import content_key
from aerogel.files.host import HostTree
from aerogel.files.tree import LayerTree
from aerogel.graph.ops import Base, Copy, Git, Http, Local, Node, Run, frame
from aerogel.oci.digest import Digest
from aerogel.solve.remotes import Remotes
from aerogel.solve.selection import select
from aerogel.solve.stepkey import key_of, rows
from aerogel.store.builds import Selections

__all__ = ["Keys", "Taken", "content_of_node"]

_encode = msgspec.json.Encoder(order="sorted").encode


class Taken(NamedTuple):
    """What a node takes from outside the graph: `kind` is `context`, `http` or `git`, `digest` what it is now.

    `number` is the input of a COPY, or the mount of a RUN.
    """

    number: int
    kind: str
    digest: str


class Keys:
    """Definition keys of the nodes of one build. `contexts` are the local contexts by name.

    `selections` keeps the lists of the files that keys were made of, for `aerogel why`.
    """

    def __init__(
        self, contexts: dict[str, HostTree], remotes: Remotes, epoch_s: int, selections: Selections | None = None
    ) -> None:
        self._contexts = contexts
        self._remotes = remotes
        self._epoch = b"%d" % epoch_s
        self._selections = selections
        self._known: dict[str, Digest] = {}
        self._taken: dict[str, tuple[Taken, ...]] = {}

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
            self._known[current.digest] = key_of(
                b"definition",
                self._epoch,
                current.digest.encode(),
                _joined(self.taken(current)),
                *(self._known[each.digest].encode() for each in current.inputs),
            )
        return self._known[node.digest]

    def taken(self, node: Node) -> tuple[Taken, ...]:
        """What a node takes from local contexts, URLs and repositories: COPY, ADD, mounts of RUN; else nothing.

        Fetches. Raises `copy.*`, `solve.mount-source`, `net.*`, `git.*`, `remote.checksum`.
        """
        found = self._taken.get(node.digest)
        if found is None:
            match node.op:
                case Copy():
                    found = tuple(self._copied(node, node.op))
                case Run() if len(node.inputs) > 1:
                    found = tuple(self._mounted(node, node.op))
                case _:
                    found = ()
            self._taken[node.digest] = found
        return found

    def _copied(self, node: Node, op: Copy) -> list[Taken]:
        found = []
        for number, side in enumerate(node.inputs[1:], 1):
            if isinstance(side.op, Local):
                tree = self._contexts[side.op.name]
                # As if copied to the root of an empty target, with no owner and no mode of its own.
                options = CopyOptions(keep_owner=op.keep_owner, parents=op.parents, exclude=op.exclude)
                items = select(op, number, tree, LayerTree([]), options, dest="/")
                found.append(Taken(number, "context", self._digest(items, tree)))
            elif isinstance(side.op, Http | Git):
                kind = "http" if isinstance(side.op, Http) else "git"
                found.append(Taken(number, kind, self._remotes.identity(side.op).partition(" ")[2]))
        return found

    def _mounted(self, node: Node, op: Run) -> list[Taken]:
        """What the mounts of a RUN show of local contexts."""
        from aerogel.solve.subtree import context_items

        found = []
        for number, mount in enumerate(op.mounts):
            side = node.inputs[mount.input].op if mount.input > 0 else None
            if isinstance(side, Local):
                tree = self._contexts[side.name]
                items = context_items(tree, mount.source, number)
                found.append(Taken(number, "context", self._digest(items, tree)))
        return found

    def _digest(self, items: Collection[CopyItem], tree: HostTree) -> str:
        digest = content_key(items, tree)
        if self._selections is not None:
            self._selections.keep(digest, lambda: rows(items, tree))
        return digest

    def run(self, node: Node, inputs: tuple[tuple[Digest, ...], ...]) -> Digest:
        """The content key of a RUN.

        `inputs` are the layers of each input (none for a local context); of those that mounts read, the digests of
        what they show (`subtree.narrowed`).
        """
        return key_of(
            b"run",
            self._epoch,
            _encode(node.op),
            node.platform.encode(),
            _joined(self.taken(node)),
            *(frame(*(layer.encode() for layer in layers)) for layers in inputs),
        )

    def copy(self, node: Node, inputs: tuple[tuple[Digest, ...], ...]) -> Digest:
        """A key of a COPY, ADD or WORKDIR by the whole of its inputs: known without looking into them."""
        return key_of(
            b"copy",
            self._epoch,
            _encode(node.op),
            node.platform.encode(),
            _joined(self.taken(node)),
            *(frame(*(layer.encode() for layer in layers)) for layers in inputs),
        )


def content_of_node(node: Node) -> tuple[Digest, ...]:
    """The layers of a base."""
    return tuple(Digest(each) for each in node.op.diff_ids) if isinstance(node.op, Base) else ()


def _joined(taken: tuple[Taken, ...]) -> bytes:
    return frame(*(part for each in taken for part in (b"%d" % each.number, each.kind.encode(), each.digest.encode())))
