"""Directories below a root, reached one component at a time, so that no link ever leads out of it.

Each component is opened relative to its parent with O_NOFOLLOW; a symbolic link is read as text and starts again at
the root. That needs no particular kernel (openat2 would save one call per new directory and need this as its
fallback), and holds while others change the tree. Descriptors of the directories used last are kept.
Standard library only: part of the helper's file jobs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.files.entry import shown

__all__ = ["Directories", "open_regular", "remove_tree", "system_errors"]

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_PLAIN_MODE = 0o755
"""Of directories that only paths below them tell of; set again because of the umask."""
_KEPT = 128
_MAX_LINKS = 40
_FULL_HINT = (
    "free some space: `aerogel prune` removes what no image needs; or put the store elsewhere with `AEROGEL_ROOT`"
)
_HOST_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}


@contextmanager
def system_errors(action: str, path: bytes, code: str) -> Iterator[None]:
    """Turns an OSError of the block into an AerogelError with `code`: `cannot <action> <path>: <reason>`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        status = EXIT_HOST if error.errno in _HOST_ERRNOS else 1
        hints = [_FULL_HINT] if error.errno in (errno.ENOSPC, errno.EDQUOT) else []
        raise AerogelError(
            f"cannot {action} `/{shown(path)}`: {reason}", code=code, exit_status=status, hints=hints
        ) from error


class Directories:
    """Open directories below `root_fd`, which stays the caller's. Use as a context manager or call `close`."""

    __slots__ = ("_fds", "_follow", "_real", "_root")

    def __init__(self, root_fd: int, *, follow: bool = False) -> None:
        self._root = root_fd
        self._follow = follow
        """Whether symbolic links to directories are followed, inside the root, or refused."""
        self._fds: dict[bytes, int] = {}
        self._real: dict[bytes, bytes] = {}
        """Where a kept path leads, if a symbolic link is on the way."""

    def __enter__(self) -> Directories:  # noqa: PYI034 - Self is not needed for a class that nobody derives from
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what is kept open; for a user that goes on, after a link or a directory was removed."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._real.clear()

    def fd(self, path: bytes, *, make: bool = False) -> int:
        """A descriptor of the directory, valid until the next call; the caller does not close it.

        With `make`, missing directories are made `0755`, and what is no directory is replaced by one.
        Raises OSError: ENOENT, ENOTDIR, ELOOP.
        """
        if not path:
            return self._root
        found = self._fds.get(path)
        if found is not None:
            return found
        parent, _, name = path.rpartition(b"/")
        near = self._fds.get(parent) if parent else self._root
        if near is not None:
            with suppress(OSError):
                fd = os.open(name, _OPEN_DIR, dir_fd=near)
                if parent in self._real:
                    self._real[path] = self._real[parent] + b"/" + name
                return self._keep(path, fd)
        fd, real = self._walk(path, make=make)
        if real != path:
            self._real[path] = real
        return self._keep(path, fd)

    def real(self, path: bytes) -> bytes:
        """The path without symbolic links of the directory that `fd` was last asked for."""
        return self._real.get(path, path)

    def _keep(self, path: bytes, fd: int) -> int:
        if len(self._fds) >= _KEPT:
            for oldest in list(self._fds)[: _KEPT // 2]:
                os.close(self._fds.pop(oldest))
                self._real.pop(oldest, None)
        self._fds[path] = fd
        return fd

    def _walk(self, path: bytes, *, make: bool) -> tuple[int, bytes]:
        pending = path.split(b"/")[::-1]
        stack = [os.dup(self._root)]
        names: list[bytes] = []
        links = 0
        try:
            while pending:
                part = pending.pop()
                if part in (b"", b"."):
                    continue
                if part == b"..":
                    if names:
                        names.pop()
                        os.close(stack.pop())
                    continue
                try:
                    stack.append(os.open(part, _OPEN_DIR, dir_fd=stack[-1]))
                    names.append(part)
                    continue
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, 0o755, dir_fd=stack[-1])
                    os.chmod(part, _PLAIN_MODE, dir_fd=stack[-1])
                    pending.append(part)
                    continue
                except OSError as error:
                    if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                        raise
                    link = self._link(part, stack[-1])
                    if link is None:
                        if not make:
                            raise
                        os.unlink(part, dir_fd=stack[-1])
                        pending.append(part)
                        continue
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                while link.startswith(b"/") and names:
                    names.pop()
                    os.close(stack.pop())
                pending += link.split(b"/")[::-1]
            return stack.pop(), b"/".join(names)
        finally:
            for fd in stack:
                os.close(fd)

    def _link(self, name: bytes, dir_fd: int) -> bytes | None:
        """The target of a symbolic link that may be followed."""
        if not self._follow:
            return None
        try:
            return os.readlink(name, dir_fd=dir_fd)
        except OSError:
            return None


def open_regular(directories: Directories, path: bytes) -> int:
    """Opens a regular file for reading. Raises OSError; EINVAL if it is something else."""
    parent, _, name = path.rpartition(b"/")
    fd = os.open(name, _OPEN_FILE, dir_fd=directories.fd(parent))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


def remove_tree(name: bytes | str, dir_fd: int | None = None, *, keep_top: bool = False) -> None:
    """Removes a file or a directory with all below it, following nothing; also directories of mode 000.

    With `keep_top` the directory itself stays. Raises OSError.
    """
    if not keep_top:
        try:
            os.unlink(name, dir_fd=dir_fd)
            return
        except (IsADirectoryError, PermissionError):
            pass
    # Pairs of an open directory and the names in it that are still there; a loop, because trees can be deep.
    top = _open_to_empty(name, dir_fd)
    pending: list[tuple[int, list[str]]] = [(top, os.listdir(top))]
    path: list[str] = []
    try:
        while pending:
            fd, names = pending[-1]
            if not names:
                pending.pop()
                os.close(fd)
                if path:
                    os.rmdir(path.pop(), dir_fd=pending[-1][0])
                continue
            child = names.pop()
            try:
                os.unlink(child, dir_fd=fd)
            except (IsADirectoryError, PermissionError):
                child_fd = _open_to_empty(child, fd)
                pending.append((child_fd, os.listdir(child_fd)))
                path.append(child)
    finally:
        for fd, _ in pending:
            os.close(fd)
    if not keep_top:
        os.rmdir(name, dir_fd=dir_fd)


def _open_to_empty(name: bytes | str, dir_fd: int | None) -> int:
    try:
        fd = os.open(name, _OPEN_DIR, dir_fd=dir_fd)
    except PermissionError:
        # overlayfs leaves work/work with mode 000. The kernel has no chmod that does not follow links, so the
        # kind is checked first; only the owner can be here at the same time.
        if not stat.S_ISDIR(os.lstat(name, dir_fd=dir_fd).st_mode):
            raise
        os.chmod(name, 0o700, dir_fd=dir_fd)
        return os.open(name, _OPEN_DIR, dir_fd=dir_fd)
    if os.fstat(fd).st_mode & 0o300 != 0o300:
        with suppress(OSError):
            os.fchmod(fd, 0o700)
    return fd
