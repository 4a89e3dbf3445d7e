"""What a `RUN --mount` reads of a context, a stage or an image: a path in its tree, and a digest of what is there.

The digest covers paths, kinds, modes, owners, links and contents, so a step runs again only when something that it
can see through the mount has changed. Times are left out, as for COPY.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from aerogel.errors import AerogelError
from aerogel.files.copy import CopyItem
from aerogel.files.entry import REG, Entry, shown
from aerogel.files.hashing import content_key
from aerogel.files.host import HostTree
from aerogel.files.tar import TarWriter
from aerogel.files.tree import LayerTree, Tree
from aerogel.graph.ops import Base, Http, Local, Node, Run, frame
from aerogel.oci.digest import Digest
from aerogel.solve.content import LayerContent
from aerogel.solve.materials import Materials

__all__ = ["MountError", "chosen", "context_digest", "layers_digest", "narrowed"]


class MountError(AerogelError):
    """A fault of mount `number` of a step; `word` is how the step finds its place."""

    def __init__(self, number: int, message: str, *, code: str, hints: Sequence[str] = ()) -> None:
        super().__init__(message, code=code, hints=hints)
        self.word = f"mount {number}"


def chosen(tree: Tree, source: str, number: int) -> Entry:
    """The entry that a mount shows, links followed inside the tree. Raises `solve.mount-source`."""
    path = tree.resolve(source.encode("utf-8", "surrogateescape"))
    found = tree.lookup(path)
    if found is not None:
        return found._replace(path=path)
    why = tree.explain(path)
    above = path.rpartition(b"/")[0]
    while above and tree.lookup(above) is None:
        above = above.rpartition(b"/")[0]
    hints = [why] if why else [f"the nearest that is there: `/{shown(above)}`"]
    raise MountError(
        number, f"the source of the mount, `{source}`, is not there", code="solve.mount-source", hints=hints
    )


def context_digest(tree: HostTree, source: str, number: int) -> str:
    """The digest of what a mount shows of a local context."""
    root = chosen(tree, source, number)
    return content_key(_items(tree, root.path, owner=True), tree)


def _items(tree: Tree, path: bytes, *, owner: bool = False) -> list[CopyItem]:
    """Everything at and below the path; with `owner`, as if root owned all of it."""
    found = []
    for entry in tree.walk(path):
        shown_as = entry._replace(uid=0, gid=0) if owner else entry
        found.append(CopyItem(shown_as, entry.path if entry.kind == REG else None))
    return found


def narrowed(
    node: Node, inputs: tuple[tuple[Digest, ...], ...], materials: Materials
) -> tuple[tuple[Digest, ...], ...]:
    """The inputs for a content key: of those that mounts read, a digest of what they show instead of the layers.

    An image stays what its layers are: it does not change from build to build, and reading it would cost.
    """
    if not isinstance(node.op, Run):
        return inputs
    found = list(inputs)
    for at, side in enumerate(node.inputs):
        if at == 0 or isinstance(side.op, Base | Local | Http):
            continue
        reading = [(n, mount) for n, mount in enumerate(node.op.mounts) if mount.input == at]
        found[at] = tuple(layers_digest(materials, inputs[at], mount.source, number) for number, mount in reading)
    return tuple(found)


def layers_digest(materials: Materials, layers: tuple[Digest, ...], source: str, number: int) -> Digest:
    """The digest of what a mount shows of layers; remembered in the store."""
    memo = frame(b"aerogel-subtree-v1", source.encode("utf-8", "surrogateescape"), *(each.encode() for each in layers))
    key = Digest("sha256:" + sha256(memo).hexdigest())
    known = materials.store.actions.get(key)
    if known is not None:
        return Digest(known["content"])
    tree = materials.tree(layers)
    items = _items(tree, chosen(tree, source, number).path)
    found = Digest(content_key(items, _Contents(materials, layers, tree, items)))
    materials.store.actions.put(key, {"source": source, "inputs": list(layers)}, {"content": found})
    return found


class _Contents:
    """The digests of the contents of files in layers, all read in one go."""

    def __init__(
        self, materials: Materials, layers: tuple[Digest, ...], tree: LayerTree, items: list[CopyItem]
    ) -> None:
        self._found: dict[bytes, bytes] = {}
        source = LayerContent(materials, layers, tree)
        try:
            source.open(items)
            for item in items:
                if item.source is not None and item.entry.size:
                    hasher = _Hasher()
                    source.write(item, hasher)
                    self._found[item.source] = hasher.digest()
        finally:
            source.close()

    def digest(self, path: bytes) -> bytes:
        return self._found.get(path) or sha256().digest()


class _Hasher(TarWriter):
    """Takes the content of one file and writes nothing."""

    __slots__ = ("_sum",)

    def __init__(self) -> None:
        self._sum = sha256()
        super().__init__(self._sum.update)

    def entry(self, entry: Entry) -> None:
        del entry

    def content(self, data: bytes | memoryview) -> None:
        self._sum.update(data)

    def pad(self) -> None:
        """Nothing was written."""

    def digest(self) -> bytes:
        return self._sum.digest()
