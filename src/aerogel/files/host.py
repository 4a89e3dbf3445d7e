"""A folder of the host as a tree: the build context, without what its ignore file removes.

Read lazily, a directory at a time, and remembered: the tree is what it was when it was first looked at. Everything is
opened below the folder's own descriptor, no symbolic link on the way is followed. Sockets are left out, since no layer
can hold them. Standard library only.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from bisect import bisect_left
from collections.abc import Hashable, Iterator
from hashlib import sha256
from pathlib import Path

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.files.entry import DIR, REG, SYM, Entry, directory, shown
from aerogel.files.hashing import DigestCache, changed
from aerogel.files.inside import Directories, open_regular
from aerogel.files.listing import Commons, FileStatus, Listing
from aerogel.files.pattern import IgnoreMatcher
from aerogel.files.pyc import HEAD, fits, is_compiled, sources_of
from aerogel.files.tree import Tree
from aerogel.witness import fingerprint, row

__all__ = ["FileStatus", "HostTree"]

_SPLIT = 20_000
"""Names of directories that are kept apart from each other, ready to be looked up."""


class HostTree(Tree):
    """The folder `path`; `title` is what messages call it. Use `close` at the end.

    Raises AerogelError `context.unreadable` for what the user may not read.
    """

    def __init__(
        self,
        path: Path,
        *,
        ignore: IgnoreMatcher | None = None,
        digests: DigestCache | None = None,
        title: str = "build context",
    ) -> None:
        self.path = path
        self.title = title
        self._ignore = ignore
        self._digests = digests
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(os.fsencode(path), error) from error
        # Steps run in parallel on one context, and a kept directory may be closed by the next thing that is opened.
        self._lock = threading.RLock()
        self._directories = Directories(self._fd)
        self._commons = Commons()
        self._listed: dict[bytes, Listing] = {}
        self._split: dict[bytes, list[bytes]] = {}
        self._split_names = 0
        self._began_ns = time.time_ns()

    def close(self) -> None:
        """Closes the folder and saves the digests that were learnt."""
        self._directories.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._digests is not None:
            self._digests.save()

    def lookup(self, path: bytes) -> Entry | None:
        if not path:
            return directory(b"")
        parent, _, name = path.rpartition(b"/")
        if parent and parent not in self._listed:
            above = self.lookup(parent)
            if above is None or above.kind != DIR:
                return None
        number = self._number(parent, name)
        return None if number is None else self._listed[parent].entry(path, name, number)

    def _number(self, parent: bytes, name: bytes) -> int | None:
        """The place of a name in its directory, which is listed if need be."""
        with self._lock:
            names = self._split.get(parent)
            if names is None:
                names = self._list(parent).names()
                if self._split_names + len(names) > _SPLIT:
                    self._split.clear()
                    self._split_names = 0
                self._split[parent] = names
                self._split_names += len(names)
        number = bisect_left(names, name)
        return number if number < len(names) and names[number] == name else None

    def children(self, path: bytes) -> list[bytes]:
        found = self.lookup(path)
        if found is None or found.kind != DIR:
            return []
        return self._list(path).names()

    def walk(self, path: bytes = b"") -> Iterator[Entry]:
        for entry, _ in self.walk_linked(path):
            yield entry

    def walk_linked(self, path: bytes = b"") -> Iterator[tuple[Entry, Hashable | None]]:
        found = self.lookup(path)
        if found is None:
            return
        yield found, self.inode(path) if found.kind == REG else None
        pending = [self._list(path).walk(path + b"/" if path else b"")] if found.kind == DIR else []
        while pending:
            each = next(pending[-1], None)
            if each is None:
                pending.pop()
                continue
            yield each
            inner = each[0]
            if inner.kind == DIR:
                pending.append(self._list(inner.path).walk(inner.path + b"/"))

    def inode(self, path: bytes) -> Hashable | None:
        status = self.status(path) if self.lookup(path) is not None and path else None
        return (status.st_dev, status.st_ino) if status is not None and status.st_nlink > 1 else None

    def small(self, path: bytes) -> bytes | None:
        """A context has no accounts: names are looked up in images."""
        del path
        return None

    def status(self, path: bytes) -> FileStatus:
        """What the kernel said of a path, which was looked at before."""
        parent, _, name = path.rpartition(b"/")
        number = self._number(parent, name)
        if number is None:
            raise KeyError(path)
        return self._listed[parent].status(number)

    def open(self, path: bytes) -> int:
        """A descriptor of a regular file, the caller's to close."""
        try:
            with self._lock:
                return open_regular(self._directories, path)
        except OSError as error:
            raise _unreadable(path, error) from error

    def check_unchanged(self, path: bytes, fd: int) -> None:
        """That the open file is the one whose digest was taken. Raises AerogelError `context.changed`."""
        now = os.fstat(fd)
        if self.status(path)[4:] != (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns):
            raise changed(path)

    def digest(self, path: bytes) -> bytes:
        """The SHA-256 of a file's content; of a compiled file that fits its source, another one than if it did not."""
        if self._digests is None:
            raise AssertionError("the tree has no digests")
        found = self._digests.digest(self.status(path), lambda: self.open(path), path)
        return sha256(b"fits " + found).digest() if is_compiled(path) and self.fits(path) else found

    def fits(self, path: bytes) -> bool:
        """Whether Python would use this compiled file for its source in this tree."""
        source = self.lookup(sources_of(path))
        if source is None or source.kind != REG or self.status(path).st_size < HEAD:
            return False
        fd = self.open(path)
        try:
            return fits(os.pread(fd, HEAD, 0), source.mtime, source.size)
        finally:
            os.close(fd)

    def listings(self) -> tuple[Path, dict[bytes, tuple[bytes, dict[bytes, int]]], int, int]:
        """What `Witness.listed` takes: the directories that were read, and what of them counts."""
        found = {}
        newest_ns = 0
        for path, listing in self._listed.items():
            newest_ns = max(newest_ns, *(each.st_ctime_ns for each in listing.statuses()), 0)
            found[path] = (fingerprint(map(row, listing.names(), listing.statuses())), listing.left_out)
        return self.path, found, newest_ns, self._began_ns

    def explain(self, path: bytes) -> str:
        """Which ignore rule removed the path, or something above it; empty if none did."""
        if self._is_socket(path):
            return "it is a socket, and an image holds none"
        if self._ignore is None:
            return ""
        at = len(path)
        while at > 0:
            rule = self._ignore.rule(path[:at])
            if rule is not None and self._exists(path[:at]):
                return f"`{rule.source.name}` removes it: line {rule.line}, `{rule.text.strip()}`"
            at = path.rfind(b"/", 0, at)
        return ""

    def _is_socket(self, path: bytes) -> bool:
        try:
            return stat.S_ISSOCK(os.stat(path, dir_fd=self._fd, follow_symlinks=False).st_mode)
        except OSError:
            return False

    def _exists(self, path: bytes) -> bool:
        try:
            os.stat(path, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _list(self, path: bytes) -> Listing:
        """A directory without what is ignored."""
        found = self._listed.get(path)
        if found is not None:
            return found
        with self._lock:
            found = self._listed.get(path)
            if found is None:
                found = self._read(path)
                if self._ignore is not None:
                    found = self._filtered(path, found)
                self._listed[path] = found
            return found

    def _read(self, path: bytes) -> Listing:
        """A directory with all that a layer can hold; the rest of it is left out."""
        rows, left_out = [], {}
        make = self._commons.row
        try:
            with os.scandir(self._directories.fd(path)) as listing:
                for each in listing:
                    status = each.stat(follow_symlinks=False)
                    made = make(status)
                    if made is None:
                        left_out[os.fsencode(each.name)] = stat.S_IFMT(status.st_mode)
                    else:
                        rows.append(os.fsencode(each.name) + b"\0" + made)
            rows.sort()
            found = Listing(rows, self._commons)
            found.left_out = left_out
            links = [name for number, name in enumerate(found.names()) if found.kind(number) == SYM]
            if links:
                above = self._directories.fd(path)
                found.links = {name: os.readlink(name, dir_fd=above) for name in links}
        except OSError as error:
            raise _unreadable(path, error) from error
        return found

    def _filtered(self, path: bytes, listing: Listing) -> Listing:
        prefix = path + b"/" if path else b""
        removed = set()
        for number, name in enumerate(listing.names()):
            if not self._is_kept(prefix + name, listing.kind(number)):
                removed.add(number)
                listing.left_out[name] = stat.S_IFMT(listing.status(number).st_mode)
        return listing.without(removed) if removed else listing

    def _is_kept(self, path: bytes, kind: int) -> bool:
        if self._ignore is None or not self._ignore.matches(path):
            return True
        # A removed directory is still there for what an exception keeps below it.
        return kind == DIR and self._ignore.may_except_below(path) and len(self._list(path)) > 0


def _unreadable(path: bytes, error: OSError) -> AerogelError:
    return AerogelError(
        f"`{shown(path)}` cannot be read: {(error.strerror or str(error)).lower()}",
        code="context.unreadable",
        exit_status=EXIT_HOST if error.errno not in (1, 13, 2, 20) else 1,
        hints=["make it readable, or name it in `.dockerignore`"] if error.errno in (1, 13) else [],
    )
