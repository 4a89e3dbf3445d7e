"""The names of a directory of the host with what the kernel said of each, in little memory.

A context may have hundreds of thousands of files: a directory is two byte strings, not an object for each file.
Standard library only.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from aerogel.files.entry import BLK, CHR, DIR, FIFO, REG, SYM, Entry

__all__ = ["Commons", "FileStatus", "Listing"]

_KINDS = {
    stat.S_IFREG: REG,
    stat.S_IFDIR: DIR,
    stat.S_IFLNK: SYM,
    stat.S_IFCHR: CHR,
    stat.S_IFBLK: BLK,
    stat.S_IFIFO: FIFO,
}

_ROW = struct.Struct("<IQQqq")
"""The number of what the file has in common with others; inode, size, mtime and ctime in nanoseconds."""


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


class _Common(NamedTuple):
    """What many files have alike."""

    mode: int
    uid: int
    gid: int
    links: int
    device: int
    kind: int
    rdev: tuple[int, int]


class Commons:
    """What many files of one tree have alike, each once. The tree's lock guards it."""

    __slots__ = ("_numbers", "all")

    def __init__(self) -> None:
        self.all: list[_Common] = []
        self._numbers: dict[_Common, int] = {}

    def row(self, status: os.stat_result) -> bytes | None:
        """The state of a file as a `Listing` keeps it; None for a socket, which no layer can hold."""
        mode = status.st_mode
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            return None
        rdev = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in (CHR, BLK) else (0, 0)
        common = _Common(mode, status.st_uid, status.st_gid, status.st_nlink, status.st_dev, kind, rdev)
        number = self._numbers.get(common)
        if number is None:
            number = self._numbers[common] = len(self.all)
            self.all.append(common)
        return _ROW.pack(number, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Listing:
    """A directory: names in their order, and by their number in it what each is.

    `left_out` are the names that do not count, with their kinds (S_IFMT).
    """

    __slots__ = ("_commons", "_names", "_rows", "left_out", "links")

    def __init__(self, found: Iterable[bytes], commons: Commons) -> None:
        """`found` are sorted: a name, a zero byte, and the row that `commons` made."""
        names, rows = [], []
        for each in found:
            names.append(each[: -_ROW.size - 1])
            rows.append(each[-_ROW.size :])
        self._names = b"/".join(names)
        self._rows = b"".join(rows)
        self._commons = commons
        self.left_out: dict[bytes, int] = {}
        self.links: dict[bytes, bytes] | None = None
        """The targets of symbolic links by name, if there are any."""

    def __len__(self) -> int:
        return len(self._rows) // _ROW.size

    def names(self) -> list[bytes]:
        """The names, sorted."""
        return self._names.split(b"/") if self._rows else []

    def kind(self, number: int) -> int:
        """The kind of an entry."""
        at: int = _ROW.unpack_from(self._rows, number * _ROW.size)[0]
        return self._commons.all[at].kind

    def entry(self, path: bytes, name: bytes, number: int) -> Entry:
        """The entry of a name, with this path."""
        return self._entry(path, name, *_ROW.unpack_from(self._rows, number * _ROW.size))

    def _entry(self, path: bytes, name: bytes, at: int, ino: int, size: int, mtime_ns: int, _: int) -> Entry:
        del ino
        common = self._commons.all[at]
        kind = common.kind
        link = self.links[name] if kind == SYM and self.links is not None else b""
        size = size if kind == REG else 0
        mode = common.mode & 0o7777
        return Entry(path, kind, mode, common.uid, common.gid, size, mtime_ns // 10**9, link, common.rdev)

    def status(self, number: int) -> FileStatus:
        """What the kernel said."""
        at, *rest = _ROW.unpack_from(self._rows, number * _ROW.size)
        return FileStatus(*self._commons.all[at][:5], *rest)

    def statuses(self) -> Iterator[FileStatus]:
        """The same of each, in order."""
        for at, *rest in _ROW.iter_unpack(self._rows):
            yield FileStatus(*self._commons.all[at][:5], *rest)

    def walk(self, prefix: bytes) -> Iterator[tuple[Entry, tuple[int, int] | None]]:
        """The entries, and the device and inode of those regular files that may have another name."""
        commons = self._commons.all
        for name, (at, ino, *rest) in zip(self.names(), _ROW.iter_unpack(self._rows), strict=True):
            common = commons[at]
            inode = (common.device, ino) if common.links > 1 and common.kind == REG else None
            yield self._entry(prefix + name, name, at, ino, *rest), inode

    def without(self, numbers: set[int]) -> Listing:
        """The listing without some of its names."""
        size = _ROW.size
        rows = (self._rows[at : at + size] for at in range(0, len(self._rows), size))
        pairs = enumerate(zip(self.names(), rows, strict=True))
        kept = Listing((name + b"\0" + row for number, (name, row) in pairs if number not in numbers), self._commons)
        kept.left_out, kept.links = self.left_out, self.links
        return kept
