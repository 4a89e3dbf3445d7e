"""The items of a COPY, and those of a folder that is copied whole to where nothing is.

Such a folder is not planned entry by entry and held: its items are made while they are gone through, so that a context
of hundreds of thousands of files costs little memory. Standard library only.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from aerogel.errors import AerogelError
from aerogel.files.entry import LNK, REG, WHITEOUT, Entry, shown
from aerogel.files.tree import Tree

__all__ = ["CopyError", "CopyItem", "Graft", "Grafted", "check_name", "or_link"]


class CopyError(AerogelError):
    """A copy that cannot be; `word` is the source or destination as it was asked for."""

    def __init__(self, message: str, *, code: str, word: str, hints: Sequence[str] = ()) -> None:
        super().__init__(message, code=code, hints=hints)
        self.word = word

    @classmethod
    def about(cls, word: str, error: AerogelError) -> CopyError:
        """The same error, with the word of the instruction that it is about."""
        made = cls(error.message, code=error.code, word=word, hints=error.hints)
        made.span, made.detail = error.span, error.detail
        made.exit_status, made.temporary = error.exit_status, error.temporary
        return made


class CopyItem(NamedTuple):
    """One entry of the layer.

    `source` is the path in the source tree that a regular file's content comes from; with `archive`, the path of an
    archive in the source tree, it is the path inside that.
    """

    entry: Entry
    source: bytes | None
    archive: bytes | None = None


class Graft:
    """A folder of the source that goes to a place with nothing below. Raises CopyError `copy.whiteout-name`."""

    def __init__(self, source: Tree, path: bytes, place: bytes, changed: Callable[[Entry, bytes], Entry]) -> None:
        """`changed` makes an entry of the source what it is in the layer, at a path there."""
        self._source = source
        self._changed = changed
        self._path = path
        self.place = place
        count = 0
        linked = array("q")
        for entry, inode in source.walk_linked(path):
            count += 1
            if WHITEOUT in entry.path and entry.path != path:
                check_name(entry.path, entry.path if entry.kind == REG else None)
            if inode is not None:
                linked.append(hash(inode))
        self._count = count - 1
        # Files with another name in the folder; most with many names have the others elsewhere.
        hashes = sorted(linked)
        self._twice = frozenset(one for one, other in pairwise(hashes) if one == other)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[CopyItem]:
        changed, twice = self._changed, self._twice
        start = len(self._path) + 1 if self._path else 0
        prefix = self.place + b"/" if self.place else b""
        first: dict[Hashable, Entry] = {}
        walk = self._source.walk_linked(self._path)
        next(walk)
        for entry, inode in walk:
            made = CopyItem(changed(entry, prefix + entry.path[start:]), entry.path if entry.kind == REG else None)
            yield made if inode is None or hash(inode) not in twice else or_link(made, first, inode)


class Grafted(Collection[CopyItem]):
    """The items of a layer, those of a folder among them."""

    def __init__(self, items: list[CopyItem], graft: Graft) -> None:
        self._items = items
        self._graft = graft
        self._at = next((n for n, item in enumerate(items, 1) if item.entry.path == graft.place), 0)

    def __len__(self) -> int:
        return len(self._items) + len(self._graft)

    def __iter__(self) -> Iterator[CopyItem]:
        yield from self._items[: self._at]
        yield from self._graft
        yield from self._items[self._at :]

    def __contains__(self, item: object) -> bool:
        return any(each == item for each in self)


def or_link(item: CopyItem, first: dict[Hashable, Entry], inode: Hashable) -> CopyItem:
    """The item, or a hard link to the first with this inode when all but the path is alike."""
    entry = item.entry
    known = first.setdefault(inode, entry)
    if known is entry or known[2:] != entry[2:]:
        return item
    return CopyItem(entry._replace(kind=LNK, size=0, link=known.path, xattrs=()), None)


def check_name(path: bytes, source: bytes | None) -> None:
    """That a name means no removal in a layer. Raises CopyError `copy.whiteout-name`."""
    if path.rpartition(b"/")[2].startswith(WHITEOUT):
        raise CopyError(
            f"`{shown(path)}` cannot be in a layer: names that begin with `.wh.` mean a removal there",
            code="copy.whiteout-name",
            word=shown(source or path),
            hints=["rename the file, or name it in `.dockerignore`"],
        )
