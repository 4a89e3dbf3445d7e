"""Writes a directory as a canonical layer tar: the upper directory of an overlay mount, or a whole tree.

Runs in the sandbox helper, on trees that nobody changes meanwhile. What a layer cannot say (overlayfs redirects,
names that look like whiteouts) is an error and never silently lost. Standard library only.
Spec: OCI image-spec v1.1 layer.md#creating; Linux Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence

from aerogel.errors import AerogelError
from aerogel.files.entry import BLK, CHR, DIR, FIFO, LNK, OPAQUE, REG, SYM, WHITEOUT, Entry, shown
from aerogel.files.index import MARK
from aerogel.files.inside import system_errors
from aerogel.files.tar import TarWriter
from aerogel.sandbox import record

__all__ = ["kept_xattr", "write_diff", "write_tree"]

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OVERLAY = {"trusted": (b"trusted.overlay.",), "user": (b"user.overlay.",)}
_ANY_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
_KINDS = {
    stat.S_IFREG: REG,
    stat.S_IFDIR: DIR,
    stat.S_IFLNK: SYM,
    stat.S_IFCHR: CHR,
    stat.S_IFBLK: BLK,
    stat.S_IFIFO: FIFO,
}
_CHUNK = 1 << 18
_RECORD = record.KEY.encode()
_CAPABILITY = record.CAPABILITY.encode()
_DEAF = (errno.ENOTSUP, errno.ENODATA, errno.ENOSYS)


def kept_xattr(key: bytes) -> bool:
    """Whether a layer keeps the attribute: file capabilities and the user's own, not the host's labels or ACLs."""
    if key.startswith(b"user."):
        return not key.startswith((b"user.overlay.", b"user.aerogel."))
    return key == b"security.capability"


def write_tree(
    write: Callable[[bytes | memoryview], object],
    root_fd: int,
    *,
    epoch: int | None = None,
    exclude: Iterable[bytes] = (),
    recorded: bool = False,
) -> int:
    """Writes everything below the directory; gives the number of entries.

    `epoch` (seconds) is the latest modification time that is written; `exclude` are paths left out with what is
    below them; `recorded` says that owners are written beside the files (`sandbox.record`). Sockets are left out.
    Raises AerogelError `diff.*`, `tar.*`.
    """
    return _Walk(write, root_fd, None, epoch, frozenset(exclude), recorded=recorded).run()


def write_diff(
    write: Callable[[bytes | memoryview], object],
    upper_fd: int,
    lower_fds: Sequence[int],
    *,
    epoch: int | None = None,
    exclude: Iterable[bytes] = (),
    recorded: bool = False,
    copied: bool = False,
    mark: int | None = None,
    overlay: str | None = None,
) -> int:
    """Writes what an overlay's upper directory changes of the lower ones (lowest first); gives the number of entries.

    A directory is written if it differs from the lower one in mode, owner or attributes, or if something below it
    is written; a whiteout only if it hides something; a file only if it is not the same in all that a layer says.
    `copied` says that whiteouts are sockets (`sandbox.copied`). `mark` is noted at the begin, for `LayerIndex.mark`.
    `overlay` says whose attributes are overlayfs's own, `trusted` or `user`: the other ones a program may have set.
    Otherwise as `write_tree`.
    """
    walk = _Walk(
        write, upper_fd, tuple(reversed(lower_fds)), epoch, frozenset(exclude), recorded=recorded, copied=copied
    )
    if overlay is not None:
        walk.use_marks(overlay)
    return walk.run(mark)


class _Directory:
    """A directory of the upper tree whose own entry may still have to be written."""

    __slots__ = ("entry", "lowers", "parent", "written")

    def __init__(self, entry: Entry, lowers: tuple[int, ...], parent: _Directory | None) -> None:
        self.entry = entry
        self.lowers = lowers
        """Those lower directories, topmost first, that show through here."""
        self.parent = parent
        self.written = False


_Item = tuple[bytes, os.stat_result | None, _Directory]
"""Name in the tar's order, what is there (None: a marker of the layer), the directory it is in."""


class _Walk:
    def __init__(
        self,
        write: Callable[[bytes | memoryview], object],
        root_fd: int,
        lowers: tuple[int, ...] | None,
        epoch: int | None,
        exclude: frozenset[bytes],
        *,
        recorded: bool,
        copied: bool = False,
    ) -> None:
        self._copied = copied
        self._recorded = recorded
        self._marks: tuple[bytes, ...] = _ANY_OVERLAY
        self._tar = TarWriter(write)
        self._root = root_fd
        self._overlay = lowers is not None
        self._top = _Directory(Entry(b"", DIR, 0o755), lowers or (), None)
        self._top.written = True
        self._epoch = epoch
        self._exclude = exclude
        self._inodes: dict[tuple[int, int], bytes] = {}
        self._count = 0

    def run(self, mark: int | None = None) -> int:
        if mark is not None:
            self._tar.note(MARK, b"%d" % mark)
        pending = self._children(b"", self._top)
        while pending:
            name, status, parent = pending.pop()
            path = parent.entry.path + b"/" + name if parent.entry.path else name
            if path in self._exclude:
                continue
            with system_errors("read", path, "diff.failed"):
                if status is None:
                    self._emit(Entry(path, REG, 0o644, mtime=self._clamped(0)), parent)
                elif stat.S_ISDIR(status.st_mode):
                    pending += self._directory(path, status, parent)
                else:
                    self._file(path, status, parent)
        self._tar.close()
        return self._count

    def _children(self, path: bytes, directory: _Directory, fd: int | None = None) -> list[_Item]:
        """What is in a directory, last first, with the names that the layer gives them."""
        found: list[_Item] = []
        with system_errors("read", path, "diff.failed"):
            opened = self._open(path) if fd is None else fd
            try:
                with os.scandir(opened) as entries:
                    for each in entries:
                        name = os.fsencode(each.name)
                        status = each.stat(follow_symlinks=False)
                        item = self._item(path, name, status, directory)
                        if item is not None:
                            found.append(item)
            finally:
                if fd is None:
                    os.close(opened)
        found.sort(key=_by_name, reverse=True)
        return found

    def _item(self, path: bytes, name: bytes, status: os.stat_result, directory: _Directory) -> _Item | None:
        if name.startswith(WHITEOUT):
            raise AerogelError(
                f"`/{shown(path + b'/' + name)}` cannot be stored in a layer: names that begin with `.wh.` mean "
                "deleted files there",
                code="diff.whiteout-name",
            )
        if self._overlay and self._hides(status):
            full = path + b"/" + name if path else name
            if self._below(full, directory.lowers) is None:
                return None
            return WHITEOUT + name, None, directory
        return name, status, directory

    def use_marks(self, overlay: str) -> None:
        self._marks = _OVERLAY[overlay]

    def _hides(self, status: os.stat_result) -> bool:
        """Whether this is no file but hides one below."""
        if self._copied:
            return stat.S_ISSOCK(status.st_mode)
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

    def _open(self, path: bytes) -> int:
        # The tree is ours and at rest, and every component above was seen to be a directory.
        return os.open(path or b".", _OPEN_DIR, dir_fd=self._root)

    def _directory(self, path: bytes, status: os.stat_result, parent: _Directory) -> list[_Item]:
        fd = self._open(path)
        try:
            xattrs, marks, owner = self._xattrs(fd, path)
            entry = _owned(self._entry(path, DIR, status, xattrs), owner)
            below = self._below(path, parent.lowers)
            opaque = marks.get(b"opaque") == b"y"
            lowers: tuple[int, ...] = ()
            if below is not None and below[2]:
                lowers = self._lowers(path, parent.lowers)
            directory = _Directory(entry, () if opaque else lowers, parent)
            if below is None or not below[2] or opaque or not self._is_same(entry, below):
                self._need(directory)
            found = self._children(path, directory, fd)
        finally:
            os.close(fd)
        if opaque and lowers:
            found.append((OPAQUE, None, directory))
            found.sort(key=_by_name, reverse=True)
        return found

    def _file(self, path: bytes, status: os.stat_result, parent: _Directory) -> None:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return  # a socket: nobody listens to it any more
        if kind == SYM:
            entry = self._special(path, kind, status)
            self._emit(entry._replace(link=os.readlink(path, dir_fd=self._root)), parent)
        elif kind == REG:
            self._regular(path, status, parent)
        else:
            entry = self._special(path, kind, status)
            rdev = (0, 0) if kind == FIFO else (os.major(status.st_rdev), os.minor(status.st_rdev))
            self._emit(entry._replace(rdev=rdev), parent)

    def _regular(self, path: bytes, status: os.stat_result, parent: _Directory) -> None:
        if status.st_nlink > 1:
            first = self._inodes.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                entry = _owned(self._entry(path, LNK, status, ()), self._record(path, status))
                self._emit(entry._replace(link=first, size=0, rdev=(0, 0)), parent)
                return
        fd = os.open(path, _OPEN_FILE, dir_fd=self._root)
        try:
            xattrs, _, owner = self._xattrs(fd, path)
            entry = _owned(self._entry(path, REG, status, xattrs), owner)
            if self._overlay and status.st_nlink == 1 and self._is_unchanged(entry, status, fd, parent):
                return
            if owner.kind:
                self._emit(_stood_for(entry, owner.kind, fd), parent)
                return
            self._need(parent)
            self._count += 1
            self._tar.file_fd(entry, fd)
        finally:
            os.close(fd)

    def _is_unchanged(self, entry: Entry, status: os.stat_result, fd: int, parent: _Directory) -> bool:
        """Whether the layers below show the same file: overlayfs copies up what is only opened for writing."""
        below = self._below(entry.path, parent.lowers)
        if below is None or below[0].st_mtime_ns != status.st_mtime_ns or below[0].st_mode != status.st_mode:
            return False
        if below[0].st_size != status.st_size:
            return False
        other = os.open(entry.path, _OPEN_FILE, dir_fd=below[1])
        try:
            xattrs, _, owner = self._xattrs(other, entry.path)
            before = _owned(self._entry(entry.path, REG, below[0], xattrs), owner)
            return before == entry and _same_content(fd, other)
        finally:
            os.close(other)
            os.lseek(fd, 0, os.SEEK_SET)

    def _special(self, path: bytes, kind: int, status: os.stat_result) -> Entry:
        """The entry of what cannot be opened to look at its attributes."""
        return _owned(self._entry(path, kind, status, ()), self._record(path, status))

    def _record(self, path: bytes, status: os.stat_result) -> record.Record:
        return record.read_at(self._root, path, status.st_mode) if self._recorded else record.ROOT

    def _entry(self, path: bytes, kind: int, status: os.stat_result, xattrs: tuple[tuple[bytes, bytes], ...]) -> Entry:
        size = status.st_size if kind == REG else 0
        mtime = self._clamped(status.st_mtime_ns // 10**9)
        uid, gid = (0, 0) if self._recorded else (status.st_uid, status.st_gid)
        return Entry(path, kind, status.st_mode & 0o7777, uid, gid, size, mtime, xattrs=xattrs)

    def _clamped(self, mtime: int) -> int:
        return mtime if self._epoch is None else min(mtime, self._epoch)

    def _emit(self, entry: Entry, parent: _Directory) -> None:
        if entry.kind == CHR and entry.rdev == (0, 0):
            # overlayfs itself lets nobody make one; where no overlay is mounted it could be made.
            raise AerogelError(
                f"`/{shown(entry.path)}` cannot be stored in a layer: a character device 0:0 means a deleted file there",
                code="diff.whiteout-device",
            )
        self._need(parent)
        self._count += 1
        self._tar.entry(entry)

    def _need(self, directory: _Directory) -> None:
        """Writes the directory's entry and those above it, unless they are written."""
        missing = []
        at: _Directory | None = directory
        while at is not None and not at.written:
            missing.append(at)
            at = at.parent
        for each in reversed(missing):
            each.written = True
            self._count += 1
            self._tar.entry(each.entry)

    def _xattrs(
        self, fd: int, path: bytes
    ) -> tuple[tuple[tuple[bytes, bytes], ...], dict[bytes, bytes], record.Record]:
        """The attributes that a layer keeps, sorted, overlayfs's marks by their last word, and the recorded owner."""
        names = _names(fd)
        if not names:
            return (), {}, record.ROOT
        kept = []
        marks = {}
        owner = record.ROOT
        for key in names:
            prefix = next((prefix for prefix in self._marks if key.startswith(prefix)), None)
            if prefix is not None and self._overlay:
                marks[key[len(prefix) :]] = os.getxattr(fd, key)
            elif kept_xattr(key):
                kept.append((key, os.getxattr(fd, key)))
            elif self._recorded and key == _CAPABILITY:
                kept.append((b"security.capability", os.getxattr(fd, key)))
            elif self._recorded and key == _RECORD:
                owner = record.parse(os.getxattr(fd, key)) or owner
        for mark in (b"redirect", b"metacopy"):
            if mark in marks:
                raise AerogelError(
                    f"`/{shown(path)}` was stored by overlayfs with `{mark.decode()}`, which a layer cannot express",
                    code="diff.redirect",
                    hints=["the file system was mounted by another program, with `redirect_dir=on` or `metacopy=on`"],
                )
        return tuple(sorted(kept)), marks, owner

    def _below(self, path: bytes, lowers: tuple[int, ...]) -> tuple[os.stat_result, int, bool] | None:
        """What the lower layers show at a path below directories that they share: status, layer, is a directory."""
        for fd in lowers:
            try:
                status = os.lstat(path, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if self._hides(status):
                return None
            return status, fd, stat.S_ISDIR(status.st_mode)
        return None

    def _is_same(self, entry: Entry, below: tuple[os.stat_result, int, bool]) -> bool:
        """Whether the lower directory looks the same: mode, owner and kept attributes; times do not count."""
        status, fd, _ = below
        opened = os.open(entry.path, _OPEN_DIR, dir_fd=fd)
        try:
            kept = sorted((key, os.getxattr(opened, key)) for key in _names(opened) if kept_xattr(key))
            owner = record.read(opened, stat.S_IFDIR) if self._recorded else record.ROOT
        finally:
            os.close(opened)
        ids = (owner.uid, owner.gid) if self._recorded else (status.st_uid, status.st_gid)
        mode = owner.mode_of(status.st_mode) & 0o7777
        return (entry.mode, entry.uid, entry.gid) == (mode, *ids) and tuple(kept) == entry.xattrs

    def _lowers(self, path: bytes, lowers: tuple[int, ...]) -> tuple[int, ...]:
        """The lower layers that show through in a directory: down to the first that hides those below it."""
        found = []
        for fd in lowers:
            try:
                opened = os.open(path, _OPEN_DIR, dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    break
                raise
            try:
                found.append(fd)
                if any(_mark(opened, prefix + b"opaque") == b"y" for prefix in self._marks):
                    break
            finally:
                os.close(opened)
        return tuple(found)


def _by_name(item: _Item) -> bytes:
    return item[0]


def _names(fd: int) -> list[bytes]:
    try:
        return [os.fsencode(name) for name in os.listxattr(fd)]
    except OSError as error:
        if error.errno in _DEAF:
            return []
        raise


def _mark(fd: int, key: bytes) -> bytes:
    try:
        return os.getxattr(fd, key)
    except OSError as error:
        # Without privilege over the file system `trusted.*` does not seem to exist.
        if error.errno in (*_DEAF, errno.EPERM):
            return b""
        raise


def _same_content(one: int, other: int) -> bool:
    while True:
        data = os.read(one, _CHUNK)
        if data != os.read(other, _CHUNK):
            return False
        if not data:
            return True


def _stood_for(entry: Entry, kind: int, fd: int) -> Entry:
    """What an empty file stands for."""
    if stat.S_ISLNK(kind):
        return entry._replace(kind=SYM, size=0, mode=0o777, link=os.getxattr(fd, record.LINK))
    return entry._replace(kind=_KINDS[kind], size=0)


def _owned(entry: Entry, owner: record.Record) -> Entry:
    if owner == record.ROOT:
        return entry
    mode = entry.mode if owner.mode < 0 else owner.mode
    return entry._replace(uid=owner.uid, gid=owner.gid, rdev=owner.rdev, mode=mode)
