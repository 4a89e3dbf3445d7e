"""Temporary files and directories that never outlive their process by long.

::

    <root>/scratch/
        s-<pid>-<random>/       one process (a session), made when it first needs something
            lock                held with flock(2) as long as the process lives
            f-<n>, d-<n>/       what it works on
        p-<name>                a download that the next process goes on with, held with flock(2) while it grows

Lock protocol: the owner makes the directory, opens `lock` and locks it; when the directory is gone by then (another
process took it for a leftover) it makes another one. Whoever gets the lock of a session without waiting owns a
leftover: its process is dead. It removes what it may; what belongs to mapped owners stays for `reclaim` with a remover.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue

from aerogel.errors import AerogelError
from aerogel.store.disk import disk_errors, is_same_file, remove_tree

__all__ = ["Scratch"]

_PART_AGE_S = 7 * 24 * 3600
"""So long nobody asks for the rest of a download that broke off: then it goes."""


class Scratch:
    """Scratch space on one file system; threads may share it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.directory_path = f"{root}/scratch"
        self._lock = threading.Lock()
        self._session: str | None = None
        self._fd = -1
        self._number = 0
        self._doomed: SimpleQueue[tuple[str, Callable[[str], object] | None] | None] = SimpleQueue()
        self._sweeper: threading.Thread | None = None

    def name(self, kind: str = "f") -> str:
        """A fresh path in this process's session; nothing is there yet. Raises `store.*`."""
        with self._lock:
            if self._session is None:
                with disk_errors(self.root):
                    self._session = self._start()
            self._number += 1
            return f"{self._session}/{kind}-{self._number}"

    def directory(self) -> str:
        """A fresh empty directory, mode 0700. Raises `store.*`."""
        path = self.name("d")
        with disk_errors(self.root):
            os.mkdir(path, 0o700)
        return path

    def file(self) -> tuple[int, str]:
        """A fresh file, open for reading and writing; the caller closes the descriptor. Raises `store.*`."""
        path = self.name()
        with disk_errors(self.root):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path

    def part(self, name: str) -> tuple[int, str]:
        """A file that stays when its process is ended; it may hold what an earlier one left, right or wrong.

        Waits for another process that works on it. The caller closes the descriptor. Raises `store.*`.
        """
        path = f"{self.directory_path}/p-{name}"
        with disk_errors(self.root):
            os.makedirs(self.directory_path, mode=0o700, exist_ok=True)
            while True:
                try:
                    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                except PermissionError:
                    os.unlink(path)  # whole and sealed by a process that was killed before it had its name
                    continue
                fcntl.flock(fd, fcntl.LOCK_EX)
                if is_same_file(fd, path):
                    return fd, path
                os.close(fd)

    def write_file(self, target: str, data: bytes | bytearray | Iterable[bytes | bytearray]) -> None:
        """Puts a whole file in place of `target` (same file system), making its directory. Raises `store.*`."""
        fd, path = self.file()
        try:
            with disk_errors(self.root):
                try:
                    for piece in [data] if isinstance(data, bytes | bytearray) else data:
                        view = memoryview(piece)
                        while view:
                            view = view[os.write(fd, view) :]
                finally:
                    os.close(fd)
                try:
                    os.rename(path, target)
                except FileNotFoundError:
                    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                    os.rename(path, target)
        except BaseException:
            _forget(path)
            raise

    def discard(self, path: str, remove: Callable[[str], object] | None = None) -> bool:
        """Removes a file or tree at once from its place, then from the disk (what mapped owners have by `remove`).

        False when something stays in the scratch space.
        """
        if not path.startswith(f"{self._session}/"):
            aside = self.name("t")
            with disk_errors(self.root):
                try:
                    os.rename(path, aside)
                except FileNotFoundError:
                    return True
            path = aside
        return _remove(path, remove)

    def discard_later(self, path: str, remove: Callable[[str], object] | None = None) -> None:
        """Removes a file or tree from its place at once, as `discard`, and from the disk by a thread.

        There are file systems where a directory takes milliseconds to go. `swept` and `close` wait for it.
        """
        if os.path.dirname(path) != self._session:
            aside = self.name("t")
            with disk_errors(self.root):
                try:
                    os.rename(path, aside)
                except FileNotFoundError:
                    return
            path = aside
        with self._lock:
            self._doomed.put((path, remove))
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
                self._sweeper.start()

    def _sweep(self) -> None:
        while (each := self._doomed.get()) is not None:
            # What stays is in the session, for those that reclaim it.
            with suppress(AerogelError, OSError):
                _remove(*each)

    def swept(self) -> None:
        """Waits until what `discard_later` got is gone."""
        with self._lock:
            sweeper, self._sweeper = self._sweeper, None
            if sweeper is not None:
                self._doomed.put(None)
        if sweeper is not None:
            sweeper.join()

    def reclaim(self, remove: Callable[[str], object] | None = None, *, parts: bool = False) -> list[str]:
        """Removes what dead processes left; `remove(path)` is asked for trees that this process may not remove.

        Downloads that can be gone on with are kept for a week, unless `parts` go as well. Returns the paths that stay.
        """
        try:
            names = os.listdir(self.directory_path)
        except FileNotFoundError:
            return []
        kept = []
        mine = os.path.basename(self._session) if self._session else None
        for name in names:
            path = f"{self.directory_path}/{name}"
            if name.startswith("p-"):
                _reclaim_part(path, 0 if parts else _PART_AGE_S)
            elif name != mine and not self._reclaim_one(path, remove):
                kept.append(path)
        return kept

    def leftovers(self) -> list[str]:
        """The sessions of dead processes, which `reclaim` removes."""
        try:
            names = os.listdir(self.directory_path)
        except FileNotFoundError:
            return []
        mine = os.path.basename(self._session) if self._session else None
        paths = [f"{self.directory_path}/{name}" for name in names if name != mine]
        return [path for path in paths if not _is_locked(path if os.path.isfile(path) else f"{path}/lock")]

    def _reclaim_one(self, path: str, remove: Callable[[str], object] | None) -> bool:
        """True when it is gone or belongs to a living process."""
        try:
            fd = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except NotADirectoryError:
            _forget(path)
            return True
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            if not is_same_file(fd, f"{path}/lock"):
                return True
            return _remove_session(path, remove)
        finally:
            os.close(fd)

    def _start(self) -> str:
        self.reclaim()
        os.makedirs(self.directory_path, mode=0o700, exist_ok=True)
        while True:
            path = f"{self.directory_path}/s-{os.getpid()}-{os.urandom(6).hex()}"
            os.mkdir(path, 0o700)
            try:
                fd = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue
            fcntl.flock(fd, fcntl.LOCK_EX)
            if is_same_file(fd, f"{path}/lock"):
                self._fd = fd
                return path
            os.close(fd)

    def close(self) -> None:
        """Ends the session and removes what is left in it; a new one begins when it is used again."""
        self.swept()
        with self._lock:
            session, self._session = self._session, None
            fd, self._fd = self._fd, -1
        if session is not None:
            _remove_session(session, None)
            os.close(fd)


def _reclaim_part(path: str, age_s: float) -> None:
    """Removes a download that nobody works on and that is older than `age_s`."""
    try:
        if os.lstat(path).st_mtime <= time.time() - age_s and not _is_locked(path):
            os.unlink(path)
    except OSError:
        return


def _is_locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _remove_session(path: str, remove: Callable[[str], object] | None) -> bool:
    """Removes a session, its lock last, so that it can be found again if this process is killed here."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return True
    gone = [_remove(f"{path}/{name}", remove) for name in names if name != "lock"]
    if not all(gone):
        return False
    _forget(f"{path}/lock")
    try:
        os.rmdir(path)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


def _remove(path: str, remove: Callable[[str], object] | None) -> bool:
    try:
        os.unlink(path)
        return True
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        pass
    if remove_tree(path):
        return True
    if remove is not None:
        remove(path)
    return not os.path.lexists(path)


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
