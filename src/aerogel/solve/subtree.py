"""What a `RUN --mount` reads of a context, a stage or an image: a path in its tree, and a digest of what is there.

The digest covers paths, kinds, modes, owners, links and contents, so a step runs again only when something that it
can see through the mount has changed. Times are left out, as for COPY.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256

from aerogel.errors import AerogelError
from aerogel.files.copy import CopyItem
from aerogel.files.entry import REG, Entry, shown
from aerogel.files.hashing import content_key
from aerogel.files.host import HostTree
from aerogel.files.tree import Tree
from aerogel.graph.ops import Base, Git, Http, Local, Node, Run
from aerogel.oci.digest import Digest
from aerogel.solve.content import LayerContent
from aerogel.solve.materials import Materials
from aerogel.solve.stepkey import key_of, rows

__all__ = ["MountError", "chosen", "context_digest", "context_items", "layers_digest", "narrowed"]


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


class _Items(Collection[CopyItem]):
    """Everything at and below a path; with `owner`, as if root owned all of it. Made anew each time."""

    def __init__(self, tree: Tree, path: bytes, *, owner: bool = False) -> None:
        self._tree = tree
        self._path = path
        self._owner = owner

    def __iter__(self) -> Iterator[CopyItem]:
        for entry in self._tree.walk(self._path):
            shown_as = entry._replace(uid=0, gid=0) if self._owner else entry
            yield CopyItem(shown_as, entry.path if entry.kind == REG else None)

    def __len__(self) -> int:
        return sum(1 for _ in self._tree.walk(self._path))

    def __contains__(self, item: object) -> bool:
        return any(each == item for each in self)


def context_items(tree: HostTree, source: str, number: int) -> Collection[CopyItem]:
    """What a mount shows of a local context."""
    return _Items(tree, chosen(tree, source, number).path, owner=True)


def context_digest(tree: HostTree, source: str, number: int) -> str:
    """The digest of what a mount shows of a local context."""
    return content_key(context_items(tree, source, number), tree)


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
        if at == 0 or isinstance(side.op, Base | Local | Http | Git):
            continue
        reading = [(n, mount) for n, mount in enumerate(node.op.mounts) if mount.input == at]
        found[at] = tuple(layers_digest(materials, inputs[at], mount.source, number) for number, mount in reading)
    return tuple(found)


def layers_digest(materials: Materials, layers: tuple[Digest, ...], source: str, number: int) -> Digest:
    """The digest of what a mount shows of layers; remembered in the store."""
    key = key_of(b"shown", source.encode("utf-8", "surrogateescape"), *(each.encode() for each in layers))
    known = materials.store.actions.get(key)
    if known is not None:
        return Digest(known["content"])
    tree = materials.tree(layers)
    items = _Items(tree, chosen(tree, source, number).path)
    contents = _Contents(LayerContent(materials, layers, tree).digests(items))
    found = Digest(content_key(items, contents))
    materials.store.builds.selections.keep(found, lambda: rows(items, contents))
    materials.store.actions.put(key, {"source": source, "inputs": list(layers)}, {"content": found})
    return found


class _Contents:
    """The digests of the contents of files in layers."""

    def __init__(self, found: dict[bytes, bytes]) -> None:
        self._found = found

    def digest(self, path: bytes) -> bytes:
        return self._found.get(path) or sha256().digest()
