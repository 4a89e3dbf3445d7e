"""Unpacks a layer tar below a directory, as a plain tree or as a lower directory of overlayfs, whatever it holds.

The tar is not trusted: nothing is written outside the directory, nothing is written through a link that leads out,
marks of overlayfs in it are refused or dropped. Whiteouts delete (plain) or become overlayfs's own marks. Runs in
the sandbox helper, where mapped owners and file capabilities are visible. Standard library only.
Spec: OCI image-spec v1.1 layer.md#applying-changesets; Linux Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.files.entry import BLK, CHR, DIR, FIFO, KIND_NAMES, LNK, OPAQUE, REG, SYM, WHITEOUT, Entry, parents, shown
from aerogel.files.inside import Directories, remove_tree, system_errors
from aerogel.files.tar import CHUNK, Content, Readable, read_entries
from aerogel.sandbox import record

__all__ = ["Extracted", "Overlay", "extract"]

Overlay = Literal["trusted", "user"]
"""Which extended attributes overlayfs was mounted to use: `trusted.overlay.*` or `user.overlay.*`."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_XATTRS = (b"trusted.overlay.", b"user.overlay.", b"user.aerogel.")
_WHITEOUT_DEVICE = os.makedev(0, 0)
_MAX_ID = (1 << 32) - 2
_MAX_TIME = 1 << 40


class Extracted(NamedTuple):
    """What was done: entries of the tar, bytes of content, attributes that the file system or kernel refused."""

    entries: int
    size: int
    dropped_xattrs: int


def extract(
    stream: Readable,
    root_fd: int,
    overlay: Overlay | None = None,
    *,
    change: Callable[[Entry], Entry | None] | None = None,
    recorded: bool = False,
    copied: bool = False,
    bare: bool = False,
) -> Extracted:
    """Unpacks the tar below the directory and reads the stream to its end.

    Without `overlay`, the directory may hold lower layers already and whiteouts delete from them; with it, the
    directory is the empty one of this layer. `change` gives each entry as it is to be made, None to leave it
    out. With `recorded` owners and devices are written beside the files (`sandbox.record`) instead of given to them.
    With `copied` whiteouts of an overlay directory are sockets (`sandbox.copied`). With `bare` modes and capabilities
    are written beside the files too, of which each can be read by its owner. Raises AerogelError `tar.*` and
    `extract.*`.
    """
    with Directories(root_fd, follow=overlay is None) as directories:
        extractor = _Extractor(root_fd, directories, overlay, recorded=recorded, copied=copied, bare=bare)
        for entry, content in read_entries(stream):
            changed = entry if change is None else change(entry)
            if changed is not None:
                extractor.take(changed, content)
        extractor.finish()
    while stream.read(CHUNK):
        pass
    return Extracted(extractor.entries, extractor.size, extractor.dropped)


class _Extractor:
    def __init__(
        self,
        root_fd: int,
        directories: Directories,
        overlay: Overlay | None,
        *,
        recorded: bool,
        copied: bool,
        bare: bool,
    ) -> None:
        self._bare = bare
        self._whiteout = stat.S_IFSOCK | 0o600 if copied else stat.S_IFCHR
        self._recorded = recorded
        self._root = root_fd
        self._directories = directories
        self._overlay = overlay
        self._written: set[bytes] = set()
        self._above: set[bytes] = {b""}
        """The directories above what is written."""
        self._marks: set[bytes] = set()
        """Paths where this layer put a whiteout mark of overlayfs."""
        self._times: dict[bytes, int] = {}
        """Modification time of directories: set at the end, since writing into them changes it."""
        self.entries = 0
        self.size = 0
        self.dropped = 0

    def take(self, entry: Entry, content: Content) -> None:
        self.entries += 1
        path = entry.path
        if not path:
            # The root's own mode and owner belong to whoever made the directory.
            return
        parent, _, name = path.rpartition(b"/")
        with system_errors("unpack", path, "extract.failed"):
            if name.startswith(WHITEOUT):
                self._white_out(parent, name)
                return
            self._show(parent)
            fd = self._directories.fd(parent, make=True)
            real = self._directories.real(parent)
            if real != parent:
                # A symbolic link is on the way, inside the root: from here on the place counts, not the name.
                parent = real
                path = real + b"/" + name if real else name
                entry = entry._replace(path=path)
            self._note(path, parent)
            if entry.kind == REG:
                self._file(fd, name, entry, content)
            elif entry.kind == DIR:
                self._directory(fd, name, entry)
            else:
                self._other(fd, name, entry)

    def _show(self, path: bytes) -> None:
        """Makes a directory of a whiteout mark that is in the way: the layer hides a path and has something below it."""
        if not self._marks:
            return
        for each in (*parents(path), path):
            if each in self._marks:
                self._set_opaque(each)

    def _note(self, path: bytes, parent: bytes) -> None:
        self._written.add(path)
        while parent not in self._above:
            self._above.add(parent)
            parent = parent.rpartition(b"/")[0]

    def finish(self) -> None:
        for path, mtime in self._times.items():
            with system_errors("set the time of", path, "extract.failed"):
                os.utime(self._directories.fd(path), ns=_times(mtime))

    def _file(self, dir_fd: int, name: bytes, entry: Entry, content: Content) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            dir_fd = self._clear(entry.path)
            fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
        try:
            content.copy_to(fd)
            self._attributes(fd, entry)
            os.utime(fd, ns=_times(entry.mtime))
        finally:
            os.close(fd)
        self.size += entry.size

    def _directory(self, dir_fd: int, name: bytes, entry: Entry) -> None:
        opaque = False
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            if entry.path in self._marks or not stat.S_ISDIR(os.lstat(name, dir_fd=dir_fd).st_mode):
                opaque = entry.path in self._marks
                dir_fd = self._clear(entry.path)
                os.mkdir(name, 0o700, dir_fd=dir_fd)
        fd = self._directories.fd(entry.path)
        self._attributes(fd, entry)
        if opaque:
            self._set_opaque(entry.path)
        self._times[entry.path] = entry.mtime

    def _other(self, dir_fd: int, name: bytes, entry: Entry) -> None:
        if self._bare and entry.kind in (SYM, FIFO) and (entry.uid or entry.gid or entry.kind == FIFO):
            self._stand_in(dir_fd, name, entry)
            return
        make = self._link if entry.kind == LNK else _symlink if entry.kind == SYM else self._node
        try:
            make(dir_fd, name, entry)
        except FileExistsError:
            if entry.kind == LNK and self._is_same(dir_fd, name, entry):
                return
            dir_fd = self._clear(entry.path)
            make(dir_fd, name, entry)
        if entry.kind == LNK:
            return
        if self._recorded:
            if not self._is_placeholder(entry) and max(entry.uid, entry.gid):
                path = b"/proc/self/fd/%d/%b" % (dir_fd, name)
                record.write(path, stat.S_IFLNK, record.Record(*_owner(entry)), follow=False)
        else:
            with _mapped(entry):
                os.chown(name, *_owner(entry), dir_fd=dir_fd, follow_symlinks=False)
        if entry.kind != SYM:
            os.chmod(name, entry.mode, dir_fd=dir_fd)
        for key, value in entry.xattrs:
            path = b"/proc/self/fd/%d/%b" % (dir_fd, name)
            self._xattr(path, key, value, follow=False)
        os.utime(name, ns=_times(entry.mtime), dir_fd=dir_fd, follow_symlinks=False)

    def _stand_in(self, dir_fd: int, name: bytes, entry: Entry) -> None:
        """An empty file for what cannot have an owner."""
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            fd = os.open(name, _CREATE, 0o600, dir_fd=self._clear(entry.path))
        try:
            kind, mode = (stat.S_IFLNK, -1) if entry.kind == SYM else (stat.S_IFIFO, entry.mode)
            record.write(fd, stat.S_IFREG, record.Record(*_owner(entry), kind, mode=mode))
            if entry.kind == SYM:
                os.setxattr(fd, record.LINK, entry.link)
            os.utime(fd, ns=_times(entry.mtime))
        finally:
            os.close(fd)

    def _link(self, dir_fd: int, name: bytes, entry: Entry) -> None:
        parent, _, target = entry.link.rpartition(b"/")
        # The descriptor of `dir_fd` may be dropped by asking for another directory.
        here = os.dup(dir_fd)
        try:
            os.link(target, name, src_dir_fd=self._directories.fd(parent), dst_dir_fd=here, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise AerogelError(
                f"layer has `/{shown(entry.path)}` as a hard link to `/{shown(entry.link)}`, "
                + ("which is a directory" if isinstance(error, PermissionError) else "which is not in the layer"),
                code="extract.hard-link",
            ) from error
        finally:
            os.close(here)

    def _is_same(self, dir_fd: int, name: bytes, entry: Entry) -> bool:
        """Whether a hard link is there already: removing it to make it again could remove its own target."""
        if entry.link == entry.path:
            return True
        here = os.lstat(name, dir_fd=dir_fd)
        parent, _, target = entry.link.rpartition(b"/")
        try:
            there = os.lstat(target, dir_fd=self._directories.fd(parent))
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def _node(self, dir_fd: int, name: bytes, entry: Entry) -> None:
        if entry.kind == FIFO:
            os.mkfifo(name, 0o600, dir_fd=dir_fd)
            return
        if entry.rdev == (0, 0) and entry.kind == CHR:
            raise AerogelError(
                f"layer has `/{shown(entry.path)}` as a character device 0:0, which hides files when layers are "
                "stacked and belongs in no layer",
                code="extract.device",
            )
        kind = stat.S_IFBLK if entry.kind == BLK else stat.S_IFCHR
        if self._recorded:
            fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
            try:
                record.write(fd, stat.S_IFREG, record.Record(*_owner(entry), kind, entry.rdev))
            finally:
                os.close(fd)
            return
        try:
            os.mknod(name, kind | 0o600, os.makedev(*entry.rdev), dir_fd=dir_fd)
        except (PermissionError, OverflowError) as error:
            raise AerogelError(
                f"layer has `/{shown(entry.path)}` as a {KIND_NAMES[entry.kind]} {entry.rdev[0]}:{entry.rdev[1]}, "
                "which cannot be made without real root",
                code="extract.device",
                hints=["a device in an image is of no use: containers get their own `/dev`; remove it from the layer"],
                exit_status=EXIT_HOST,
            ) from error

    @staticmethod
    def _is_placeholder(entry: Entry) -> bool:
        """Whether the entry is an empty file where owners are recorded, and has its record."""
        return entry.kind in (CHR, BLK)

    def _attributes(self, fd: int, entry: Entry) -> None:
        """Owner, mode and attributes, in the order in which none undoes another: chown clears set-id bits."""
        if self._bare:
            record.dress(
                fd, stat.S_IFDIR if entry.kind == DIR else stat.S_IFREG, record.Record(*_owner(entry)), entry.mode
            )
        elif self._recorded:
            # a directory may have one of a lower layer
            if entry.uid or entry.gid or entry.kind == DIR:
                record.write(fd, stat.S_IFDIR, record.Record(*_owner(entry)))
        else:
            with _mapped(entry):
                os.fchown(fd, *_owner(entry))
        if not self._bare:
            os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs:
            self._xattr(fd, key, value)

    def _xattr(self, where: int | bytes, key: bytes, value: bytes, *, follow: bool = True) -> None:
        if key.startswith(_OWN_XATTRS):
            # Only overlayfs and we write these: a layer that brings them wants to be mistaken for something else.
            self.dropped += 1
            return
        if self._bare and key == b"security.capability":
            key = record.CAPABILITY.encode()
        try:
            if isinstance(where, int):
                os.setxattr(where, key, value)
            else:
                os.setxattr(where, key, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.dropped += 1

    def _clear(self, path: bytes) -> int:
        """Removes what is in the way, made by a lower layer or by an earlier entry; gives the parent's descriptor."""
        parent, _, name = path.rpartition(b"/")
        fd = self._directories.fd(parent)
        self._marks.discard(path)
        if stat.S_ISREG(os.lstat(name, dir_fd=fd).st_mode):
            os.unlink(name, dir_fd=fd)
            return fd
        # A directory or a link that goes may be part of what other kept paths mean.
        self._remove(fd, name)
        below = path + b"/"
        for known in [known for known in self._times if known == path or known.startswith(below)]:
            del self._times[known]
        return self._directories.fd(parent)

    def _remove(self, dir_fd: int, name: bytes) -> None:
        here = os.dup(dir_fd)
        self._directories.close()
        try:
            remove_tree(name, here)
        finally:
            os.close(here)

    def _white_out(self, parent: bytes, name: bytes) -> None:
        with suppress(OSError):
            self._directories.fd(parent)
            parent = self._directories.real(parent)
        if name == OPAQUE:
            self._opaque(parent)
            return
        hidden = name[len(WHITEOUT) :]
        path = parent + b"/" + hidden if parent else hidden
        if hidden in (b"", b".", b".."):
            raise AerogelError(f"layer has the whiteout `/{shown(path)}` of nothing", code="extract.whiteout")
        if path in self._written:
            # The layer brings this path itself: only what lower layers have below it is hidden.
            self._opaque(path, only_directories=True)
            return
        if self._overlay is None:
            self._delete(parent, hidden, path)
            return
        fd = self._directories.fd(parent, make=True)
        try:
            os.mknod(hidden, self._whiteout, _WHITEOUT_DEVICE, dir_fd=fd)
        except FileExistsError:
            # A directory that an entry below made without having one of its own.
            self._opaque(path, only_directories=True)
            return
        self._marks.add(path)

    def _delete(self, parent: bytes, name: bytes, path: bytes) -> None:
        if path in self._above:
            self._opaque(path)
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            self._remove(self._directories.fd(parent), name)

    def _opaque(self, path: bytes, *, only_directories: bool = False) -> None:
        """Hides everything that lower layers have in a directory."""
        if self._overlay is not None:
            if only_directories and not self._is_directory(path):
                return
            self._set_opaque(path)
            return
        try:
            here = os.dup(self._directories.fd(path))
        except OSError:
            return
        try:
            self._sweep(here, path)
        finally:
            os.close(here)

    def _sweep(self, top_fd: int, top: bytes) -> None:
        """Removes from a plain directory what this layer did not write."""
        self._directories.close()
        pending = [(top_fd, top)]
        while pending:
            fd, path = pending.pop()
            for name in os.listdir(fd):
                child = os.fsencode(name)
                full = path + b"/" + child if path else child
                if full not in self._written and full not in self._above:
                    remove_tree(child, fd)
                elif stat.S_ISDIR(os.lstat(child, dir_fd=fd).st_mode):
                    below = os.open(child, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                    pending.append((below, full))
            if fd != top_fd:
                os.close(fd)

    def _is_directory(self, path: bytes) -> bool:
        parent, _, name = path.rpartition(b"/")
        return stat.S_ISDIR(os.lstat(name, dir_fd=self._directories.fd(parent)).st_mode)

    def _set_opaque(self, path: bytes) -> None:
        if not path:
            raise AerogelError(
                "layer hides the whole tree below it at once, which overlayfs has no mark for",
                code="extract.opaque-root",
            )
        parent, _, name = path.rpartition(b"/")
        if path in self._marks:
            self._marks.discard(path)
            os.unlink(name, dir_fd=self._directories.fd(parent))
        fd = self._directories.fd(path, make=True)
        os.setxattr(fd, f"{self._overlay}.overlay.opaque", b"y")


def _symlink(dir_fd: int, name: bytes, entry: Entry) -> None:
    os.symlink(entry.link, name, dir_fd=dir_fd)


def _times(mtime: int) -> tuple[int, int]:
    """Access and modification time in nanoseconds, within what the system call takes; the kernel cuts further."""
    time_ns = max(-_MAX_TIME, min(mtime, _MAX_TIME)) * 10**9
    return time_ns, time_ns


def _owner(entry: Entry) -> tuple[int, int]:
    if max(entry.uid, entry.gid) > _MAX_ID:
        raise _unmapped(entry)
    return entry.uid, entry.gid


@contextmanager
def _mapped(entry: Entry) -> Iterator[None]:
    """Round a chown: the kernel says EINVAL for ids that the user namespace does not map."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise _unmapped(entry) from error
        raise


def _unmapped(entry: Entry) -> AerogelError:
    return AerogelError(
        f"layer has `/{shown(entry.path)}` with owner {entry.uid}:{entry.gid}, which this user namespace has no ids for",
        code="extract.owner",
        hints=["give the user a larger range in `/etc/subuid` and `/etc/subgid`, or build as root"],
        exit_status=EXIT_HOST,
    )
