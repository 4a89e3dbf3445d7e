"""Where the files of packages go in an image: one tree out of many packages, with `/usr` merged.

For: putting the entries of packages into one map by path, as dpkg would unpack them, and writing it as a canonical
layer. Not for: what packages do not ship (`compose`).

Both releases are laid out with `/bin`, `/sbin` and `/lib*` as links into `/usr`, as Debian has it since 12: a layer
on top that brings a real `/lib` directory would otherwise hide the loader.
Spec: Debian Policy 9.1 (merged /usr), OCI image-spec v1.1 layer.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from aerogel.distroless.unpacked import Unpacked
from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry, directory, parents, shown
from aerogel.files.index import SMALL_FILES, LayerIndex
from aerogel.files.tar import CHUNK, TarWriter

__all__ = ["Item", "Layout", "Place", "merged_usr", "write_layer"]

_MERGED = re.compile(rb"(?:bin|sbin|lib(?:64|32|x32|o32)?)(?=/|$)")
_MAX_LINKS = 40


class Place(NamedTuple):
    """Content that lies in an open file."""

    fd: int
    offset: int


class Item(NamedTuple):
    """An entry and its content: bytes that were made here, or where they lie; nothing for other kinds."""

    entry: Entry
    content: bytes | Place = b""
    owner: str = ""
    """Name of the package, empty for what is generated."""


def merged_usr(path: bytes) -> bytes:
    """The path that `path` has when `/bin`, `/sbin` and `/lib*` lie in `/usr`."""
    return b"usr/" + path if _MERGED.match(path) else path


class Layout:
    """The tree under construction; `items` is by final path."""

    def __init__(self) -> None:
        self.items: dict[bytes, Item] = {}
        self.epoch = 0
        """Newest time in any package: the time of what is generated."""
        self._had_children: set[bytes] = set()

    def add_package(
        self,
        unpacked: Unpacked,
        dropped_by: Callable[[bytes], str | None],
        rename: Callable[[bytes], bytes] = merged_usr,
    ) -> set[str]:
        """Adds what the rules keep; returns the names of the rules that dropped a file.

        Raises `distroless.file-conflict` when another package has a different thing at the same path.
        """
        rules: set[str] = set()
        contents: dict[bytes, tuple[Entry, int]] = {}
        name = unpacked.package.name
        for found, at in unpacked.entries:
            self.epoch = max(self.epoch, found.mtime)
            if found.kind == REG:
                contents[found.path] = (found, at)
            if not found.path:
                continue
            if found.kind == SYM and _MERGED.fullmatch(found.path):
                self._put(Item(found, owner=name))
                continue
            path = rename(found.path)
            self._had_children.add(path.rpartition(b"/")[0])
            rule = dropped_by(path)
            if rule is not None:
                if found.kind != DIR:
                    rules.add(rule)
                continue
            entry = found._replace(path=path)
            content: bytes | Place = b""
            if found.kind == REG:
                content = Place(unpacked.fd, at)
            elif found.kind == LNK:
                target, offset = contents[found.path] = contents[found.link]
                entry = target._replace(path=path, kind=LNK, link=rename(target.path))
                content = Place(unpacked.fd, offset)
            elif found.kind == SYM and path != found.path:
                entry = entry._replace(link=_moved_link(found.path, found.link))
            self._put(Item(entry, content, name))
        return rules

    def _put(self, item: Item) -> None:
        path = item.entry.path
        before = self.items.setdefault(path, item)
        if before is item or item.entry.kind == before.entry.kind == DIR:
            return
        if item.entry.kind == before.entry.kind == SYM and item.entry.link == before.entry.link:
            return
        raise AerogelError(
            f"`/{shown(path)}` is in two packages: `{before.owner}` and `{item.owner}`",
            code="distroless.file-conflict",
            hints=["leave one of the packages out, or drop the file from one of them by a rule"],
        )

    def write(self, path: bytes, content: bytes, *, mode: int = 0o644) -> None:
        """Adds a generated file, in place of one that a package has there."""
        self.items[path] = Item(Entry(path, REG, mode, size=len(content), mtime=self.epoch), content)

    def link(self, path: bytes, target: bytes) -> None:
        """Adds a generated symbolic link, in place of what a package has there."""
        self.items[path] = Item(Entry(path, SYM, 0o777, mtime=self.epoch, link=target))

    def add_directory(self, entry: Entry) -> None:
        """Adds a directory with the given owner and mode, in place of one of a package."""
        self.items[entry.path] = Item(entry)

    def merge_usr(self) -> None:
        """Adds the links that make `/usr` merged, for directories that exist there."""
        tops = {path.split(b"/", 2)[1] for path in self.items if path.startswith(b"usr/")}
        for name in sorted(tops):
            if _MERGED.fullmatch(name) and name not in self.items:
                self.link(name, b"usr/" + name)

    def prune(self) -> None:
        """Removes directories that are empty only because rules dropped what was in them."""
        used: set[bytes] = set()
        for path in sorted(self.items, reverse=True):
            parent = path.rpartition(b"/")[0]
            if self.items[path].entry.kind == DIR and path in self._had_children and path not in used:
                del self.items[path]
            else:
                used.add(parent)

    def resolve(self, path: bytes) -> Item | None:
        """What a path leads to when symbolic links are followed inside the image; None if nowhere."""
        for _ in range(_MAX_LINKS):
            path = merged_usr(path)
            item = self.items.get(path)
            if item is None or item.entry.kind != SYM:
                return item
            target = item.entry.link
            joined = target if target.startswith(b"/") else path.rpartition(b"/")[0] + b"/" + target
            path = os.path.normpath(b"/" + joined).lstrip(b"/")
        return None

    def read(self, item: Item, offset: int = 0, size: int = -1) -> bytes:
        """Content of a regular file or a hard link, from `offset`, at most `size` bytes (-1: all)."""
        left = max(0, item.entry.size - offset)
        size = left if size < 0 else min(size, left)
        if isinstance(item.content, bytes):
            return item.content[offset : offset + size]
        return os.pread(item.content.fd, size, item.content.offset + offset)

    def ordered(self) -> list[Item]:
        """All items in canonical order, every parent directory present, hard links behind what they link to.

        Raises `distroless.through-link` for a file below something that is no directory.
        """
        for path in list(self.items):
            for parent in parents(path):
                above = self.items.get(parent)
                if above is None:
                    self.items[parent] = Item(directory(parent, mtime=self.epoch))
                elif above.entry.kind != DIR:
                    raise AerogelError(
                        f"`/{shown(path)}` cannot be placed: `/{shown(parent)}` is not a directory in this image",
                        code="distroless.through-link",
                        hints=["files of packages are not written through symbolic links"],
                    )
        paths = sorted(self.items, key=lambda path: path.replace(b"/", b"\0"))
        return _with_links_in_order([self.items[path] for path in paths])


def _moved_link(path: bytes, link: bytes) -> bytes:
    """The target for a link that moved one level down into `/usr`: a relative one that climbs becomes absolute."""
    if link.startswith(b"/") or b".." not in link.split(b"/"):
        return link
    return os.path.normpath(b"/" + path.rpartition(b"/")[0] + b"/" + link)


def _with_links_in_order(items: Iterable[Item]) -> list[Item]:
    """Makes the first name of each file the regular one, whichever it was in its package."""
    first: dict[tuple[str, bytes], bytes] = {}
    ordered = []
    for item in items:
        entry = item.entry
        if entry.kind in (REG, LNK) and item.owner:
            key = (item.owner, entry.link if entry.kind == LNK else entry.path)
            target = first.setdefault(key, entry.path)
            if target == entry.path:
                entry = entry._replace(kind=REG, link=b"")
            else:
                entry = entry._replace(kind=LNK, link=target, size=0)
        ordered.append(item._replace(entry=entry))
    return ordered


def write_layer(items: Iterable[Item], write: Callable[[bytes | memoryview], object]) -> LayerIndex:
    """Writes a canonical layer tar and returns its index. Each byte of content is read once."""
    tar = TarWriter(write)
    buffer = memoryview(bytearray(CHUNK))
    index = LayerIndex([], [])
    for entry, content, _ in items:
        tar.entry(entry)
        index.entries.append(entry)
        index.offsets.append(tar.offset)
        if entry.kind != REG or not entry.size:
            continue
        if isinstance(content, bytes):
            tar.content(content)
            if entry.path in SMALL_FILES:
                index.small[entry.path] = content
        else:
            at, left = content.offset, entry.size
            while left:
                got = os.preadv(content.fd, [buffer[: min(left, CHUNK)]], at)
                if not got:
                    raise AerogelError(f"`{shown(entry.path)}` was cut in the cache", code="distroless.cache")
                tar.content(buffer[:got])
                at, left = at + got, left - got
        tar.pad()
    tar.close()
    return index
