"""The few ways in which the store touches the disk: whole files or nothing, and errors of the disk in words.

Not for content (`store.blobs`). Every write goes to a temporary name on the same file system and is renamed, so
that a reader sees the old file, the new file or none, whenever the writer is killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from aerogel.errors import EXIT_HOST, AerogelError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "boot_id",
    "disk_error",
    "disk_errors",
    "human_size",
    "is_same_file",
    "once",
    "read_file",
    "remove_tree",
    "sync_filesystem",
    "unlink",
    "write_whole",
]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT = frozenset({errno.ENOENT, errno.EISDIR})
"""Mostly of a file that the user named."""
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


_POLL_S = 0.05


def human_size(size_bytes: int) -> str:
    """A size as people write it: `512 B`, `1.5 KB`, `12 MB` (powers of 1000)."""
    value = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


@contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Turns errors of the operating system into `store.full`, `store.denied` or `store.io`, exit status 3.

    `path` is a directory on the file system in question.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: str, error: OSError) -> AerogelError:
    """The error to raise for one that was caught, for callers that cannot use `disk_errors`."""
    place = error.filename if isinstance(error.filename, str) else path
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return AerogelError(
            f"the disk that holds `{path}` is full: {_free(path)}",
            code="store.full",
            hints=[
                "free some space: `aerogel prune` removes what no image needs",
                "or put the store elsewhere with `AEROGEL_ROOT`",
            ],
            exit_status=EXIT_HOST,
        )
    if error.errno in _DENIED:
        return AerogelError(
            f"cannot write `{place}`: {reason}",
            code="store.denied",
            hints=["the store must be writable; `AEROGEL_ROOT` puts it elsewhere"],
            exit_status=EXIT_HOST,
        )
    return AerogelError(
        f"cannot use `{place}`: {reason}",
        code="store.io",
        hints=["check the path" if error.errno in _ABSENT else "`AEROGEL_ROOT` puts the store elsewhere"],
        exit_status=EXIT_HOST,
    )


def _free(path: str) -> str:
    try:
        state = os.statvfs(path)
    except OSError:
        return "no space left"
    text = f"{human_size(state.f_bavail * state.f_frsize)} free"
    if state.f_files and not state.f_favail:
        text += ", no inode left"
    return text


def read_file(path: str) -> bytes | None:
    """The whole file, or None when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error(os.path.dirname(path), error) from error
    try:
        size = os.fstat(fd).st_size
        data = os.read(fd, size + 1)
        while len(data) != size:
            more = os.read(fd, 1 << 20)
            if not more:
                break
            data += more
        return data
    except OSError as error:
        raise disk_error(os.path.dirname(path), error) from error
    finally:
        os.close(fd)


def write_whole(target: Path, write: Callable[[BinaryIO], object]) -> None:
    """Makes or replaces a file of a user: it is there whole or not at all. Raises `store.*`, and what `write` raises.

    A device, a pipe or another thing that is no file is written to and never replaced: root could put a file in the
    place of /dev/null.
    """
    with disk_errors(str(target.parent)):
        if _is_lasting(target):
            with target.open("wb") as file:
                write(file)
            return
        made = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with made.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            made.replace(target)
        finally:
            made.unlink(missing_ok=True)


def _is_lasting(path: Path) -> bool:
    """Whether there is something that a file must not take the place of: a device, a pipe, a link such as /dev/stdout."""
    absolute = os.path.abspath(path)
    if os.path.islink(absolute) and absolute.startswith(("/dev/", "/proc/")):
        return True
    try:
        mode = os.stat(absolute).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def unlink(path: str) -> bool:
    """Removes a file; False when it was not there. Raises `store.*`."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise disk_error(os.path.dirname(path), error) from error
    return True


def remove_tree(path: str) -> bool:
    """Removes a directory and all in it, directories without permissions too; False when something stays
    (files of mapped owners, which only the sandbox helper can remove).
    """
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        # Directories that their owner made unreadable or read-only, which images contain.
        _open_up(path)
        for directory, names, _ in os.walk(path):
            for name in names:
                _open_up(f"{directory}/{name}")
        shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _open_up(path: str) -> None:
    try:
        if not os.path.islink(path):
            os.chmod(path, 0o700)
    except OSError:
        return  # another owner's: reported by what stays


def sync_filesystem(path: str) -> None:
    """Waits until the file system that holds `path` has everything on its medium: syncfs(2)."""
    try:
        import ctypes

        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(fd) == 0:
                return
        finally:
            os.close(fd)
    except (ImportError, OSError, AttributeError):
        pass
    os.sync()


def boot_id() -> str:
    """Names this run of the kernel; what was written in another one may have been lost half-way."""
    data = read_file("/proc/sys/kernel/random/boot_id")
    return data.decode("ascii", "replace").strip() if data else "unknown"


@contextmanager
def once(directory: str, key: str, on_wait: Callable[[], object] | None = None) -> Iterator[bool]:
    """Holds the lock named `key`, among threads and processes; yields whether it had to wait for another holder.

    `on_wait` is called about twenty times a second while waiting, and may raise to give up. The lock ends with the process,
    however it ends. After waiting, look first whether the other holder has done the work already.
    """
    name = key.replace("/", "-").replace(":", "-")[:200]
    path = f"{directory}/{name}"
    waited = False
    while True:
        with disk_errors(directory):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                os.makedirs(directory, mode=0o700, exist_ok=True)
                continue
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waited = True
                # Not one long wait: Ctrl-C and a build that ends must be heard.
                if on_wait is not None:
                    on_wait()
                time.sleep(_POLL_S)
            if not is_same_file(fd, path):
                # The holder before us took the file away when it had done.
                continue
            try:
                yield waited
            finally:
                unlink(path)
            return
        finally:
            os.close(fd)


def is_same_file(fd: int, path: str) -> bool:
    """Whether `path` still names the open file."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
