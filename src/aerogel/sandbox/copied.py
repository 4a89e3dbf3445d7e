"""Root file systems where no overlay can be mounted: the layers copied into one tree, and what a step changed of it.

`build` merges directories in overlay form into a new tree and remembers what each file of it is (inode and time of
change, which no program can set). After the step `harvest` moves what is new or changed into the upper directory, in
overlay form again, so that nobody else sees a difference; the rest of the tree is thrown away. A directory that was
replaced is told by its time of birth.

In these directories a whiteout is a socket, which can be made without any right and is in no layer; a directory that
hides those below has `user.overlay.opaque`. Names of one file in a layer are names of one file in the tree; when it
is changed each name gets a file of its own, as an overlay breaks such links. Standard library only: jobs of the helper.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import marshal
import os
import stat
import struct
from typing import Any

from aerogel.errors import AerogelError
from aerogel.sandbox import bare, inroot, record, syscalls
from aerogel.sandbox.rootfs import remove

__all__ = ["build", "clear", "harvest", "is_whiteout", "layer", "merge"]

_OPAQUE = "user.overlay.opaque"
_MARKS = ("user.overlay.", "trusted.overlay.")
_FICLONE = 0x40049409
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY)
_DEAF = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.ENOSYS)
_STATX_BTIME = 0x800
_CHUNK = 1 << 24
_PLAIN_MODE = 0o755

_Known = tuple[int, int, int, int]
"""Of a path: mode, inode, time of change, and of a directory that of birth."""


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this hides a path of the layers below: as overlayfs has it, or as it is written here."""
    return stat.S_ISSOCK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0)


class _Node:
    """A file of the merged tree: the layer that shows it, and what is in it if it is a directory."""

    __slots__ = ("children", "layer", "status")

    def __init__(self, layer: bytes, status: os.stat_result) -> None:
        self.layer = layer
        self.status = status
        self.children: dict[bytes, _Node] = {}


def build(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Merges `lowers` (lowest first) into the new directory `tree`, and makes the `places` ([target, is_dir]) in it.

    Without lowers `tree` may be there already. Writes what is there then to `baseline`. What `upper` holds already, of a
    step that goes on, is changed in the tree after that. Gives `made`, the paths that were made for places, `real`, where
    the places are, and `over`, whether there was something in `upper`. Raises AerogelError `sandbox.mount-target`, OSError.
    """
    del fds
    tree = args["tree"]
    owners: bare.Owners = {}
    if args["lowers"]:
        merge(args["lowers"], tree, owners=owners)
    made, real = _make_places(tree, args["places"])
    with open(args["baseline"], "wb") as file:
        marshal.dump(_survey(os.fsencode(tree)), file)
    upper = args.get("upper", "")
    over = bool(upper and os.listdir(upper))
    if over:
        _Changer(upper, tree, owners).run()
    if args["bare"]:
        bare.save_owners(args["owners"], owners)
    return {"made": made, "real": real, "over": over}


def layer(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Copies what the path `source` shows in `lowers` to the new path `target`."""
    del fds
    merge(args["lowers"], args["target"], args["source"])
    return {}


def clear(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Removes the empty places that `build` made in `tree`, if nobody put something there."""
    del fds
    tree = os.path.realpath(args["tree"])
    for path in args["made"]:
        place = tree + path
        with contextlib.suppress(OSError):
            if os.path.realpath(os.path.dirname(place)) != os.path.dirname(place):
                continue  # the step put a link there
            status = os.lstat(place)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(place)
            elif not status.st_size:
                os.unlink(place)
    return {}


def merge(lowers: list[str], target: str, source: str = "", owners: bare.Owners | None = None) -> bool:
    """Copies what the path `source` shows in a stack of layers to the new path `target`; whether there is any.

    `owners` gets those of links and fifos that can have none themselves.
    """
    root: _Node | None = None
    for lower in lowers:
        layer = os.fsencode(lower)
        status = os.lstat(layer)
        if root is None:
            root = _Node(layer, status)
        else:
            root.layer, root.status = layer, status
        _merge_directory(root, layer, b"")
    if root is None:
        os.mkdir(target, 0o755)
        return False
    top, path = root, b""
    for part in os.fsencode(source).split(b"/"):
        if part:
            if part not in top.children:
                raise AerogelError(f"`{source}` is not in its layers", code="sandbox.mount-source")
            top, path = top.children[part], (path + b"/" + part if path else part)
    _Copier(owners).copy(top, path, os.fsencode(target))
    return True


class _Changer:
    """Does to a tree what a directory in overlay form says, so that `harvest` finds it among the changes."""

    def __init__(self, upper: str, tree: str, owners: bare.Owners) -> None:
        self._upper = os.fsencode(upper)
        self._tree = os.fsencode(tree)
        self._copier = _Copier(owners)

    def run(self) -> None:
        self._directory(b"", os.lstat(self._upper))

    def _directory(self, path: bytes, status: os.stat_result) -> None:
        source, target = self._upper + path, self._tree + path
        with os.scandir(source) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        for name, each in found:
            child = path + b"/" + name
            place = self._tree + child
            is_merged = stat.S_ISDIR(each.st_mode) and not _is_opaque(self._upper + child) and _is_directory(place)
            if not is_merged and os.path.lexists(place):
                remove(place)
            if is_whiteout(each):
                continue
            if stat.S_ISDIR(each.st_mode):
                if not is_merged:
                    os.mkdir(place, 0o700)
                self._directory(child, each)
            else:
                self._copier.copy(_Node(self._upper, each), child[1:], place)
        with contextlib.suppress(OSError):
            for key in set(os.listxattr(target)) - set(os.listxattr(source)):
                os.removexattr(target, key)
        _copy_attributes(source, target, status)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _merge_directory(node: _Node, layer: bytes, path: bytes) -> None:
    with os.scandir(layer + b"/" + path if path else layer) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    for name, status in found:
        if is_whiteout(status):
            node.children.pop(name, None)
            continue
        below = path + b"/" + name if path else name
        old = node.children.get(name)
        if not stat.S_ISDIR(status.st_mode):
            node.children[name] = _Node(layer, status)
            continue
        if old is None or not stat.S_ISDIR(old.status.st_mode) or _is_opaque(layer + b"/" + below):
            old = node.children[name] = _Node(layer, status)
        old.layer, old.status = layer, status
        _merge_directory(old, layer, below)


def _is_opaque(path: bytes) -> bool:
    for mark in _MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(path, mark + "opaque") == b"y":
                return True
    return False


class _Copier:
    def __init__(self, owners: bare.Owners | None = None) -> None:
        self._clones = True
        self._owners = {} if owners is None else owners
        self._linked: dict[tuple[bytes, int], bytes] = {}
        """Where the first name of a file with several is, by layer and inode."""

    def copy(self, node: _Node, path: bytes, target: bytes) -> None:
        """Copies a file, or a directory with what is in it."""
        source = node.layer + b"/" + path if path else node.layer
        status = node.status
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            first = self._linked.setdefault((node.layer, status.st_ino), target) if status.st_nlink > 1 else target
            if first != target:
                os.link(first, target)
            else:
                self.file(source, target, status)
            return
        if kind == stat.S_IFDIR:
            os.mkdir(target, 0o700)
            for name, child in node.children.items():
                self.copy(child, path + b"/" + name if path else name, target + b"/" + name)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(source), target)
        else:
            os.mknod(target, kind | 0o600, status.st_rdev)
        _copy_attributes(source, target, status)

    def file(self, source: bytes, target: bytes, status: os.stat_result) -> None:
        if not status.st_size and not status.st_mode & 0o111:
            found = record.read(source, status.st_mode, follow=False)
            if stat.S_ISLNK(found.kind) or stat.S_ISFIFO(found.kind):
                self._stood_for(source, target, found, status)
                return
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._content(reading, writing, status.st_size)
                if status.st_uid or status.st_gid:
                    os.fchown(writing, status.st_uid, status.st_gid)
                os.fchmod(writing, stat.S_IMODE(status.st_mode))
                for name in os.listxattr(reading):
                    _copy_xattr(name, os.getxattr(reading, name), writing)
                os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def _stood_for(self, source: bytes, target: bytes, found: record.Record, status: os.stat_result) -> None:
        """Makes the link or fifo that an empty file stands for."""
        if stat.S_ISLNK(found.kind):
            os.symlink(os.getxattr(source, record.LINK), target)
        else:
            os.mkfifo(target, 0o600)
            os.chmod(target, record.real_mode(max(found.mode, 0), is_directory=False))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
        self._owners[os.lstat(target).st_ino] = bare.birth(target), found._replace(kind=0)

    def _content(self, reading: int, writing: int, size: int) -> None:
        if self._clones and size:
            try:
                fcntl.ioctl(writing, _FICLONE, reading)
            except OSError as error:
                if error.errno not in _NO_CLONE:
                    raise
                self._clones = False
            else:
                return
        while size > 0:
            done = os.sendfile(writing, reading, None, min(size, _CHUNK))
            if not done:
                return
            size -= done


def _copy_xattr(name: str, value: bytes, target: int | bytes) -> None:
    if name.startswith(_MARKS):
        return
    with contextlib.suppress(OSError):
        if isinstance(target, int):
            os.setxattr(target, name, value)
        else:
            os.setxattr(target, name, value, follow_symlinks=False)


def _copy_attributes(source: bytes, target: bytes, status: os.stat_result) -> None:
    """Owner, mode, attributes and times of what is no regular file."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _DEAF:
            raise
        names = []
    for name in names:
        _copy_xattr(name, os.getxattr(source, name, follow_symlinks=False), target)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _make_places(tree: str, places: list[list[Any]]) -> tuple[list[str], list[str]]:
    """Makes what is missing of the places; directories above keep their times."""
    made, real = [], []
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for target, is_dir in places:
            found = inroot.find(root, target)
            os.close(found.fd)
            real.append(found.full)
            if not found.missing:
                continue
            if not found.is_dir:
                raise inroot.target_error(target, f"`{found.path}` is a file in the image")
            above = tree + found.path
            times = os.stat(above)
            path = above
            for number, part in enumerate(found.missing):
                path += "/" + part
                made.append(path[len(tree) :])
                if is_dir or number + 1 < len(found.missing):
                    os.mkdir(path, 0o755)
                    os.chmod(path, _PLAIN_MODE)
                else:
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
            os.utime(above, ns=(times.st_atime_ns, times.st_mtime_ns))
    finally:
        os.close(root)
    return made, real


def _survey(tree: bytes) -> dict[bytes, _Known]:
    """What each path of a tree is."""
    known: dict[bytes, _Known] = {b"": _identity(tree, os.lstat(tree))}
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(tree + b"/" + folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                path = folder + b"/" + entry.name if folder else entry.name
                known[path] = _identity(tree + b"/" + path, status)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
    return known


def _identity(path: bytes, status: os.stat_result) -> _Known:
    if not stat.S_ISDIR(status.st_mode):
        return status.st_mode, status.st_ino, status.st_ctime_ns, 0
    data = syscalls.statx_bytes(path, 0x100, _STATX_BTIME)
    seconds, nanoseconds = struct.unpack_from("=qI", data, 80)
    return status.st_mode, status.st_ino, status.st_ctime_ns, seconds * 10**9 + nanoseconds


def harvest(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Moves what changed in `tree` since `baseline` into the directory `upper`, but nothing at or below `exclude`.

    Directories that were `made` for something below them count only if the step wrote into them. With `over` what was in
    `upper` before is part of that, and replaced by it.
    """
    del fds
    upper = args["upper"]
    if args["over"]:
        os.mkdir(f"{upper}.new", 0o700)
        upper += ".new"
    with open(args["baseline"], "rb") as file:
        known = marshal.load(file)  # noqa: S302 - written by `build` in a directory of our own
    exclude = frozenset(os.fsencode(path).strip(b"/") for path in args["exclude"])
    made = frozenset(os.fsencode(path).strip(b"/") for path in args["made"])
    owners = bare.load_owners(args["owners"]) if args["bare"] else {}
    _Harvest(os.fsencode(args["tree"]), os.fsencode(upper), known, exclude, made, owners).run()
    if args["over"]:
        os.rename(args["upper"], f"{upper}.old")
        os.rename(upper, args["upper"])
        remove(f"{upper}.old")
    return {}


class _Harvest:
    def __init__(
        self,
        tree: bytes,
        upper: bytes,
        known: dict[bytes, _Known],
        exclude: frozenset[bytes],
        placeholders: frozenset[bytes],
        owners: bare.Owners,
    ) -> None:
        self._owners = owners
        self._placeholders = placeholders
        self._tree = tree
        self._upper = upper
        self._known = known
        self._exclude = exclude
        self._made: dict[bytes, os.stat_result] = {}
        """Directories of the upper, with what those of the tree were like."""
        self._statuses: dict[bytes, os.stat_result] = {}
        self._below: dict[bytes, list[bytes]] = {}
        self._several: set[int] = set()
        """Inodes that had several names."""
        self._linked: dict[int, list[tuple[bytes, os.stat_result]]] = {}
        """What is to be taken of files with several names, by inode."""
        self._copier = _Copier()

    def run(self) -> None:
        seen: set[int] = set()
        for path, (mode, inode, _, _) in self._known.items():
            if path:
                self._below.setdefault(path.rpartition(b"/")[0], []).append(path)
            if not stat.S_ISDIR(mode):
                (self._several if inode in seen else seen).add(inode)
        self._statuses[b""] = os.lstat(self._tree)
        self._directory(b"", is_new=False)
        self._make_directory(b"")
        for names in self._linked.values():
            self._take_linked(names)
        for path, status in self._made.items():
            self._dress(path, status)

    def _directory(self, path: bytes, *, is_new: bool) -> None:
        here = self._tree + b"/" + path if path else self._tree
        with os.scandir(here) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        present = set()
        for name, status in found:
            child = path + b"/" + name if path else name
            present.add(child)
            if child not in self._exclude:
                self._child(child, status, is_new=is_new)
        if not is_new:
            for child in self._below.get(path, ()):
                if child not in present and child not in self._exclude:
                    self._white_out(child)

    def _child(self, path: bytes, status: os.stat_result, *, is_new: bool) -> None:
        before = None if is_new else self._known.get(path)
        if stat.S_ISDIR(status.st_mode):
            self._statuses[path] = status
            now = _identity(self._tree + b"/" + path, status)
            was_directory = before is not None and stat.S_ISDIR(before[0])
            is_same = was_directory and before is not None and (before[1], before[3]) == (now[1], now[3])
            if now != before and not (is_same and path in self._placeholders):
                self._make_directory(path)
            if was_directory and not is_same:
                os.setxattr(self._upper + b"/" + path, _OPAQUE, b"y")
            self._directory(path, is_new=not is_same)
        elif stat.S_ISSOCK(status.st_mode):
            if before is not None:
                self._white_out(path)
        elif before != (status.st_mode, status.st_ino, status.st_ctime_ns, 0):
            self._make_directory(path.rpartition(b"/")[0])
            source, target = self._tree + b"/" + path, self._upper + b"/" + path
            is_one_of_several = before is not None and before[1] == status.st_ino and status.st_ino in self._several
            owner = self._owner(source, status)
            if owner is not None:
                _stand_in(source, target, owner, status)
            elif is_one_of_several and stat.S_ISREG(status.st_mode):
                self._copier.file(source, target, status)
            elif status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
                self._linked.setdefault(status.st_ino, []).append((path, status))
            else:
                os.rename(source, target)

    def _take_linked(self, names: list[tuple[bytes, os.stat_result]]) -> None:
        """Moves a file with all its names; one that has another in a cache is copied, so that nobody changes it there."""
        first, status = names[0]
        is_shared = status.st_nlink != len(names)
        if is_shared:
            self._copier.file(self._tree + b"/" + first, self._upper + b"/" + first, status)
        for path, _ in names[1:] if is_shared else names:
            if is_shared:
                os.link(self._upper + b"/" + first, self._upper + b"/" + path)
            else:
                os.rename(self._tree + b"/" + path, self._upper + b"/" + path)

    def _owner(self, source: bytes, status: os.stat_result) -> record.Record | None:
        """Of a link or fifo that has one in the table."""
        if not stat.S_ISLNK(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
            return None
        known = self._owners.get(status.st_ino)
        return known[1] if known is not None and known[0] == bare.birth(source) else None

    def _white_out(self, path: bytes) -> None:
        self._make_directory(path.rpartition(b"/")[0])
        os.mknod(self._upper + b"/" + path, stat.S_IFSOCK | 0o600)

    def _make_directory(self, path: bytes) -> None:
        if path in self._made:
            return
        if path:
            self._make_directory(path.rpartition(b"/")[0])
            os.mkdir(self._upper + b"/" + path, 0o700)
        self._made[path] = self._statuses[path]

    def _dress(self, path: bytes, status: os.stat_result) -> None:
        source = self._tree + b"/" + path if path else self._tree
        target = self._upper + b"/" + path if path else self._upper
        _copy_attributes(source, target, status)


def _stand_in(source: bytes, target: bytes, owner: record.Record, status: os.stat_result) -> None:
    """Makes the empty file that a layer has for a link or fifo with an owner (`record`)."""
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        is_link = stat.S_ISLNK(status.st_mode)
        kind, mode = (stat.S_IFLNK, -1) if is_link else (stat.S_IFIFO, owner.mode_of(status.st_mode) & 0o7777)
        record.write(fd, stat.S_IFREG, owner._replace(kind=kind, rdev=(0, 0), mode=mode))
        if is_link:
            os.setxattr(fd, record.LINK, os.readlink(source))
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)
