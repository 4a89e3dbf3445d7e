"""A folder of the host as a tree: the build context, without what its ignore file removes.

Read lazily, a directory at a time, and remembered: the tree is what it was when it was first looked at. Everything is
opened below the folder's own descriptor, no symbolic link on the way is followed. Sockets are left out, since no layer
can hold them. Standard library only.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import time
from collections.abc import Hashable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.files.entry import BLK, CHR, DIR, FIFO, REG, SYM, Entry, directory, shown
from aerogel.files.hashing import DigestCache, changed
from aerogel.files.inside import Directories, open_regular
from aerogel.files.pattern import IgnoreMatcher
from aerogel.files.pyc import HEAD, fits, is_compiled, sources_of
from aerogel.files.tree import Tree
from aerogel.witness import fingerprint, row

__all__ = ["FileStatus", "HostTree"]

_KINDS = {
    stat.S_IFREG: REG,
    stat.S_IFDIR: DIR,
    stat.S_IFLNK: SYM,
    stat.S_IFCHR: CHR,
    stat.S_IFBLK: BLK,
    stat.S_IFIFO: FIFO,
}


_STATUS = struct.Struct("<IIIIQQQqq")
"""Nine numbers in one object: a context may have hundreds of thousands of files."""


class FileStatus(NamedTuple):
    """What is kept of `os.stat_result`, with its names."""

    st_mode: int
    st_uid: int
    st_gid: int
    st_nlink: int
    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


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
        self._listed: dict[bytes, dict[bytes, Entry]] = {}
        self._status: dict[bytes, bytes] = {}
        self._left_out: dict[bytes, dict[bytes, int]] = {}
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
        parent, _, _ = path.rpartition(b"/")
        if parent and parent not in self._listed:
            above = self.lookup(parent)
            if above is None or above.kind != DIR:
                return None
        return self._list(parent).get(path)

    def children(self, path: bytes) -> list[bytes]:
        found = self.lookup(path)
        if found is None or found.kind != DIR:
            return []
        start = len(path) + 1 if path else 0
        return [each[start:] for each in self._list(path)]

    def walk(self, path: bytes = b"") -> Iterator[Entry]:
        found = self.lookup(path)
        if found is None:
            return
        pending = [found]
        while pending:
            entry = pending.pop()
            yield entry
            if entry.kind == DIR:
                pending += reversed(self._list(entry.path).values())

    def inode(self, path: bytes) -> Hashable | None:
        status = self.status(path) if path in self._status else None
        return (status.st_dev, status.st_ino) if status is not None and status.st_nlink > 1 else None

    def small(self, path: bytes) -> bytes | None:
        """A context has no accounts: names are looked up in images."""
        del path
        return None

    def status(self, path: bytes) -> FileStatus:
        """What the kernel said of a path, which was looked at before."""
        return FileStatus._make(_STATUS.unpack(self._status[path]))

    def open(self, path: bytes) -> int:
        """A descriptor of a regular file, the caller's to close."""
        try:
            with self._lock:
                return open_regular(self._directories, path)
        except OSError as error:
            raise _unreadable(path, error) from error

    def check_unchanged(self, path: bytes, fd: int) -> None:
        """That the open file is the one whose digest was taken. Raises AerogelError `context.changed`."""
        _, _, _, _, *then = _STATUS.unpack(self._status[path])
        now = os.fstat(fd)
        if then != [now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns]:
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
        for path, entries in self._listed.items():
            start = len(path) + 1 if path else 0
            kept = [inner[start:] for inner in entries]
            status = [self.status(inner) for inner in entries]
            newest_ns = max(newest_ns, *(each.st_ctime_ns for each in status), 0)
            found[path] = (fingerprint(map(row, kept, status)), self._left_out[path])
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

    def _list(self, path: bytes) -> dict[bytes, Entry]:
        """The entries of a directory by path, sorted by name, without what is ignored."""
        with self._lock:
            found = self._listed.get(path)
            if found is None:
                kinds, found = self._read(path)
                if self._ignore is not None:
                    found = {inner: entry for inner, entry in found.items() if self._is_kept(inner, entry)}
                prefix = path + b"/" if path else b""
                self._left_out[path] = {name: kind for name, kind in kinds.items() if prefix + name not in found}
                self._listed[path] = found
            return found

    def _read(self, path: bytes) -> tuple[dict[bytes, int], dict[bytes, Entry]]:
        """The kinds (S_IFMT) of all names in a directory, and the entries by path that a layer can hold."""
        try:
            with os.scandir(self._directories.fd(path)) as listing:
                rows = sorted((os.fsencode(each.name), each.stat(follow_symlinks=False)) for each in listing)
        except OSError as error:
            raise _unreadable(path, error) from error
        found = {}
        prefix = path + b"/" if path else b""
        for name, status in rows:
            kind = _KINDS.get(stat.S_IFMT(status.st_mode))
            inner = prefix + name
            if kind is None:
                continue
            found[inner] = self._entry(inner, kind, status)
            self._status[inner] = _STATUS.pack(*map(status.__getattribute__, FileStatus._fields))
        return {name: stat.S_IFMT(status.st_mode) for name, status in rows}, found

    def _is_kept(self, path: bytes, entry: Entry) -> bool:
        if self._ignore is None or not self._ignore.matches(path):
            return True
        # A removed directory is still there for what an exception keeps below it.
        return entry.kind == DIR and self._ignore.may_except_below(path) and bool(self._list(path))

    def _entry(self, path: bytes, kind: int, status: os.stat_result) -> Entry:
        link = b""
        if kind == SYM:
            parent, _, name = path.rpartition(b"/")
            try:
                link = os.readlink(name, dir_fd=self._directories.fd(parent))
            except OSError as error:
                raise _unreadable(path, error) from error
        rdev = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in (CHR, BLK) else (0, 0)
        return Entry(
            path,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_size if kind == REG else 0,
            status.st_mtime_ns // 10**9,
            link,
            rdev,
        )


def _unreadable(path: bytes, error: OSError) -> AerogelError:
    return AerogelError(
        f"`{shown(path)}` cannot be read: {(error.strerror or str(error)).lower()}",
        code="context.unreadable",
        exit_status=EXIT_HOST if error.errno not in (1, 13, 2, 20) else 1,
        hints=["make it readable, or name it in `.dockerignore`"] if error.errno in (1, 13) else [],
    )
