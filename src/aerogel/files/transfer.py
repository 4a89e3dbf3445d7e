"""A file or a directory as a stream, from one root file system to another: what `aerogel cp` sends.

The stream is a head (four bytes of length, then JSON: `name`, `kind` as a tar's type flag, `mode`, `uid`, `gid`,
`mtime`), a tar: of what is in a directory, by names relative to it, or of the one file, and a mark that nothing is
missing. What is new gets its name when that has come, so a copy that fails leaves nothing. Both sides work
below the root of their process, which in a sandbox is that of the container, so no link leads out of it; where nobody may
change the root directory, below the tree `root`, in which links are looked up by hand. Standard library only: part of the helper's file jobs. Spec: `docker cp` reference.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import secrets
import stat
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from aerogel.errors import AerogelError
from aerogel.files.diff import write_tree
from aerogel.files.entry import BLK, CHR, DIR, FIFO, REG, SYM, WHITEOUT, Entry, shown
from aerogel.files.extract import extract
from aerogel.files.inside import remove_tree, system_errors
from aerogel.files.tar import CHUNK, TarWriter
from aerogel.sandbox import inroot, record
from aerogel.sandbox.accounts import find_account

__all__ = ["Head", "pack", "read_head", "unpack"]

_LENGTH = struct.Struct(">I")
_LONGEST_HEAD = 1 << 16
_END = b"complete"
_KINDS = {
    stat.S_IFREG: REG,
    stat.S_IFDIR: DIR,
    stat.S_IFLNK: SYM,
    stat.S_IFCHR: CHR,
    stat.S_IFBLK: BLK,
    stat.S_IFIFO: FIFO,
}


class Head(NamedTuple):
    """What the stream is of. `name` is the last part of its path, empty for the root."""

    name: str
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int


class _Reader:
    """An unbuffered stream of a descriptor, which stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last = b""

    def read(self, size: int, /) -> bytes:
        data = os.read(self._fd, size)
        self._last = (self._last + data)[-len(_END) :] if len(data) < len(_END) else data[-len(_END) :]
        return data

    def check_end(self) -> None:
        """Raises `cp.stream` when something is missing."""
        if self._last != _END:
            raise AerogelError("the other side ended before all was copied", code="cp.stream")


class _Root:
    """Where the paths of a job begin: the root of this process, or a tree with folders `binds` ([source, target]) in it."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.tree: str = args.get("root") or ""
        self._binds: list[list[str]] = args.get("binds") or []

    def real(self, path: str, *, follow: bool = True) -> str:
        """The path as this process can use it; in a tree without links, but for the last part without `follow`."""
        path = _clean(path)
        if not self.tree:
            return path
        parent, name = posixpath.split(path)
        full = _found(self.tree, path) if follow or not name else posixpath.join(_found(self.tree, parent) or "/", name)
        for source, target in self._binds:
            if full == target or full.startswith(target + "/"):
                return _Root({"root": source}).real(full[len(target) :], follow=follow)
        return self.tree + full

    def shown(self, path: str) -> str:
        """A path of `real` as the container has it."""
        return path.removeprefix(self.tree) if self.tree else path


def _found(tree: str, path: str) -> str:
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = inroot.find(root, path)
    except AerogelError:
        raise AerogelError(f"there is no `{path}`", code="cp.no-such-path") from None
    finally:
        os.close(root)
    os.close(found.fd)
    return found.full


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def read_head(fd: int) -> Head | None:
    """The head of a stream; None when it ends before, because of a fault at the other side. Raises `cp.stream`.

    Nothing of it is believed: the other side may be a container's.
    """
    size = _exactly(fd, _LENGTH.size)
    if not size:
        return None
    length = _LENGTH.unpack(size)[0]
    data = _exactly(fd, length) if length <= _LONGEST_HEAD else b"-"
    if not data:
        return None
    try:
        head = Head(**json.loads(data))
    except (ValueError, TypeError):
        head = None
    if head is None or not _is_sound(head):
        raise AerogelError("what the other side sends cannot be copied: its head is not one", code="cp.stream")
    return head


def _is_sound(head: Head) -> bool:
    name, *numbers = head
    if not isinstance(name, str) or not all(isinstance(each, int) for each in numbers):
        return False
    return not (set(name) & {"/", "\0"} or name in (".", "..") or head.kind not in _KINDS.values())


def _exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            return b""
        data += part
    return data


def pack(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Writes what is at `path` to `fds[1]`; `follow` says that a link is what it leads to.

    `recorded`, which every job may be told, as in `diff.write_tree`. Raises AerogelError `cp.no-such-path`, `cp.kind`,
    `diff.*`, `tar.changed`.
    """
    name, recorded = args["path"], bool(args.get("recorded"))
    root = _Root(args)
    try:
        path = root.real(name, follow=bool(root.tree and args.get("follow")))
        if args.get("follow") and not root.tree:
            path = os.path.realpath(path)
        status = os.lstat(path)
        if name.endswith(("/", "/.")) and stat.S_ISLNK(status.st_mode):
            path = root.real(name)
            status = os.stat(path)
        if name.endswith(("/", "/.")) and not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError
    except (FileNotFoundError, NotADirectoryError):
        raise AerogelError(f"there is no `{name}`", code="cp.no-such-path") from None
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise AerogelError(f"`{name}` is a socket, which cannot be copied", code="cp.kind")
    owner = record.read(path, status.st_mode, follow=False) if recorded else record.Record(status.st_uid, status.st_gid)
    called = posixpath.basename(_clean(name) if root.tree else path)
    mode = stat.S_IMODE(owner.mode_of(status.st_mode))
    head = Head(called, kind, mode, owner.uid, owner.gid, int(status.st_mtime))
    with contextlib.suppress(BrokenPipeError):  # who reads has said why
        _write(fds[1], path, head, status, recorded=recorded)
    return {}


def _write(fd: int, path: str, head: Head, status: os.stat_result, *, recorded: bool) -> None:
    out = io.BufferedWriter(io.FileIO(fd, "wb", closefd=False), CHUNK)
    data = json.dumps(head._asdict()).encode("ascii")
    try:
        out.write(_LENGTH.pack(len(data)) + data)
        if head.kind == DIR:
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                write_tree(out.write, root, recorded=recorded)
            finally:
                os.close(root)
        else:
            _write_one(out.write, path, head, status)
        out.write(_END)
        out.flush()
    finally:
        with contextlib.suppress(OSError, ValueError):  # what could not be written must not be tried again
            out.detach()


def _write_one(write: Callable[[bytes | memoryview], object], path: str, head: Head, status: os.stat_result) -> None:
    writer = TarWriter(write)
    entry = Entry(os.fsencode(head.name), head.kind, head.mode, head.uid, head.gid, mtime=head.mtime)
    if head.kind == REG:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            writer.file_fd(entry._replace(size=os.fstat(fd).st_size), fd)
        finally:
            os.close(fd)
    elif head.kind == SYM:
        writer.entry(entry._replace(link=os.fsencode(os.readlink(path))))
    elif head.kind == FIFO:
        writer.entry(entry)
    else:
        writer.entry(entry._replace(rdev=(os.major(status.st_rdev), os.minor(status.st_rdev))))
    writer.close()


def unpack(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Writes the stream of `fds[0]` to `path`, as `docker cp` places it.

    `contents` copies what is in a directory, not itself. `owner` is [uid, gid] of everything, or `user` (Docker's form)
    names them; without, they are what the stream says; `dress` gives a directory that is there the attributes of the
    one that is copied; `plain`, for this host, refuses devices and leaves
    attributes and set-id bits out. `raw` says that the stream has no head and is a tar
    to be unpacked in the directory `path`. Raises AerogelError `cp.*`, `extract.*`, `tar.*`.
    """
    wanted, root = args["path"], _Root(args)
    if args.get("user") is not None:
        args = {**args, "owner": _ids_of(args["user"], root.tree)}
    change = _changer(args)
    if args.get("raw"):
        target = root.real(wanted)
        if not os.path.isdir(target):
            raise AerogelError(f"`{wanted}` is not a directory", code="cp.no-directory")
        _extract(target, fds[0], change, args, is_raw=True)
        return {}
    head = read_head(fds[0])
    if head is None:
        return {}
    if head.kind != DIR:
        _unpack_file(_place_of_file(wanted, head, root), fds[0], change, args)
        return {}
    place = _place_of_directory(wanted, head, root, contents=bool(args.get("contents")))
    if os.path.isdir(place):
        _extract(place, fds[0], change, args)
        if args.get("dress"):
            _dress(place, head, args)
        return {}
    folder, name = posixpath.split(place)
    with _made_aside(folder, name, root) as aside:
        os.mkdir(aside, 0o700)
        _extract(aside, fds[0], change, args)
        _dress(aside, head, args)
    return {}


def _unpack_file(place: str, fd: int, change: Callable[[Entry], Entry | None], args: dict[str, Any]) -> None:
    folder, name = posixpath.split(place)
    with _made_aside(folder, name, _Root(args)) as aside:

        def renamed(entry: Entry) -> Entry | None:
            found = change(entry._replace(path=os.fsencode(name)))
            if found is not None:
                _refuse_other_kind(folder, found)
                found = found._replace(path=os.fsencode(posixpath.basename(aside)))
            return found

        _extract(folder, fd, renamed, args)


@contextlib.contextmanager
def _made_aside(folder: str, name: str, root: _Root) -> Iterator[str]:
    """A new path in the folder, which gets the name when the block ends well, and is removed when it does not."""
    aside = posixpath.join(folder, f".aerogel-{secrets.token_hex(8)}")
    try:
        with system_errors("unpack", os.fsencode(name), "extract.failed"):
            try:
                yield aside
            except (FileNotFoundError, NotADirectoryError):
                raise _no_directory(root.shown(folder)) from None
            with contextlib.suppress(FileNotFoundError):  # nothing came that was to be made
                os.rename(aside, posixpath.join(folder, name))
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove_tree(aside)
        if isinstance(error, AerogelError):
            error.message = error.message.replace(posixpath.basename(aside), name)
        raise


def _ids_of(user: str, tree: str) -> list[int]:
    root = os.open(tree or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        account = find_account(user, *(inroot.read_file(root, name) for name in ("/etc/passwd", "/etc/group")))
    finally:
        os.close(root)
    return [account.uid, account.gid]


def _changer(args: dict[str, Any]) -> Callable[[Entry], Entry | None]:
    owner, is_plain = args.get("owner"), bool(args.get("plain"))

    def change(entry: Entry) -> Entry | None:
        if posixpath.basename(entry.path).startswith(WHITEOUT):
            raise AerogelError(
                f"`{shown(entry.path)}` cannot be copied: such a name says in layers that a file is deleted",
                code="cp.whiteout",
            )
        if is_plain:
            if entry.kind in (CHR, BLK):
                raise AerogelError(f"`{shown(entry.path)}` is a device, which is not made", code="cp.kind")
            # a file of the image's must not get the rights of who copies it
            mode = entry.mode & ~(stat.S_ISUID | stat.S_ISGID) if entry.kind == REG else entry.mode
            entry = entry._replace(xattrs=(), mode=mode)
        return entry if owner is None else entry._replace(uid=owner[0], gid=owner[1])

    return change


def _extract(
    folder: str, fd: int, change: Callable[[Entry], Entry | None], args: dict[str, Any], *, is_raw: bool = False
) -> None:
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_directory(_Root(args).shown(folder)) from None

    def checked(entry: Entry) -> Entry | None:
        found = change(entry)
        if found is not None:
            _refuse_other_kind(folder, found)
        return found

    stream = _Reader(fd)
    try:
        extract(stream, root, change=checked, recorded=bool(args.get("recorded")), bare=bool(args.get("bare")))
        if not is_raw:
            stream.check_end()
    finally:
        os.close(root)


def _refuse_other_kind(folder: str, entry: Entry) -> None:
    try:
        is_there = os.lstat(os.path.join(os.fsencode(folder), entry.path)).st_mode if entry.path else stat.S_IFDIR
    except OSError:
        return
    if stat.S_ISDIR(is_there) != (entry.kind == DIR) and not stat.S_ISLNK(is_there):
        what = ("a directory", "none") if entry.kind == DIR else ("no directory", "one")
        raise AerogelError(
            f"`{shown(entry.path)}` is {what[0]}, and what is there now is {what[1]}: it is not replaced",
            code="cp.other-kind",
        )


def _no_directory(path: str) -> AerogelError:
    return AerogelError(f"there is no directory `{path}`", code="cp.no-directory")


def _place_of_file(wanted: str, head: Head, root: _Root) -> str:
    target = root.real(wanted)
    if os.path.isdir(target):
        return posixpath.join(target, head.name)
    if wanted.endswith(("/", "/.")):
        raise _no_directory(wanted)
    return target


def _place_of_directory(wanted: str, head: Head, root: _Root, *, contents: bool) -> str:
    target = root.real(wanted)
    if not os.path.isdir(target):
        if os.path.lexists(target):
            raise AerogelError(f"`{wanted}` is a file, and a directory is copied", code="cp.other-kind")
        return target
    if contents or not head.name:
        return target
    place = posixpath.join(target, head.name)
    if root.tree and os.path.islink(place):
        place = root.real(posixpath.join(_clean(wanted), head.name))
    if os.path.lexists(place) and not os.path.isdir(place):
        raise AerogelError(f"`{root.shown(place)}` is a file, and a directory is copied", code="cp.other-kind")
    return place


def _dress(place: str, head: Head, args: dict[str, Any]) -> None:
    uid, gid = args.get("owner") or (head.uid, head.gid)
    if args.get("bare"):
        record.dress(place, stat.S_IFDIR, record.Record(uid, gid), head.mode)
    else:
        with contextlib.suppress(PermissionError):  # an ordinary user has what is its own
            record.give(place, uid, gid, recorded=bool(args.get("recorded")))
        os.chmod(place, head.mode)
    os.utime(place, (head.mtime, head.mtime))
