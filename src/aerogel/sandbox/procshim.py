"""Shows /proc and secrets to programs in a root where nothing can be mounted: opens and looks are answered from outside.

Part of the first process of a step on the rung `chroot`. What a program opens below /proc, /dev/fd, /dev/std* and
/etc/mtab it gets as a descriptor of the host's; from a directory among these it goes on by itself. Processes have the
host's numbers. Nothing but a process's own part can be written to.

Standard library only: part of the helper.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator

from aerogel.sandbox import syscalls
from aerogel.sandbox.notify import COMPAT, Call, Listener, Rule
from aerogel.sandbox.unwritten import Unwritten

__all__ = ["Shim", "rules"]

_NUMBERS = """
access 21 - 33
faccessat 269 48 307
faccessat2 439 439 439
lstat 6 - -
lstat64 - - 196
newfstatat 262 79 -
fstatat64 - - 300
open 2 - 5
openat 257 56 295
openat2 437 437 437
readlink 89 - 85
readlinkat 267 78 305
stat 4 - -
stat64 - - 195
statx 332 291 383
"""
"""Names, then the numbers of x86_64, aarch64 and, on x86_64, of 32-bit programs."""
_COLUMNS = {"x86_64": 1, "aarch64": 2}
_COMPAT_COLUMN = 3
_STAT64 = struct.Struct("=Q4xIIIIIQ4xqIQIIIIIIQ")
"""`struct stat64` of 32-bit programs."""
_NOFOLLOW = 0x100
_AT_FDCWD = 0xFFFFFF9C
_HARMLESS = (b"cmdline", b"comm", b"stat", b"statm", b"status")
"""Of any process, for `ps`."""
_MASKED = (b"kcore", b"keys", b"kmsg", b"sysrq-trigger", b"timer_list", b"acpi", b"scsi", b"mem")
_PRCTL = {"x86_64": 157, "aarch64": 167}
_PR_SET_DUMPABLE = 4
_WITHOUT_FOLDER = ("access", "lstat", "lstat64", "open", "readlink", "stat", "stat64")
"""Their first argument is the path."""
_STANDARD = {b"/dev/stdin": b"0", b"/dev/stdout": b"1", b"/dev/stderr": b"2"}


def _numbers(machine: str) -> dict[int, str]:
    rows = [line.split() for line in _NUMBERS.strip().split("\n")]
    column = _COLUMNS[machine]
    found = {int(row[column]): row[0] for row in rows if row[column] != "-"}
    if machine == "x86_64":
        found |= {int(row[_COMPAT_COLUMN]) | COMPAT: row[0] for row in rows if row[_COMPAT_COLUMN] != "-"}
    return found


def rules(machine: str, *, secrets: bool = False) -> list[Rule]:
    """The calls that are looked at; KeyError for a machine without numbers. With `secrets` nobody hides from that."""
    hides = [Rule(_PRCTL[machine], argument=0, value=_PR_SET_DUMPABLE)] if secrets else []
    return [*hides, *(Rule(number) for number in _numbers(machine))]


class Shim:
    """Serves the calls of the processes whose root is `tree`, a path of this process; `unwritten` files are in there."""

    def __init__(self, machine: str, listener: int, tree: str, unwritten: Unwritten) -> None:
        self.fd = listener
        self._listener = Listener(listener)
        self._tree = os.fsencode(tree)
        self._unwritten = unwritten
        self._root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if unwritten else -1
        self._names = _numbers(machine)
        self._handlers: dict[str, Callable[[Call, bytes, int], None]] = {
            "access": self._access,
            "faccessat": self._access,
            "faccessat2": self._access,
            "fstatat64": self._stat,
            "lstat": self._stat,
            "lstat64": self._stat,
            "newfstatat": self._stat,
            "open": self._open,
            "openat": self._open,
            "openat2": self._open,
            "readlink": self._readlink,
            "readlinkat": self._readlink,
            "stat": self._stat,
            "stat64": self._stat,
            "statx": self._statx,
        }

    def serve(self) -> None:
        """Answers the call that waits."""
        call = self._listener.receive()
        if call is None:
            return
        name = self._names.get(call.number)
        if name is None:  # prctl: `ssh-add` wants that nobody reads its memory, and then opens the file of a key
            self._listener.answer(call)
            return
        at = 0 if name in _WITHOUT_FOLDER else 1
        path = self._listener.string(call.pid, call.args[at])
        if path is not None:
            self._answer(call, name, path, at)
            return
        # without CAP_SYS_PTRACE only a process of the same user may look into another one
        with _as_user_of(call.pid):
            path = self._listener.string(call.pid, call.args[at])
            if path is None:
                self._listener.go_on(call)
            else:
                self._answer(call, name, path, at)

    def _answer(self, call: Call, name: str, path: bytes, at: int) -> None:
        place = self._place(call.pid, path) if path else None
        try:
            if place is not None:
                self._handlers[name](call, place, at)
            elif not (self._unwritten and path and self._show(call, name, path, at)):
                self._listener.go_on(call)
        except OSError as error:
            self._listener.fail(call, error.errno or errno.EIO)

    def _place(self, pid: int, path: bytes) -> bytes | None:
        """The host's path for one that is answered from outside."""
        if path in _STANDARD:
            return b"/proc/%d/fd/%b" % (pid, _STANDARD[path])
        if path == b"/dev/fd" or path.startswith(b"/dev/fd/"):
            return b"/proc/%d/fd%b" % (pid, path[7:])
        if path == b"/etc/mtab":
            return b"/proc/%d/mounts" % pid
        if path != b"/proc" and not path.startswith(b"/proc/"):
            return None
        parts = [part for part in path.split(b"/")[2:] if part not in (b"", b".")]
        if b".." in parts:
            return None
        if parts and parts[0] in _MASKED:
            return b"/proc/aerogel-masks-this"
        if len(parts) > 1 or path.endswith(b"/"):
            group = _group_of(pid)
            if parts and parts[0] == b"self":
                parts[0] = b"%d" % group
            elif parts and parts[0] == b"thread-self":
                parts[0] = b"%d/task/%d" % (group, pid)
        if parts in ([b"mounts"], [b"net"]):
            parts.insert(0, b"%d" % _group_of(pid))
        if parts and parts[0].isdigit() and not _is_shown(pid, parts):
            return None
        return b"/".join((b"/proc", *parts))

    def _show(self, call: Call, name: str, path: bytes, at: int) -> bool:
        """Answers a call that leads to a file which is on no disk; whether it does."""
        inside = self._inside(call, path, at)
        follow = self._follows(call, name, at)
        file = None if inside is None else self._unwritten.below(self._root, inside, follow=follow)
        if inside is None or file is None or name.startswith("readlink"):
            return False
        with _as_caller(call.pid):
            if self._unwritten.below(self._root, inside, follow=follow) is not file:
                raise PermissionError(errno.EACCES, "a directory above cannot be entered")
            if name.startswith("open"):
                flags = self._flags(call, at)
                fd = file.opened(flags)
                try:
                    self._listener.give(call, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
                finally:
                    os.close(fd)
            elif name == "statx":
                self._put(call, call.args[4], file.statx_bytes(call.args[3] & 0xFFFFFFFF))
            elif "stat" in name:
                is_compat = call.number & COMPAT
                data = _stat64(os.stat(file.path), names=1) if is_compat else file.stat_bytes()
                self._put(call, call.args[at + 1], data)
            elif call.args[at + 1] & os.W_OK:
                raise OSError(errno.EROFS, "read-only")
            elif os.access(file.path, call.args[at + 1] & 7, effective_ids=True):
                self._listener.answer(call)
            else:
                raise PermissionError(errno.EACCES, "permission denied")
        return True

    def _inside(self, call: Call, path: bytes, at: int) -> bytes | None:
        """The path from the root of the tree on; None when it goes on from somewhere else."""
        if path.startswith(b"/"):
            return path
        dir_fd = call.args[0] & 0xFFFFFFFF if at else _AT_FDCWD
        link = b"/proc/%d/cwd" % call.pid if dir_fd == _AT_FDCWD else b"/proc/%d/fd/%d" % (call.pid, dir_fd)
        try:
            base = os.readlink(link)
        except PermissionError:
            with _as_user_of(call.pid):
                base = os.readlink(link)
        if base != self._tree and not base.startswith(self._tree + b"/"):
            return None
        return base[len(self._tree) :] + b"/" + path

    def _follows(self, call: Call, name: str, at: int) -> bool:
        if name.startswith("open"):
            return not self._flags(call, at) & os.O_NOFOLLOW
        if name in ("newfstatat", "fstatat64", "faccessat2"):
            return not call.args[3] & _NOFOLLOW
        return not (name.startswith("lstat") or (name == "statx" and call.args[2] & _NOFOLLOW))

    def _flags(self, call: Call, at: int) -> int:
        if self._names[call.number] == "openat2":
            data = self._listener.read(call.pid, call.args[2], 8)
            return int(struct.unpack("=Q", data)[0]) if data else 0
        return call.args[at + 1] & 0xFFFFFFFF

    def _open(self, call: Call, place: bytes, at: int) -> None:
        flags = self._flags(call, at)
        if place.endswith((b"/self", b"/thread-self")):
            place = b"/proc/%d" % _group_of(call.pid)
        parts = place.split(b"/")
        if flags & (os.O_WRONLY | os.O_RDWR) and not (len(parts) > 2 and parts[2].isdigit()):
            raise PermissionError(errno.EACCES, "read-only")
        wanted = flags & ~(os.O_CREAT | os.O_EXCL)
        # a pipe's other end may not be open yet, and nobody else could answer meanwhile
        fd = self._opened(call.pid, place, wanted | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not flags & (os.O_NONBLOCK | os.O_PATH):
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)
            self._listener.give(call, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def _opened(self, pid: int, place: bytes, flags: int) -> int:
        """The file as the caller may open it; its own pipes and terminals whatever it has become since it got them."""
        try:
            with _as_caller(pid):
                return os.open(place, flags)
        except PermissionError:
            if not place.startswith(b"/proc/%d/fd/" % _group_of(pid)):
                raise
            fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                if stat.S_IFMT(os.fstat(fd).st_mode) not in (stat.S_IFIFO, stat.S_IFCHR):
                    raise
                return os.open(f"/proc/self/fd/{fd}", flags)
            finally:
                os.close(fd)

    def _stat(self, call: Call, place: bytes, at: int) -> None:
        flags = 0 if self._follows(call, self._names[call.number], at) else _NOFOLLOW
        with _as_caller(call.pid):
            place = self._followed(call, place, flags)
            if call.number & COMPAT:
                data = _stat64(os.stat(place, follow_symlinks=not flags))
            else:
                data = syscalls.stat_bytes(place, flags)
        self._put(call, call.args[at + 1], data)

    def _statx(self, call: Call, place: bytes, at: int) -> None:
        del at
        flags, mask = call.args[2] & _NOFOLLOW, call.args[3] & 0xFFFFFFFF
        with _as_caller(call.pid):
            data = syscalls.statx_bytes(self._followed(call, place, flags), flags, mask)
        self._put(call, call.args[4], data)

    def _followed(self, call: Call, place: bytes, flags: int) -> bytes:
        """The links to a process's own part point at the caller's, not at this process's."""
        if not flags & _NOFOLLOW and place in (b"/proc/self", b"/proc/thread-self"):
            return b"/proc/%d" % _group_of(call.pid)
        return place

    def _access(self, call: Call, place: bytes, at: int) -> None:
        mode = call.args[at + 1] & 7
        with _as_caller(call.pid):
            if not os.path.exists(self._followed(call, place, 0)):
                raise FileNotFoundError(errno.ENOENT, "no such file")
            if not os.access(self._followed(call, place, 0), mode, effective_ids=True):
                raise PermissionError(errno.EACCES, "permission denied")
        self._listener.answer(call)

    def _readlink(self, call: Call, place: bytes, at: int) -> None:
        if place == b"/proc/self":
            target = b"%d" % _group_of(call.pid)
        elif place == b"/proc/thread-self":
            target = b"%d/task/%d" % (_group_of(call.pid), call.pid)
        else:
            with _as_caller(call.pid):
                target = os.readlink(place)
            if target == self._tree:
                target = b"/"
            elif target.startswith(self._tree + b"/"):
                target = target[len(self._tree) :]
        data = target[: call.args[at + 2]]
        if not self._listener.write(call.pid, call.args[at + 1], data):
            raise OSError(errno.EFAULT, "bad address")
        self._listener.answer(call, len(data))

    def _put(self, call: Call, address: int, data: bytes) -> None:
        if not self._listener.write(call.pid, address, data):
            raise OSError(errno.EFAULT, "bad address")
        self._listener.answer(call)


def _stat64(status: os.stat_result, names: int = 0) -> bytes:
    """What 32-bit programs get; `names` is the number of names that is said to be."""
    seconds = status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns
    times = [part & 0xFFFFFFFF for each in seconds for part in divmod(each, 10**9)]
    owner = names or status.st_nlink, status.st_uid, status.st_gid, status.st_rdev
    sizes = status.st_size, status.st_blksize, status.st_blocks
    inode = status.st_ino
    return _STAT64.pack(status.st_dev, inode & 0xFFFFFFFF, status.st_mode, *owner, *sizes, *times, inode)


def _is_shown(caller: int, parts: list[bytes]) -> bool:
    """Whether a path below a process's folder is answered: what leads out of /proc, and other programs' secrets, are not.

    This process sees the tree of the container around the step; a link of the image means another file there.
    """
    pid, *names = parts
    if names[:1] == [b"task"]:
        names = names[2:]
    if names[:1] in ([b"root"], [b"cwd"], [b"exe"]) and len(names) > 1:
        return False
    if names[:1] in ([b"fd"], [b"map_files"]) and len(names) > 2:
        return False
    return not names or names[0] in _HARMLESS or _is_in_step(int(pid), caller)


def _is_in_step(pid: int, caller: int) -> bool:
    """Whether this process, which adopts what a step leaves behind, is above the other one."""
    if pid == _group_of(caller):
        return True
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            return False
        if pid == os.getpid():
            return True
    return False


@contextlib.contextmanager
def _as_caller(pid: int) -> Iterator[None]:
    """With the rights of the step's process: its user may not read what root may."""
    if os.geteuid() != 0:
        yield
        return
    with _as_user_of(pid):
        yield


@contextlib.contextmanager
def _as_user_of(pid: int) -> Iterator[None]:
    """Takes the ids of a process for a while; the saved ones lead back."""
    uid = gid = 0
    groups: list[int] = []
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Uid:"):
                uid = int(line.split()[2])
            elif line.startswith(b"Gid:"):
                gid = int(line.split()[2])
            elif line.startswith(b"Groups:"):
                groups = [int(each) for each in line.split()[1:]]
    own = os.getgroups()
    is_changed = os.geteuid() == 0 and groups != own
    if is_changed:
        os.setgroups(groups)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        if is_changed:
            os.setgroups(own)


def _group_of(pid: int) -> int:
    """The process that a thread belongs to."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Tgid:"):
                    return int(line[5:])
    except OSError:
        pass
    return pid
