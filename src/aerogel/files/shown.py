"""Files of layers with other times: a directory in overlay form that goes above the layers of a step.

Only the step sees it (`solve.seen`): what is in it differs from what is below in its time alone. Works in the sandbox
helper, on directories that layers were unpacked into. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

from aerogel.files.inside import Directories, open_regular, system_errors

__all__ = ["write_shown"]

_FICLONE = 0x40049409
_CHUNK = 1 << 20
_SECOND = 10**9
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_shown(lower_fds: Sequence[int], target_fd: int, rows: Iterable[tuple[bytes, int]]) -> int:
    """Fills the empty directory `target_fd` with copies of what the layers (lowest first) show; gives their number.

    `rows` are paths of regular files and directories, with the seconds since 1970 that each is to have. Directories
    on the way keep their times. Raises AerogelError `shown.failed`.
    """
    with ExitStack() as stack:
        lowers = [stack.enter_context(Directories(fd)) for fd in reversed(lower_fds)]
        return _Writer(lowers, target_fd).run(sorted(rows))


class _Writer:
    def __init__(self, lowers: list[Directories], target: int) -> None:
        self._lowers = lowers
        self._target = target
        self._times: dict[bytes, int] = {}
        """Of the directories made so far, in nanoseconds."""

    def run(self, rows: list[tuple[bytes, int]]) -> int:
        with system_errors("make", b"", "shown.failed"):
            self._directory(b"")
        for path, seconds in rows:
            with system_errors("show", path, "shown.failed"):
                self._parents(path)
                if self._is_directory(path):
                    self._directory(path)
                    self._times[path] = seconds * _SECOND
                else:
                    self._file(path, seconds * _SECOND)
        for path, time in sorted(self._times.items(), reverse=True):
            with system_errors("show", path, "shown.failed"):
                os.utime(path or b".", ns=(time, time), dir_fd=self._target, follow_symlinks=False)
        return len(rows)

    def _parents(self, path: bytes) -> None:
        at = path.find(b"/")
        while at >= 0:
            if path[:at] not in self._times:
                self._directory(path[:at])
            at = path.find(b"/", at + 1)

    def _is_directory(self, path: bytes) -> bool:
        parent, _, name = path.rpartition(b"/")
        for lower in self._lowers:
            with suppress(FileNotFoundError, NotADirectoryError):
                return stat.S_ISDIR(os.lstat(name or b".", dir_fd=lower.fd(parent)).st_mode)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _directory(self, path: bytes) -> None:
        """Makes a directory as the uppermost layer that has it shows it."""
        if path in self._times:
            return
        for lower in self._lowers:
            with suppress(FileNotFoundError, NotADirectoryError):
                source = os.dup(lower.fd(path))
                break
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        try:
            if path:
                os.mkdir(path, 0o700, dir_fd=self._target)
            made = os.open(path or b".", _OPEN_DIR, dir_fd=self._target)
            try:
                self._times[path] = _dress(source, made)
            finally:
                os.close(made)
        finally:
            os.close(source)

    def _file(self, path: bytes, time: int) -> None:
        for lower in self._lowers:
            with suppress(FileNotFoundError, NotADirectoryError):
                source = open_regular(lower, path)
                break
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        try:
            made = os.open(path, _NEW_FILE, 0o600, dir_fd=self._target)
            try:
                _fill(source, made)
                _dress(source, made)
                os.utime(made, ns=(time, time))
            finally:
                os.close(made)
        finally:
            os.close(source)


def _dress(source: int, made: int) -> int:
    """Gives what was made the owner, attributes and mode of its source, whose time in nanoseconds is returned."""
    wanted, present = os.fstat(source), os.fstat(made)
    if (wanted.st_uid, wanted.st_gid) != (present.st_uid, present.st_gid):
        os.fchown(made, wanted.st_uid, wanted.st_gid)
    names: list[str] = []
    with suppress(OSError):
        names = os.listxattr(source)
    for name in names:
        # Not overlayfs's marks: a directory is merged with those below, whatever it was in its layer.
        if name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay.")):
            os.setxattr(made, name, os.getxattr(source, name))
    os.fchmod(made, stat.S_IMODE(wanted.st_mode))
    return wanted.st_mtime_ns


def _fill(source: int, made: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(made, _FICLONE, source)
        return
    while data := os.read(source, _CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(made, view) :]
