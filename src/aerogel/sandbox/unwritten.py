"""Files that are on no disk where nothing can be mounted: secrets, on the rungs `chroot` and `proot`.

At its place in the tree there is an empty file that nobody may read. Whoever answers a step's calls (`procshim`, `bare`)
answers those that lead to it: opened it gives a descriptor of memory that nobody can change, looked at it is that memory
with the owner and mode that were asked for. A name that the step gives the empty file leads there too, and no layer can
hold more than the empty file. What is executed is read by the kernel: such a file cannot be.

Standard library only: part of the helper. Spec: memfd_create(2), fcntl(2) F_SEAL_*.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import NamedTuple

from aerogel.errors import AerogelError
from aerogel.sandbox import inroot, syscalls

__all__ = ["Unwritten", "UnwrittenFile"]

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_NOEXEC_SEAL = 0x8
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_NEW = os.O_CREAT | os.O_EXCL
_NAMES = {"x86_64": ("=Q", 16), "aarch64": ("=I", 20)}
"""Where `struct stat` has the number of names, which memory has not: st_nlink."""


class UnwrittenFile(NamedTuple):
    """Memory `fd` that stands for a file; `mark` is the empty file in the tree, `mode` its permissions."""

    fd: int
    mark: int
    mode: int
    uid: int
    gid: int

    @property
    def path(self) -> bytes:
        """For calls of this process."""
        return b"/proc/self/fd/%d" % self.fd

    def opened(self, flags: int) -> int:
        """Gives a new descriptor, as for a file of a read-only mount. Raises OSError."""
        if flags & _NEW == _NEW:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if flags & _WRITES and not flags & os.O_PATH:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return os.open(self.path, flags & ~(os.O_CREAT | os.O_NOFOLLOW) | os.O_CLOEXEC)

    def stat_bytes(self) -> bytes:
        """`struct stat` of the file, which has one name."""
        data = bytearray(syscalls.stat_bytes(self.path, 0))
        form, offset = _NAMES[os.uname().machine]
        struct.pack_into(form, data, offset, 1)
        return bytes(data)

    def statx_bytes(self, mask: int) -> bytes:
        """`struct statx` of the file, which has one name."""
        data = bytearray(syscalls.statx_bytes(self.path, 0, mask))
        struct.pack_into("=I", data, 16, 1)
        return bytes(data)


class Unwritten:
    """Such files of one step; false when there are none."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], UnwrittenFile] = {}

    def __bool__(self) -> bool:
        return bool(self._files)

    def put(self, place: str, data: bytes, uid: int, gid: int, mode: int, *, is_bare: bool) -> UnwrittenFile:
        """Makes one at a place where nothing is; `is_bare` says that nobody can give files away. Raises OSError."""
        fd = _in_memory(data)
        if not is_bare:
            os.fchown(fd, uid, gid)
            with contextlib.suppress(PermissionError):  # where memory may not be executed
                os.fchmod(fd, mode)
        mark = os.open(place, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0)
        file = UnwrittenFile(fd, mark, mode, uid, gid)
        for each in (fd, mark):
            status = os.fstat(each)
            self._files[status.st_dev, status.st_ino] = file
        return file

    def of(self, status: os.stat_result) -> UnwrittenFile | None:
        """The file that this is the status of, by its place or by its memory."""
        return self._files.get((status.st_dev, status.st_ino))

    def at(self, path: bytes, *, follow: bool = False) -> UnwrittenFile | None:
        """The file that a path of this process leads to."""
        try:
            return self.of(os.stat(path, follow_symlinks=follow))
        except OSError:
            return None

    def below(self, root: int, path: bytes, *, follow: bool) -> UnwrittenFile | None:
        """The file that a path inside of the directory `root` leads to."""
        above, _, name = os.fsdecode(path).rpartition("/")
        try:
            found = inroot.find(root, above)
            try:
                if found.missing or not found.is_dir:
                    return None
                status = os.stat(name, dir_fd=found.fd, follow_symlinks=False)
            finally:
                os.close(found.fd)
            if follow and stat.S_ISLNK(status.st_mode):
                found = inroot.find(root, os.fsdecode(path))
                try:
                    if found.missing:
                        return None
                    status = os.fstat(found.fd)
                finally:
                    os.close(found.fd)
        except (OSError, AerogelError):  # the kernel says why
            return None
        return self.of(status)

    def close(self) -> None:
        """Gives the memory back, once nobody has it open."""
        for file in set(self._files.values()):
            os.fchmod(file.mark, 0o600)  # if the step moved it, it may be read again by whoever takes the layer
            os.close(file.fd)
            os.close(file.mark)
        self._files.clear()


def _in_memory(data: bytes) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("secret", flags)
    except PermissionError:  # vm.memfd_noexec=2
        fd = os.memfd_create("secret", flags | _MFD_NOEXEC_SEAL)
    try:
        while data:
            data = data[os.write(fd, data) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
