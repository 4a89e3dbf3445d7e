"""Answers system calls about owners, modes and capabilities where there is no user namespace: the rung `proot`.

What `recorder` does on `single`, for files that belong to an ordinary user of the host. Modes bind that user, so every
file can be read and written by its owner and what its mode is said to be is recorded beside it (`record`). Links and
fifos can have no attribute: their owners are in a table, by inode and time of birth, from which `copied.harvest` makes
what a layer holds. Paths come translated: proot has changed them to the host's before these calls are seen.

Not emulated: set-id programs and changes of the root directory, since what is executed is proot's own loader.
Standard library only: part of the helper.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import marshal
import os
import stat
import struct

from aerogel.sandbox import record, recorder, seccomp, syscalls
from aerogel.sandbox.credentials import KEEP, Credentials
from aerogel.sandbox.idcalls import Errno, IdCalls
from aerogel.sandbox.notify import Call, Rule
from aerogel.sandbox.record import ROOT, Record
from aerogel.sandbox.unwritten import Unwritten, UnwrittenFile

__all__ = ["BareRecorder", "birth", "load_owners", "missing", "rules", "save_owners"]

_NUMBERS = """
capset 126 91
chmod 90 -
fchmod 91 52
fchmodat 268 53
fgetxattr 193 10
fremovexattr 199 16
fsetxattr 190 7
getxattr 191 8
lgetxattr 192 9
lremovexattr 198 15
lsetxattr 189 6
removexattr 197 14
setxattr 188 5
"""
_READS = """
access 21 -
faccessat 269 48
open 2 -
openat 257 56
"""
_MISSING = {
    "x86_64": (303, 322, 332, 428, 437, 439, 452, 463, 464, 465, 466, 467, 468, 469),
    "aarch64": (264, 281, 291, 428, 437, 439, 452, 463, 464, 465, 466, 467, 468, 469),
}
"""Calls with paths that proot 5.1 does not know: name_to_handle_at, execveat, statx, open_tree, openat2, faccessat2,
fchmodat2, *xattrat, open_tree_attr, file_getattr, file_setattr.
"""
_COLUMNS = {"x86_64": 1, "aarch64": 2}
_CAPABILITY = b"security.capability"
_AT_FDCWD = 0xFFFFFF9C
_OFFSETS = {"x86_64": (24, 28, 40), "aarch64": (16, 24, 32)}
_MODES = 0o7777
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_STATX_BTIME = 0x800
_GET_INFO = 0xC040FF0B
_INFO_EXIT = 1 << 3

_CHANGING = ("chmod", "chown", "fchmodat", "fchownat", "lchown", "rename", "renameat", "unlink", "unlinkat")

Owners = dict[int, tuple[int, Record]]
"""Inode -> time of birth and record of a link or fifo."""


def _numbers(machine: str, table: str = _NUMBERS) -> dict[str, int]:
    rows = [line.split() for line in table.strip().split("\n")]
    return {row[0]: int(row[_COLUMNS[machine]]) for row in rows if row[_COLUMNS[machine]] != "-"}


def rules(machine: str, *, reads: bool = False) -> list[Rule]:
    """The calls that are answered; KeyError for a machine without numbers. `reads`: those that only read as well."""
    numbers = [*_numbers(machine).values(), *(_numbers(machine, _READS).values() if reads else ())]
    return [*(rule for rule in recorder.rules(machine) if rule.number not in numbers), *map(Rule, numbers)]


def missing(machine: str) -> bytes:
    """A filter for which calls do not exist that would reach the host's files: C libraries take older ones instead."""
    return seccomp.without(machine, _MISSING[machine])


def birth(path: bytes) -> int:
    """When a file that is not followed was made, in nanoseconds since 1970; 0 where that is not kept."""
    seconds, nanoseconds = struct.unpack_from("=qI", syscalls.statx_bytes(path, 0x100, _STATX_BTIME), 80)
    return int(seconds * 10**9 + nanoseconds)


def load_owners(path: str) -> Owners:
    """The table that `save_owners` wrote; none is an empty one."""
    try:
        with open(path, "rb") as file:
            rows = marshal.load(file)  # noqa: S302 - written here, in a directory of our own
    except FileNotFoundError:
        return {}
    return {inode: (born, Record(*row)) for inode, born, row in rows}


def save_owners(path: str, owners: Owners) -> None:
    """Writes the table."""
    with open(path, "wb") as file:
        marshal.dump([(inode, born, tuple(row)) for inode, (born, row) in owners.items()], file)


def _is_of_host(path: bytes) -> bool:
    """Whether a path, translated, is that of a device that proot shows."""
    return os.path.dirname(os.path.normpath(path)) == b"/dev"


def _is_device(mode: int) -> bool:
    """Of the host: those that a step makes are files with a record."""
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


class BareRecorder(recorder.Recorder):
    """Serves the calls of what proot, the process `first`, runs; `owners` is the file with the table."""

    def __init__(self, machine: str, listener: int, first: int, owners: str, unwritten: Unwritten) -> None:
        super().__init__(machine, listener, first)
        self._own = os.getuid(), os.getgid()
        self._first = first
        self.watch = -1
        """Becomes readable when the command has ended: proot goes on as long as anything runs that it started."""
        self.command = first
        """The process of the command itself, as soon as it is known."""
        self._unwritten = unwritten
        self._file = owners
        self._owners = load_owners(owners)
        self._offsets = _OFFSETS[machine]
        names = {number: name for name, number in _numbers(machine).items()}
        for number, name in names.items():
            self._handlers[number] = getattr(BareRecorder, name.replace("setxattr", "set").replace("getxattr", "get"))
        for name, number in _numbers(machine, _READS).items():
            self._handlers[number] = getattr(BareRecorder, name)
        self._changing = {number for number, handler in self._handlers.items() if handler.__name__ in _CHANGING}
        self._is_about_ids = {
            number for number, handler in self._handlers.items() if hasattr(IdCalls, handler.__name__)
        }

    def close(self) -> None:
        """Writes the table."""
        if self.watch >= 0:
            os.close(self.watch)
            self.watch = -1
        if self._file:  # none is kept of what joins another command
            save_owners(self._file, self._owners)

    def ended_by(self) -> int:
        """The signal that ended the command, of which proot makes an exit status of 255; 0 for none.

        Known since Linux 6.15, when proot has waited for it.
        """
        info = bytearray(struct.pack("=Q56x", _INFO_EXIT))
        try:
            fcntl.ioctl(self.watch, _GET_INFO, info, True)
        except OSError:
            return 0
        (known,) = struct.unpack_from("=Q", info)
        (status,) = struct.unpack_from("=i", info, 60)
        return os.WTERMSIG(status) if known & _INFO_EXIT and os.WIFSIGNALED(status) else 0

    def _serve(self, call: Call) -> None:
        # proot's own looks at files, before each of the commands' calls, concern nobody
        if call.pid == self._first and call.number not in self._is_about_ids:
            self._listener.go_on(call)
        else:
            if call.pid != self._first and self.watch < 0:  # the first that proot starts
                with contextlib.suppress(ProcessLookupError):
                    self.watch = os.pidfd_open(call.pid)
                    self.command = call.pid
            super()._serve(call)

    # what is recorded

    def _special(self, path: bytes) -> Record | None:
        status = os.lstat(path)
        known = self._owners.get(status.st_ino)
        return known[1] if known is not None and known[0] == birth(path) else None

    def _owner(self, path: bytes, *, follow: bool) -> Record | None:
        mode = os.stat(path, follow_symlinks=follow).st_mode
        return self._read(path, mode, follow=follow)

    def _read(self, path: bytes, mode: int, *, follow: bool = True) -> Record:
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return super()._read(path, mode, follow=follow)
        if follow or not self._owners:
            return ROOT
        return self._special(path) or ROOT

    def _write(self, path: bytes, mode: int, owner: Record, *, follow: bool) -> None:
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            super()._write(path, mode, owner, follow=follow)
        elif stat.S_ISLNK(mode) or stat.S_ISFIFO(mode):
            real = os.path.realpath(path) if follow else path
            status = os.lstat(real)
            if status.st_mode == mode:
                self._owners[status.st_ino] = birth(real), owner

    def _new(self, who: Credentials, path: bytes, mode: int, needs: int) -> Record | None:
        owner = self._made_by(who, path)
        return owner if mode & needs == needs else (owner or ROOT)._replace(mode=mode)

    def _is_shown(self, path: bytes) -> bool:
        return _is_of_host(path)  # the tree may lie in /dev/shm

    def _make_directory(self, path: bytes, mode: int) -> None:
        os.mkdir(path, record.real_mode(mode, is_directory=True))

    def _make_node(self, path: bytes, mode: int) -> None:
        os.mknod(path, record.real_mode(mode, is_directory=False))

    def _create(self, call: Call, path: bytes, flags: int, mode: int, owner: Record) -> None:
        super()._create(call, path, flags, record.real_mode(mode, is_directory=False), owner)

    def _chown(self, call: Call, who: Credentials, path: bytes, owner: tuple[int, int], *, follow: bool) -> None:
        status = os.stat(path, follow_symlinks=follow)
        if _is_device(status.st_mode):
            raise Errno(errno.EPERM)
        if stat.S_ISREG(status.st_mode):
            with contextlib.suppress(OSError):
                os.removexattr(path, record.CAPABILITY, follow_symlinks=follow)
        super()._chown(call, who, path, owner, follow=follow)

    def _path(self, call: Call, who: Credentials, dir_fd: int, address: int, flags: int = 0) -> bytes:
        path = super()._path(call, who, dir_fd, address, flags)
        if call.number in self._changing and _is_of_host(path):
            raise Errno(errno.EBUSY)  # which whoever is root of a container could remove
        return path

    def _may_change(self, call: Call, who: Credentials, *places: tuple[int, int]) -> None:
        for dir_fd, address in places:
            self._path(call, who, dir_fd & KEEP, address)
        super()._may_change(call, who, *places)

    # what files look like

    def _stat(self, call: Call, who: Credentials, dir_fd: int, address: int, buffer: int, flags: int) -> None:
        path, follow = self._looked_at(call, who, dir_fd, address, flags)
        file = self._unwritten.at(path, follow=follow) if self._unwritten else None
        data = bytearray(file.stat_bytes() if file else syscalls.stat_bytes(path, 0 if follow else 0x100))
        at_mode, at_owner, at_device = self._offsets
        mode, uid, gid = struct.unpack_from("=I", data, at_mode) + struct.unpack_from("=II", data, at_owner)
        if uid != self._own[0]:  # of the host: a device, or a part of /proc
            self._listener.go_on(call)
            return
        found = Record(file.uid, file.gid, mode=file.mode) if file else self._read(path, mode, follow=follow)
        struct.pack_into("=II", data, at_owner, found.uid, found.gid)
        mode = found.mode_of(mode)
        if found.kind:
            mode = stat.S_IMODE(mode) | found.kind
            struct.pack_into("=Q", data, at_device, os.makedev(*found.rdev))
        struct.pack_into("=I", data, at_mode, mode)
        del gid
        self._put(call, buffer, bytes(data))

    # files that are on no disk

    def _open(self, call: Call, who: Credentials, dir_fd: int, address: int, flags: int, mode: int) -> None:
        file = self._secret(call, who, dir_fd, address)
        if file is None and not flags & _WRITES:
            self._listener.go_on(call)
            return
        if file is None:
            super()._open(call, who, dir_fd, address, flags, mode)
            return
        if not flags & os.O_PATH and not who.may(4, file.mode, file.uid, file.gid):
            raise Errno(errno.EACCES)
        fd = file.opened(flags)
        try:
            self._listener.give(call, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def _secret(self, call: Call, who: Credentials, dir_fd: int, address: int) -> UnwrittenFile | None:
        """Which one a path leads to, of which proot has followed what is to be followed."""
        if not self._unwritten:
            return None
        with contextlib.suppress(Errno):  # then the kernel says what is wrong
            return self._unwritten.at(self._path(call, who, dir_fd, address))
        return None

    def access(self, call: Call, who: Credentials) -> None:
        self._access(call, who, _AT_FDCWD, call.args[0], call.args[1])

    def faccessat(self, call: Call, who: Credentials) -> None:
        self._access(call, who, call.args[0] & KEEP, call.args[1], call.args[2])

    def _access(self, call: Call, who: Credentials, dir_fd: int, address: int, wanted: int) -> None:
        file = self._secret(call, who, dir_fd, address)
        if file is None:
            self._listener.go_on(call)
        elif wanted & os.W_OK:
            raise Errno(errno.EROFS)
        elif not who.may(wanted & 7, file.mode, file.uid, file.gid):
            raise Errno(errno.EACCES)
        else:
            self._listener.answer(call)

    def _chmod(self, call: Call, who: Credentials, path: bytes, mode: int) -> None:
        status = os.stat(path)
        found = self._read(path, status.st_mode)
        if not who.effective and who.fsuid != found.uid:
            raise Errno(errno.EPERM)
        if _is_device(status.st_mode):
            raise Errno(errno.EPERM)
        if status.st_uid != self._own[0]:
            self._listener.go_on(call)
            return
        mode &= _MODES
        if not who.effective and found.gid != who.fsgid and found.gid not in who.groups:
            mode &= ~stat.S_ISGID
        real = record.real_mode(mode, is_directory=stat.S_ISDIR(status.st_mode))
        os.chmod(path, real)
        new = found._replace(mode=-1 if real == mode else mode)
        if new != found:
            self._write(path, status.st_mode, new, follow=True)
        self._listener.answer(call)

    def chmod(self, call: Call, who: Credentials) -> None:
        self._chmod(call, who, self._path(call, who, _AT_FDCWD, call.args[0]), call.args[1])

    def fchmod(self, call: Call, who: Credentials) -> None:
        self._chmod(call, who, b"/proc/%d/fd/%d" % (call.pid, call.args[0] & 0xFFFFFFFF), call.args[1])

    def fchmodat(self, call: Call, who: Credentials) -> None:
        self._chmod(call, who, self._path(call, who, call.args[0] & 0xFFFFFFFF, call.args[1]), call.args[2])

    # capabilities

    def capset(self, call: Call, who: Credentials) -> None:
        if not who.permitted:
            raise Errno(errno.EPERM)
        self._listener.answer(call)

    def _attribute(self, call: Call, who: Credentials, kind: str) -> tuple[bytes, bool] | None:
        """The path, and whether it is followed, if the call is about capabilities; goes on otherwise."""
        if self._listener.string(call.pid, call.args[1]) != _CAPABILITY:
            self._listener.go_on(call)
            return None
        if kind == "f":
            return b"/proc/%d/fd/%d" % (call.pid, call.args[0] & 0xFFFFFFFF), True
        return self._path(call, who, _AT_FDCWD, call.args[0]), kind != "l"

    def _set(self, call: Call, who: Credentials, kind: str) -> None:
        found = self._attribute(call, who, kind)
        if found is None:
            return
        data = self._listener.read(call.pid, call.args[2], min(call.args[3], 64)) if call.args[3] else b""
        if not who.effective or not data:
            raise Errno(errno.EINVAL if who.effective else errno.EPERM)
        os.setxattr(found[0], record.CAPABILITY, data, follow_symlinks=found[1])
        self._listener.answer(call)

    def _get(self, call: Call, who: Credentials, kind: str) -> None:
        found = self._attribute(call, who, kind)
        if found is None:
            return
        data = os.getxattr(found[0], record.CAPABILITY, follow_symlinks=found[1])
        size = call.args[3]
        if size and size < len(data):
            raise Errno(errno.ERANGE)
        if size and not self._listener.write(call.pid, call.args[2], data):
            raise Errno(errno.EFAULT)
        self._listener.answer(call, len(data))

    def _remove(self, call: Call, who: Credentials, kind: str) -> None:
        found = self._attribute(call, who, kind)
        if found is None:
            return
        if not who.effective:
            raise Errno(errno.EPERM)
        os.removexattr(found[0], record.CAPABILITY, follow_symlinks=found[1])
        self._listener.answer(call)

    def set(self, call: Call, who: Credentials) -> None:
        self._set(call, who, "")

    def lset(self, call: Call, who: Credentials) -> None:
        self._set(call, who, "l")

    def fset(self, call: Call, who: Credentials) -> None:
        self._set(call, who, "f")

    def get(self, call: Call, who: Credentials) -> None:
        self._get(call, who, "")

    def lget(self, call: Call, who: Credentials) -> None:
        self._get(call, who, "l")

    def fget(self, call: Call, who: Credentials) -> None:
        self._get(call, who, "f")

    def removexattr(self, call: Call, who: Credentials) -> None:
        self._remove(call, who, "")

    def lremovexattr(self, call: Call, who: Credentials) -> None:
        self._remove(call, who, "l")

    def fremovexattr(self, call: Call, who: Credentials) -> None:
        self._remove(call, who, "f")

    def _list(self, call: Call, path: bytes, *, follow: bool) -> None:
        names = os.listxattr(path, follow_symlinks=follow)
        shown = ["security.capability" if name == record.CAPABILITY else name for name in names if name != record.KEY]
        if shown == names:
            self._listener.go_on(call)
            return
        data = b"".join(os.fsencode(name) + b"\0" for name in shown)
        size = call.args[2]
        if size and size < len(data):
            raise Errno(errno.ERANGE)
        if size and data and not self._listener.write(call.pid, call.args[1], data):
            raise Errno(errno.EFAULT)
        self._listener.answer(call, len(data))
