"""Answers the system calls about owners where only one id is mapped: what programs set is recorded, and read again.

Part of process 1 of a sandbox on the rung `single`. The image's programs see the owners that the layers say and those
that they set; `record` keeps them on the files. Users are believed (`credentials`): who became another one makes files
as that one, and may not write to what that one may not. Not emulated: reading files that only their owner may read,
signals to other users' processes, and the ids in /proc/PID/status.

Standard library only: part of the helper.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Callable

from aerogel.sandbox import record, syscalls
from aerogel.sandbox.credentials import KEEP, Credentials, Table
from aerogel.sandbox.idcalls import Errno, IdCalls
from aerogel.sandbox.notify import Call, Listener, Rule
from aerogel.sandbox.record import ROOT, Record

__all__ = ["Recorder", "rules"]

_NUMBERS = """
chown 92 -
chroot 161 51
creat 85 -
execve 59 221
execveat 322 281
fchown 93 55
fchownat 260 54
flistxattr 196 13
fstat 5 80
getegid 108 177
geteuid 107 175
getgid 104 176
getgroups 115 158
getresgid 120 150
getresuid 118 148
getuid 102 174
io_uring_setup 425 425
lchown 94 -
listxattr 194 11
llistxattr 195 12
lstat 6 -
mkdir 83 -
mkdirat 258 34
mknod 133 -
mknodat 259 33
newfstatat 262 79
open 2 -
openat 257 56
openat2 437 437
prctl 157 167
rename 82 -
renameat 264 38
renameat2 316 276
rmdir 84 -
setfsgid 123 152
setfsuid 122 151
setgid 106 144
setgroups 116 159
setregid 114 143
setresgid 119 149
setresuid 117 147
setreuid 113 145
setuid 105 146
stat 4 -
statx 332 291
symlink 88 -
symlinkat 266 36
unlink 87 -
unlinkat 263 35
"""
"""Names, then the numbers of x86_64 and aarch64."""

_COLUMNS = {"x86_64": 1, "aarch64": 2}
_PR_SET_KEEPCAPS = 8
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_O_TMPFILE = 0o20000000
_AT_FDCWD = 0xFFFFFF9C
_AT_EMPTY_PATH, _AT_NOFOLLOW, _AT_FOLLOW = 0x1000, 0x100, 0x400
_NONE = (errno.ENODATA, errno.ENOTSUP, errno.EPERM)
_UNCHANGED = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA, errno.EROFS, errno.ENOSPC, errno.E2BIG)
_STAT_OFFSETS = {"x86_64": (24, 28, 40), "aarch64": (16, 24, 32)}
"""Of st_mode, st_uid (st_gid follows) and st_rdev in `struct stat`."""

_Handler = Callable[["Recorder", Call, Credentials], None]


def _numbers(machine: str) -> dict[str, int]:
    rows = [line.split() for line in _NUMBERS.strip().split("\n")]
    column = _COLUMNS[machine]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def rules(machine: str) -> list[Rule]:
    """The calls that the recorder answers; KeyError for a machine without numbers."""
    found = []
    for name, number in _numbers(machine).items():
        if name == "prctl":
            found.append(Rule(number, argument=0, value=_PR_SET_KEEPCAPS))
        elif name in ("open", "openat"):
            found.append(Rule(number, argument=1 if name == "open" else 2, any_bit=_WRITES))
        else:
            found.append(Rule(number))
    return found


class Recorder(IdCalls):
    """Serves the calls of the processes of one sandbox; `first` is the command, made by this process."""

    def __init__(self, machine: str, listener: int, first: int) -> None:
        super().__init__(Listener(listener), Table(first))
        self.fd = listener
        self._offsets = _STAT_OFFSETS[machine]
        self._own = (0, 0)
        """Whose files are in reality."""
        self._handlers: dict[int, _Handler] = {number: _HANDLERS[name] for name, number in _numbers(machine).items()}
        os.umask(0)

    def serve(self) -> None:
        """Answers the call that waits."""
        call = self._listener.receive()
        if call is not None:
            self._serve(call)

    def _serve(self, call: Call) -> None:
        try:
            self._handlers[call.number](self, call, self._table.of(call.pid))
        except Errno as failed:
            self._listener.fail(call, failed.number)
        except OSError as error:
            self._listener.fail(call, error.errno or errno.EIO)

    # what is recorded

    def _read(self, path: bytes, mode: int, *, follow: bool = True) -> Record:
        return record.read(path, mode, follow=follow)

    def _write(self, path: bytes, mode: int, owner: Record, *, follow: bool) -> None:
        """Records an owner, where the file system can: nothing that a layer holds lies on one that cannot."""
        try:
            record.write(path, mode, owner, follow=follow)
        except OSError as error:
            if error.errno not in _UNCHANGED:
                raise

    def _new(self, who: Credentials, path: bytes, mode: int, needs: int) -> Record | None:
        """As `_made_by`, for a file that is to have a mode, with the bits of which its real owner has need."""
        del mode, needs
        return self._made_by(who, path)

    # where a path leads

    def _string(self, call: Call, address: int) -> bytes:
        text = self._listener.string(call.pid, address)
        if text is None:
            raise Errno(errno.EFAULT)
        return text

    def _place(self, call: Call, who: Credentials, dir_fd: int, path: bytes) -> bytes:
        """The path as this process can use it."""
        if path.startswith(b"/"):
            for prefix, instead in ((b"/proc/self/", b"/proc/%d/"), (b"/proc/thread-self/", b"/proc/%d/")):
                if path.startswith(prefix):
                    return instead % call.pid + path[len(prefix) :]
            if path.startswith(b"/dev/fd/"):
                return b"/proc/%d/fd/%b" % (call.pid, path[8:])
            return b"/proc/%d/root%b" % (call.pid, path) if who.chrooted else path
        if dir_fd == _AT_FDCWD:
            return b"/proc/%d/cwd/%b" % (call.pid, path)
        return b"/proc/%d/fd/%d/%b" % (call.pid, _signed(dir_fd), path)

    def _path(self, call: Call, who: Credentials, dir_fd: int, address: int, flags: int = 0) -> bytes:
        path = self._string(call, address) if address else b""
        if path:
            return self._place(call, who, dir_fd, path)
        if not flags & _AT_EMPTY_PATH:
            raise Errno(errno.ENOENT)
        if dir_fd == _AT_FDCWD:
            return b"/proc/%d/cwd" % call.pid
        return b"/proc/%d/fd/%d" % (call.pid, _signed(dir_fd))

    # owners of files

    def _owner(self, path: bytes, *, follow: bool) -> Record | None:
        """The record of a path, None when it has none."""
        try:
            return record.parse(os.getxattr(path, record.KEY, follow_symlinks=follow))
        except OSError as error:
            if error.errno not in _NONE:
                raise
        try:
            data = os.getxattr(path, "security.capability", follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NONE:
                raise
            return None
        mode = os.stat(path, follow_symlinks=follow).st_mode
        return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else record.parse_special(data)

    def _chown(self, call: Call, who: Credentials, path: bytes, owner: tuple[int, int], *, follow: bool) -> None:
        if follow:
            path = self._past_links(call, path)
        status = os.stat(path, follow_symlinks=follow)
        old = self._read(path, status.st_mode, follow=follow)
        uid, gid = (each & KEEP for each in owner)
        if not who.effective and (
            who.fsuid != old.uid or uid not in (KEEP, old.uid) or gid not in (KEEP, old.gid, who.fsgid, *who.groups)
        ):
            raise Errno(errno.EPERM)
        # the real one first: it clears set-id bits and capabilities, and says what is not possible at all
        os.chown(path, -1 if uid == KEEP else self._own[0], -1 if gid == KEEP else self._own[1], follow_symlinks=follow)
        new = old._replace(uid=old.uid if uid == KEEP else uid, gid=old.gid if gid == KEEP else gid)
        if new != old or not stat.S_ISREG(status.st_mode):
            self._write(path, status.st_mode, new, follow=follow)
        self._listener.answer(call)

    def _past_links(self, call: Call, path: bytes) -> bytes:
        """Where links lead that end in the caller's own descriptors, such as /dev/stdout; other paths as they are."""
        for _ in range(40):
            try:
                link = os.readlink(path)
            except OSError:
                return path
            if link.startswith((b"/proc/self/", b"/dev/fd/")):
                return self._place(call, Credentials(), _AT_FDCWD, link)
            if path.startswith(b"/proc/"):
                return path
            path = link if link.startswith(b"/") else os.path.join(os.path.dirname(path), link)
        return path

    def chown(self, call: Call, who: Credentials) -> None:
        path = self._path(call, who, _AT_FDCWD, call.args[0])
        self._chown(call, who, path, (call.args[1], call.args[2]), follow=True)

    def lchown(self, call: Call, who: Credentials) -> None:
        path = self._path(call, who, _AT_FDCWD, call.args[0])
        self._chown(call, who, path, (call.args[1], call.args[2]), follow=False)

    def fchown(self, call: Call, who: Credentials) -> None:
        path = b"/proc/%d/fd/%d" % (call.pid, _signed(call.args[0]))
        self._chown(call, who, path, (call.args[1], call.args[2]), follow=True)

    def fchownat(self, call: Call, who: Credentials) -> None:
        dir_fd, address, uid, gid, flags = call.args[:5]
        path = self._path(call, who, dir_fd & KEEP, address, flags)
        is_fd = path.startswith(b"/proc/%d/" % call.pid) and not self._has_name(call, address)
        self._chown(call, who, path, (uid, gid), follow=is_fd or not flags & _AT_NOFOLLOW)

    def _has_name(self, call: Call, address: int) -> bool:
        return bool(address and self._string(call, address))

    # what files look like

    def _stat(self, call: Call, who: Credentials, dir_fd: int, address: int, buffer: int, flags: int) -> None:
        path, follow = self._looked_at(call, who, dir_fd, address, flags)
        found = self._owner(path, follow=follow)
        if found is None or found == ROOT:
            self._listener.go_on(call)
            return
        data = bytearray(syscalls.stat_bytes(path, 0 if follow else _AT_NOFOLLOW))
        at_mode, at_owner, at_device = self._offsets
        struct.pack_into("=II", data, at_owner, found.uid, found.gid)
        if found.kind:
            (mode,) = struct.unpack_from("=I", data, at_mode)
            struct.pack_into("=I", data, at_mode, stat.S_IMODE(mode) | found.kind)
            struct.pack_into("=Q", data, at_device, os.makedev(*found.rdev))
        self._put(call, buffer, bytes(data))

    def _looked_at(self, call: Call, who: Credentials, dir_fd: int, address: int, flags: int) -> tuple[bytes, bool]:
        path = self._string(call, address) if address else b""
        if path:
            return self._place(call, who, dir_fd, path), not flags & _AT_NOFOLLOW
        return self._path(call, who, dir_fd, 0, flags), True

    def _put(self, call: Call, address: int, data: bytes) -> None:
        if not self._listener.write(call.pid, address, data):
            raise Errno(errno.EFAULT)
        self._listener.answer(call)

    def stat(self, call: Call, who: Credentials) -> None:
        self._look(call, lambda: self._stat(call, who, _AT_FDCWD, call.args[0], call.args[1], 0))

    def lstat(self, call: Call, who: Credentials) -> None:
        self._look(call, lambda: self._stat(call, who, _AT_FDCWD, call.args[0], call.args[1], _AT_NOFOLLOW))

    def fstat(self, call: Call, who: Credentials) -> None:
        self._look(call, lambda: self._stat(call, who, call.args[0] & KEEP, 0, call.args[1], _AT_EMPTY_PATH))

    def newfstatat(self, call: Call, who: Credentials) -> None:
        dir_fd, address, buffer, flags = call.args[:4]
        self._look(call, lambda: self._stat(call, who, dir_fd & KEEP, address, buffer, flags))

    def _look(self, call: Call, look: Callable[[], None]) -> None:
        """What cannot be looked at here the kernel may try: its error is the right one."""
        try:
            look()
        except (OSError, Errno):
            self._listener.go_on(call)

    def statx(self, call: Call, who: Credentials) -> None:
        self._look(call, lambda: self._statx(call, who))

    def _statx(self, call: Call, who: Credentials) -> None:
        dir_fd, address, flags, mask, buffer = call.args[:5]
        path, follow = self._looked_at(call, who, dir_fd & KEEP, address, flags)
        found = self._owner(path, follow=follow)
        if found is None or found == ROOT:
            self._listener.go_on(call)
            return
        data = bytearray(syscalls.statx_bytes(path, 0 if follow else _AT_NOFOLLOW, mask & KEEP))
        struct.pack_into("=II", data, 20, found.uid, found.gid)
        if found.kind:
            (mode,) = struct.unpack_from("=H", data, 28)
            struct.pack_into("=H", data, 28, stat.S_IMODE(mode) | found.kind)
            struct.pack_into("=II", data, 128, *found.rdev)
        self._put(call, buffer, bytes(data))

    def listxattr(self, call: Call, who: Credentials) -> None:
        self._look(call, lambda: self._list(call, self._path(call, who, _AT_FDCWD, call.args[0]), follow=True))

    def llistxattr(self, call: Call, who: Credentials) -> None:
        self._look(call, lambda: self._list(call, self._path(call, who, _AT_FDCWD, call.args[0]), follow=False))

    def flistxattr(self, call: Call, who: Credentials) -> None:
        del who
        path = b"/proc/%d/fd/%d" % (call.pid, _signed(call.args[0]))
        self._look(call, lambda: self._list(call, path, follow=True))

    def _list(self, call: Call, path: bytes, *, follow: bool) -> None:
        """The names of extended attributes without the record: who copies them all must not copy an owner."""
        names = os.listxattr(path, follow_symlinks=follow)
        mode = os.stat(path, follow_symlinks=follow).st_mode
        hidden = record.KEY if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "security.capability"
        if hidden not in names:
            self._listener.go_on(call)
            return
        data = b"".join(os.fsencode(name) + b"\0" for name in names if name != hidden)
        size = call.args[2]
        if not size:
            self._listener.answer(call, len(data))
        elif size < len(data):
            self._listener.fail(call, errno.ERANGE)
        elif self._listener.write(call.pid, call.args[1], data):
            self._listener.answer(call, len(data))
        else:
            self._listener.fail(call, errno.EFAULT)

    # making, opening and removing files

    def _made_by(self, who: Credentials, path: bytes) -> Record | None:
        """Whose a new file at the path will be; None when nothing is special. Raises when it may not be made."""
        parent = path.rstrip(b"/").rpartition(b"/")[0] or b"/"
        try:
            status = os.stat(parent)
        except OSError:
            return None  # the kernel says why
        gid = who.fsgid
        if who.is_root and not status.st_mode & stat.S_ISGID:
            return None
        above = self._read(parent, status.st_mode)
        if not who.may(3, above.mode_of(status.st_mode), above.uid, above.gid):
            raise Errno(errno.EACCES)
        if status.st_mode & stat.S_ISGID:
            gid = above.gid
        return None if (who.fsuid, gid) == (0, 0) else Record(who.fsuid, gid)

    def _umask(self, pid: int) -> int:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line[6:], 8)
        return 0o022

    def _make(
        self,
        call: Call,
        who: Credentials,
        path: bytes,
        make: Callable[[bytes], None],
        given: Record | None = None,
        mode: int = 0,
        needs: int = 0,
    ) -> None:
        """Makes something that is no open file in the caller's place, if its owner has to be recorded."""
        owner = self._new(who, path, mode, needs)
        if given is not None:
            owner = given if owner is None else given._replace(uid=owner.uid, gid=owner.gid, mode=owner.mode)
        if owner is None:
            self._listener.go_on(call)
            return
        path = path.rstrip(b"/")
        make(path)
        self._write(path, os.lstat(path).st_mode, owner, follow=False)
        self._listener.answer(call)

    def mkdir(self, call: Call, who: Credentials) -> None:
        self._mkdir(call, who, _AT_FDCWD, call.args[0], call.args[1])

    def mkdirat(self, call: Call, who: Credentials) -> None:
        self._mkdir(call, who, call.args[0] & KEEP, call.args[1], call.args[2])

    def _mkdir(self, call: Call, who: Credentials, dir_fd: int, address: int, mode: int) -> None:
        path = self._path(call, who, dir_fd, address)
        mode = mode & 0o1777 & ~self._umask(call.pid)
        self._make(call, who, path, lambda where: self._make_directory(where, mode), None, mode, stat.S_IRWXU)

    def _make_directory(self, path: bytes, mode: int) -> None:
        os.mkdir(path, mode)

    def symlink(self, call: Call, who: Credentials) -> None:
        self._symlink(call, who, call.args[0], _AT_FDCWD, call.args[1])

    def symlinkat(self, call: Call, who: Credentials) -> None:
        self._symlink(call, who, call.args[0], call.args[1] & KEEP, call.args[2])

    def _symlink(self, call: Call, who: Credentials, text: int, dir_fd: int, address: int) -> None:
        link, path = self._string(call, text), self._path(call, who, dir_fd, address)
        self._make(call, who, path, lambda where: os.symlink(link, where))

    def mknod(self, call: Call, who: Credentials) -> None:
        self._mknod(call, who, _AT_FDCWD, call.args[0], call.args[1], call.args[2])

    def mknodat(self, call: Call, who: Credentials) -> None:
        self._mknod(call, who, call.args[0] & KEEP, call.args[1], call.args[2], call.args[3])

    def _mknod(self, call: Call, who: Credentials, dir_fd: int, address: int, mode: int, device: int) -> None:
        path = self._path(call, who, dir_fd, address)
        kind = stat.S_IFMT(mode)
        given = None
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            if not who.effective:
                raise Errno(errno.EPERM)
            device &= KEEP
            if kind == stat.S_IFCHR and not device:
                raise Errno(errno.EPERM)  # as overlayfs has it: this one stands for a deleted file
            numbers = (device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xFFF00)
            given = Record(0, 0, kind, numbers)
            kind = stat.S_IFREG
        permissions = stat.S_IMODE(mode) & ~self._umask(call.pid)
        needs = stat.S_IRUSR | stat.S_IWUSR
        self._make(call, who, path, lambda where: self._make_node(where, kind | permissions), given, permissions, needs)

    def _make_node(self, path: bytes, mode: int) -> None:
        os.mknod(path, mode)

    def open(self, call: Call, who: Credentials) -> None:
        self._open(call, who, _AT_FDCWD, call.args[0], call.args[1], call.args[2])

    def creat(self, call: Call, who: Credentials) -> None:
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        self._open(call, who, _AT_FDCWD, call.args[0], flags, call.args[1])

    def openat(self, call: Call, who: Credentials) -> None:
        self._open(call, who, call.args[0] & KEEP, call.args[1], call.args[2], call.args[3])

    def openat2(self, call: Call, who: Credentials) -> None:
        data = self._listener.read(call.pid, call.args[2], 24) if call.args[3] >= 24 else None
        flags, mode, resolve = struct.unpack("=QQQ", data) if data else (0, 0, 1)
        if resolve or not flags & _WRITES:
            self._listener.go_on(call)
            return
        self._open(call, who, call.args[0] & KEEP, call.args[1], flags, mode)

    def _open(self, call: Call, who: Credentials, dir_fd: int, address: int, flags: int, mode: int) -> None:
        makes = flags & (os.O_CREAT | _O_TMPFILE & ~os.O_DIRECTORY)
        if who.is_root and not makes:
            self._listener.go_on(call)
            return
        path = self._path(call, who, dir_fd, address)
        if self._is_shown(path) or (path.startswith(b"/proc/") and not path.startswith(b"/proc/%d/" % call.pid)):
            self._listener.go_on(call)
            return
        is_nameless = flags & _O_TMPFILE == _O_TMPFILE
        is_there = not is_nameless and os.path.lexists(path)
        if is_there and not who.is_root and not os.path.islink(path):
            status = os.stat(path)
            owner = self._read(path, status.st_mode)
            writes = stat.S_ISREG(status.st_mode) and flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC)
            if writes and not who.may(2, owner.mode_of(status.st_mode), owner.uid, owner.gid):
                raise Errno(errno.EACCES)
        if is_there or not makes:
            self._listener.go_on(call)
            return
        mode = stat.S_IMODE(mode) & ~self._umask(call.pid)
        owner_of_new = self._new(who, path + b"/." if is_nameless else path, mode, stat.S_IRUSR | stat.S_IWUSR)
        if owner_of_new is None:
            self._listener.go_on(call)
            return
        self._create(call, path, flags, mode, owner_of_new)

    def _is_shown(self, path: bytes) -> bool:
        """Whether what lies there is no file of a layer."""
        return path.startswith(b"/dev/")

    def _create(self, call: Call, path: bytes, flags: int, mode: int, owner: Record) -> None:
        exclusive = 0 if flags & _O_TMPFILE == _O_TMPFILE else os.O_EXCL
        try:
            fd = os.open(path, flags | exclusive | os.O_CLOEXEC | os.O_NOCTTY, mode)
        except FileExistsError:  # another process was first: the caller opens that one
            self._listener.go_on(call)
            return
        try:
            # an attribute is set by a new descriptor: this one may be for reading only
            self._write(b"/proc/self/fd/%d" % fd, stat.S_IFREG, owner, follow=True)
            self._listener.give(call, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def _may_change(self, call: Call, who: Credentials, *places: tuple[int, int]) -> None:
        """Goes on if the directories that the paths lie in may be written to."""
        if not who.is_root:
            for dir_fd, address in places:
                path = self._path(call, who, dir_fd & KEEP, address)
                parent = path.rstrip(b"/").rpartition(b"/")[0] or b"/"
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    status = os.stat(parent)
                    above = self._read(parent, status.st_mode)
                    if not who.may(3, above.mode_of(status.st_mode), above.uid, above.gid):
                        raise Errno(errno.EACCES)
                    if status.st_mode & stat.S_ISVTX and not who.effective and who.fsuid != above.uid:
                        own = self._read(path, os.lstat(path).st_mode, follow=False)
                        if own.uid != who.fsuid:
                            raise Errno(errno.EPERM)
        self._listener.go_on(call)

    def unlink(self, call: Call, who: Credentials) -> None:
        self._may_change(call, who, (_AT_FDCWD, call.args[0]))

    def unlinkat(self, call: Call, who: Credentials) -> None:
        self._may_change(call, who, (call.args[0], call.args[1]))

    def rename(self, call: Call, who: Credentials) -> None:
        self._may_change(call, who, (_AT_FDCWD, call.args[0]), (_AT_FDCWD, call.args[1]))

    def renameat(self, call: Call, who: Credentials) -> None:
        self._may_change(call, who, (call.args[0], call.args[1]), (call.args[2], call.args[3]))

    def chroot(self, call: Call, who: Credentials) -> None:
        if not who.effective:
            raise Errno(errno.EPERM)
        who.chrooted = True
        self._table.mark(call.pid, who)
        self._listener.go_on(call)

    def io_uring_setup(self, call: Call, who: Credentials) -> None:
        """Refused, as the filter of an ordinary step does: what goes through a ring is a call that nobody sees."""
        del who
        self._listener.fail(call, errno.EPERM)

    def execve(self, call: Call, who: Credentials) -> None:
        self._execute(call, who, _AT_FDCWD, call.args[0], 0)

    def execveat(self, call: Call, who: Credentials) -> None:
        self._execute(call, who, call.args[0] & KEEP, call.args[1], call.args[4])

    def _execute(self, call: Call, who: Credentials, dir_fd: int, address: int, flags: int) -> None:
        """A set-id program gives its owner's rights; the other things that executing changes need no record.

        A program whose calls are made in another way than this machine's, a 32-bit one, is told to be of no format that
        is executed: its owners could not be recorded.
        """
        with contextlib.suppress(OSError, Errno):
            fd = os.open(self._path(call, who, dir_fd, address, flags), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                head = os.read(fd, 5)
            finally:
                os.close(fd)
            if head[:4] == b"\x7fELF" and head[4] == 1:
                self._listener.fail(call, errno.ENOEXEC)
                return
        if not (who.is_root and who.ruid == who.euid == 0 and who.rgid == who.egid == 0):
            with contextlib.suppress(OSError, Errno):
                path = self._path(call, who, dir_fd, address, flags)
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
                    owner = self._read(path, status.st_mode)
                    who.executed(status.st_mode, owner.uid, owner.gid)
                    self._table.mark(call.pid, who)
        self._listener.go_on(call)


_HANDLERS: dict[str, _Handler] = {
    row.split()[0]: getattr(Recorder, "renameat" if row.startswith("renameat2") else row.split()[0])
    for row in _NUMBERS.strip().split("\n")
    if row.split()[0] != "rmdir"
} | {"rmdir": Recorder.unlink}


def _signed(fd: int) -> int:
    """A descriptor from its argument, of which the kernel reads 32 bits."""
    fd &= KEEP
    return fd - (1 << 32) if fd >= 1 << 31 else fd
