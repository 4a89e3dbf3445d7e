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
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from aerogel.distroless.unpacked import Unpacked
from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, LNK, REG, SYM, WHITEOUT, Entry, directory, parents, shown
from aerogel.files.index import SMALL_FILES, LayerIndex
from aerogel.files.tar import CHUNK, TarWriter
from aerogel.files.tree import follow

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
    """The tree under construction; `items` is by final path.

    `below` is the tree of an image that it is laid on: `items` begins with it, and `ordered` gives what differs.
    `owner_below` names the package of the image that has a path, empty for none.
    """

    def __init__(
        self,
        below: Mapping[bytes, Item] | None = None,
        *,
        epoch: int = 0,
        owner_below: Callable[[bytes], str] = lambda _: "",
    ) -> None:
        self.below = below or {}
        self.items: dict[bytes, Item] = dict(self.below)
        self.epoch = epoch
        """Newest time in any package: the time of what is generated."""
        self._had_children: set[bytes] = set()
        self._owner_below = owner_below
        self._real_tops = {path for path, item in self.below.items() if b"/" not in path and item.entry.kind == DIR}

    def is_below(self, path: bytes) -> bool:
        """Whether a path is as the image has it that the tree is laid on."""
        return path in self.below and self.below[path] is self.items.get(path)

    def real(self, path: bytes) -> bytes:
        """`merged_usr`, but for directories that the image below has beside `/usr`."""
        return path if self._real_tops and path.partition(b"/")[0] in self._real_tops else merged_usr(path)

    def landed(self, path: bytes) -> bytes:
        """Where a path lies when links above it are followed; below a link that leads to no directory, itself."""
        for _ in range(_MAX_LINKS):
            path = self.real(path)
            for parent in parents(path):
                item = self.items.get(parent)
                if item is not None and item.entry.kind == SYM:
                    found = self.resolve(parent)
                    if found is None or found.entry.kind != DIR:
                        return path
                    path = found.entry.path + path[len(parent) :]
                    break
            else:
                return path
        return path

    def add_package(
        self,
        unpacked: Unpacked,
        dropped_by: Callable[[bytes], str | None],
        rename: Callable[[bytes], bytes] | None = None,
    ) -> set[str]:
        """Adds what the rules keep; returns the names of the rules that dropped a file.

        Raises `distroless.file-conflict` when another package has a different thing at the same path.
        """
        rename = rename or (self.landed if self.below else merged_usr)
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
        if self.is_below(path):
            self._put_over(item, before)
            return
        raise AerogelError(
            f"`/{shown(path)}` is in two packages: `{before.owner}` and `{item.owner}`",
            code="distroless.file-conflict",
            hints=["leave one of the packages out, or drop the file from one of them by a rule"],
        )

    def _put_over(self, item: Item, before: Item) -> None:
        """A package's file where the image below has something else that is of no package, as dpkg does it."""
        path = item.entry.path
        if item.entry.kind == DIR:
            found = self.resolve(path)
            if found is not None and found.entry.kind == DIR:
                return  # a link to a directory serves as one
        owner = self._owner_below(path)
        if owner or DIR in (item.entry.kind, before.entry.kind):
            whose = f"of the package `{owner}` in the image" if owner else "in the image, and something else there"
            raise AerogelError(
                f"`/{shown(path)}` of the package `{item.owner}` is {whose}",
                code="distroless.file-conflict",
                hints=["leave the package out, or drop the file from it by a rule: `slices`"],
            )
        self.items[path] = item

    def write(self, path: bytes, content: bytes, *, mode: int = 0o644) -> None:
        """Adds a generated file, in place of one that a package has there."""
        path = self.landed(path) if self.below else path
        self.items[path] = Item(Entry(path, REG, mode, size=len(content), mtime=self.epoch), content)

    def link(self, path: bytes, target: bytes) -> None:
        """Adds a generated symbolic link, in place of what a package has there."""
        self._link(self.landed(path) if self.below else path, target)

    def _link(self, path: bytes, target: bytes) -> None:
        self.items[path] = Item(Entry(path, SYM, 0o777, mtime=self.epoch, link=target))

    def add_directory(self, entry: Entry) -> None:
        """Adds a directory with the given owner and mode, in place of one of a package."""
        self.items[entry.path] = Item(entry)

    def merge_usr(self) -> None:
        """Adds the links that make `/usr` merged, for directories that exist there."""
        tops = {path.split(b"/", 2)[1] for path in self.items if path.startswith(b"usr/")}
        for name in sorted(tops):
            if _MERGED.fullmatch(name) and name not in self.items:
                self._link(name, b"usr/" + name)

    def prune(self) -> None:
        """Removes directories that are empty only because rules dropped what was in them."""
        used: set[bytes] = set()
        for path in sorted(self.items, reverse=True):
            parent = path.rpartition(b"/")[0]
            is_own = self.items[path].entry.kind == DIR and not self.is_below(path)
            if is_own and path in self._had_children and path not in used:
                del self.items[path]
            else:
                used.add(parent)

    def resolve(self, path: bytes) -> Item | None:
        """What a path leads to when symbolic links, those above it too, are followed inside the image; None if nowhere."""
        item = self.items.get(self.real(path))
        if item is not None and item.entry.kind != SYM:
            return item
        try:
            return self.items.get(follow(path, self._seen))
        except AerogelError:  # links in a circle
            return None

    def _seen(self, path: bytes) -> Entry | None:
        """What is at a path; the links of a merged `/usr` are there before `merge_usr`."""
        item = self.items.get(path)
        if item is not None:
            return item.entry
        real = self.real(path)
        return None if real == path else Entry(path, SYM, 0o777, link=b"/" + real)

    def read(self, item: Item, offset: int = 0, size: int = -1) -> bytes:
        """Content of a regular file or a hard link, from `offset`, at most `size` bytes (-1: all)."""
        left = max(0, item.entry.size - offset)
        size = left if size < 0 else min(size, left)
        if isinstance(item.content, bytes):
            return item.content[offset : offset + size]
        return os.pread(item.content.fd, size, item.content.offset + offset)

    def ordered(self) -> list[Item]:
        """All items in canonical order, every parent directory present, hard links behind what they link to.

        On an image below: those that differ from it, with the directories above them, and whiteouts for what is gone.
        Raises `distroless.through-link` for a file below something that is no directory, `distroless.file-conflict` for
        something else in the place of a directory that has files.
        """
        changed = [path for path in self.items if not self._is_as_below(path)]
        for path in changed:
            self._check_place(path)
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
        found = {path: self.items[path] for path in changed} | self._whiteouts()
        found |= {parent: self.items[parent] for path in tuple(found) for parent in parents(path)}
        paths = sorted(found, key=lambda path: path.replace(b"/", b"\0"))
        return _with_links_in_order([found[path] for path in paths])

    def _check_place(self, path: bytes) -> None:
        """That nothing hides a directory of the image below."""
        before = self.below.get(path)
        if before is None or before.entry.kind != DIR or self.items[path].entry.kind == DIR:
            return
        if any(each.startswith(path + b"/") for each in self.items):
            raise AerogelError(
                f"`/{shown(path)}` is a directory with files in the image, and something else is to take its place",
                code="distroless.file-conflict",
                hints=["put it elsewhere, or extend another image"],
            )

    def _is_as_below(self, path: bytes) -> bool:
        """Whether the image below has the same thing at a path; times do not count."""
        before, item = self.below.get(path), self.items[path]
        if before is None or before is item:
            return before is item
        if before.entry._replace(mtime=0) != item.entry._replace(mtime=0, xattrs=before.entry.xattrs):
            return False
        return item.entry.kind != REG or self.read(before) == self.read(item)

    def _whiteouts(self) -> dict[bytes, Item]:
        gone = {path for path in self.below if path not in self.items}
        made = {}
        for path in gone:
            folder, _, name = path.rpartition(b"/")
            above = self.items.get(folder)
            if folder not in gone and (above is None or above.entry.kind == DIR):  # else what is there now hides it
                where = b"/".join(filter(None, (folder, WHITEOUT + name)))
                made[where] = Item(Entry(where, REG, 0o644, mtime=self.epoch))
        return made


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
