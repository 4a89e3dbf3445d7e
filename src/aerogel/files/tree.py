"""A file tree as it can be asked: what is at a path, what is in a directory, where a path leads.

`Tree` is the interface that copying works on; `LayerTree` is a stack of layers merged as a runtime would see them,
from their indexes alone; `files.host.HostTree` is a directory of the host. Nothing here reads content.
Spec: OCI image-spec v1.1 layer.md#applying-changesets. Standard library only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, LNK, OPAQUE, REG, SYM, WHITEOUT, Entry, directory, shown
from aerogel.files.index import LayerIndex

__all__ = ["LayerTree", "Origin", "Tree", "follow"]

_MAX_LINKS = 40
"""Symbolic links that one path may go through, as in Linux."""


class Tree(ABC):
    """A tree of entries. Paths are canonical: relative, `b""` is the root, which is always there."""

    title = "source"
    """What messages call the tree."""

    def explain(self, path: bytes) -> str:
        """Why a path is not there, if the tree knows more than that; empty otherwise."""
        del path
        return ""

    @abstractmethod
    def lookup(self, path: bytes) -> Entry | None:
        """What is at exactly this path: no symbolic link is followed, neither on the way nor at the end."""

    @abstractmethod
    def children(self, path: bytes) -> list[bytes]:
        """The sorted names in a directory; empty for anything else."""

    @abstractmethod
    def inode(self, path: bytes) -> Hashable | None:
        """Equal for paths that are hard links to the same file; None if the file is known to have one name."""

    @abstractmethod
    def small(self, path: bytes) -> bytes | None:
        """The content of one of the account files, symbolic links resolved; None if it is not there."""

    def walk(self, path: bytes = b"") -> Iterator[Entry]:
        """The entry at a path and everything below it, sorted by path components, parents first."""
        found = self.lookup(path)
        if found is None:
            return
        pending = [found]
        while pending:
            entry = pending.pop()
            yield entry
            if entry.kind == DIR:
                prefix = entry.path + b"/" if entry.path else b""
                for name in reversed(self.children(entry.path)):
                    child = self.lookup(prefix + name)
                    if child is not None:
                        pending.append(child)

    def walk_linked(self, path: bytes = b"") -> Iterator[tuple[Entry, Hashable | None]]:
        """The same, each regular file with its `inode`."""
        for entry in self.walk(path):
            yield entry, self.inode(entry.path) if entry.kind == REG else None

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """The path with symbolic links followed inside the tree; `..` stops at the root; missing parts stay as they are.

        Raises AerogelError `tree.loop` after 40 links.
        """
        return follow(path, self.lookup, follow_last=follow_last)


def follow(path: bytes, lookup: Callable[[bytes], Entry | None], *, follow_last: bool = True) -> bytes:
    """`Tree.resolve` for whatever `lookup` sees."""
    pending = path.split(b"/")[::-1]
    done: list[bytes] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if done:
                done.pop()
            continue
        done.append(part)
        if not follow_last and not any(rest not in (b"", b".") for rest in pending):
            break
        entry = lookup(b"/".join(done))
        if entry is None or entry.kind != SYM:
            continue
        links += 1
        if links > _MAX_LINKS:
            raise AerogelError(
                f"path `/{shown(path)}` goes through more than {_MAX_LINKS} symbolic links; "
                f"`/{shown(entry.path)}` points to `{shown(entry.link)}`",
                code="tree.loop",
                hints=["one of the links leads back to itself"],
            )
        done.pop()
        if entry.link.startswith(b"/"):
            done.clear()
        pending += entry.link.split(b"/")[::-1]
    return b"/".join(done)


class Origin(NamedTuple):
    """Where a file's content lies: `offset` bytes into the tar of `layer` (0 is the lowest), as `entry` there."""

    layer: int
    entry: Entry
    offset: int


class _Node:
    """One path of the merged tree; `origin` is of the file itself, a hard link has that of its target."""

    __slots__ = ("children", "entry", "linked", "origin")

    def __init__(self, entry: Entry, origin: Origin | None, *, linked: bool = False) -> None:
        self.entry = entry
        self.origin = origin
        self.linked = linked
        self.children: dict[bytes, _Node] | None = {} if entry.kind == DIR else None


class LayerTree(Tree):
    """Layers on top of each other, lowest first, with whiteouts applied and hard links resolved.

    `lookup` of a hard link gives the entry of the file it is, under its own path. A directory that only the paths
    below it tell of is `0755 0:0`. Raises AerogelError `tree.hard-link` when a layer links to what is not there.
    """

    def __init__(self, indexes: Sequence[LayerIndex] = ()) -> None:
        self._root = _Node(directory(b""), None)
        self._small: list[dict[bytes, bytes]] = []
        for number, index in enumerate(indexes):
            self._apply(number, index)

    def _node(self, path: bytes) -> _Node | None:
        node = self._root
        if path:
            for part in path.split(b"/"):
                if node.children is None:
                    return None
                found = node.children.get(part)
                if found is None:
                    return None
                node = found
        return node

    def _apply(self, number: int, index: LayerIndex) -> None:
        self._small.append(index.small)
        # Whiteouts hide what is below this layer, wherever in the tar they stand.
        for entry in index.entries:
            if WHITEOUT in entry.path:
                self._white_out(entry.path)
        last_parent: bytes | None = None
        real = b""
        siblings: dict[bytes, _Node] = {}
        for entry, offset in zip(index.entries, index.offsets, strict=True):
            parent, _, name = entry.path.rpartition(b"/")
            if not name:
                self._root.entry = entry
                continue
            if name.startswith(WHITEOUT):
                continue
            if parent != last_parent:
                real, siblings = self._parent(parent)
                last_parent = parent
            if real != parent:
                entry = entry._replace(path=real + b"/" + name if real else name)  # noqa: PLW2901 - its real place
            old = siblings.get(name)
            if entry.kind == DIR and old is not None and old.children is not None:
                old.entry = entry
                old.origin = Origin(number, entry, offset)
                continue
            if old is not None and old.children:
                last_parent = None
            siblings[name] = self._made(number, entry, offset)

    def _made(self, number: int, entry: Entry, offset: int) -> _Node:
        if entry.kind != LNK:
            return _Node(entry, Origin(number, entry, offset))
        target = self._node(entry.link) or self._node(self.resolve(entry.link, follow_last=False))
        if target is None or target.entry.kind == DIR:
            raise AerogelError(
                f"layer {number + 1} has `{shown(entry.path)}` as a hard link to `{shown(entry.link)}`, "
                + ("which is a directory" if target else "which is not there"),
                code="tree.hard-link",
            )
        target.linked = True
        return _Node(target.entry._replace(path=entry.path), target.origin, linked=True)

    def _white_out(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        if not name.startswith(WHITEOUT):
            return
        node = self._node(self.resolve(parent))
        if node is None or node.children is None:
            return
        if name == OPAQUE:
            node.children.clear()
        else:
            node.children.pop(name[len(WHITEOUT) :], None)

    def _parent(self, path: bytes) -> tuple[bytes, dict[bytes, _Node]]:
        """A directory and its children, made if need be; through symbolic links, as an unpacker in the root goes."""
        node = self._node(path)
        if node is not None and node.children is not None:
            return path, node.children
        path = self.resolve(path)
        children = self._root.children
        parts = path.split(b"/") if path else []
        for end, part in enumerate(parts, 1):
            if children is None:
                raise ValueError(path)
            found = children.get(part)
            if found is None or found.children is None:
                found = children[part] = _Node(directory(b"/".join(parts[:end])), None)
            children = found.children
        if children is None:
            raise ValueError(path)
        return path, children

    def lookup(self, path: bytes) -> Entry | None:
        node = self._node(path)
        return None if node is None else node.entry

    def children(self, path: bytes) -> list[bytes]:
        node = self._node(path)
        return sorted(node.children) if node is not None and node.children else []

    def walk(self, path: bytes = b"") -> Iterator[Entry]:
        node = self._node(path)
        if node is None:
            return
        pending = [node]
        while pending:
            node = pending.pop()
            yield node.entry
            if node.children:
                children = node.children
                pending += [children[name] for name in sorted(children, reverse=True)]

    def inode(self, path: bytes) -> Hashable | None:
        node = self._node(path)
        if node is None or not node.linked or node.origin is None:
            return None
        return node.origin.layer, node.origin.entry.path

    def origin(self, path: bytes) -> Origin | None:
        """Where the content of a path lies; of a hard link, that of the file. None for an implied directory."""
        node = self._node(path)
        return None if node is None else node.origin

    def small(self, path: bytes) -> bytes | None:
        node = self._node(self.resolve(path))
        if node is None or node.origin is None:
            return None
        return self._small[node.origin.layer].get(node.origin.entry.path)
