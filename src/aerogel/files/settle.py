"""Makes what a step wrote the same whenever it ran: its times, Python's compiled files, logs and caches with dates.

Works on the upper directory of an overlay mount, after the step and in the sandbox helper, so that later steps see
what the layer will say. What was written during the step gets one time, the *mark*: a second after the newest thing
that the step could have worked on, so `make` in a later step finds nothing out of date. Times that the step itself
set (of unpacked archives, say) stay. The mark depends on files only, never on the clock; an image is given its own
times when it is made. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from aerogel.files.inside import remove_tree, system_errors
from aerogel.files.pyc import HEAD, fits, is_compiled, recorded_time, sources_of, with_time

__all__ = ["DROPPED", "EMPTIED", "settle"]

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SECOND = 10**9
_DAY = 86400

EMPTIED = (
    "etc/machine-id",
    "var/log/alternatives.log",
    "var/log/apt/history.log",
    "var/log/apt/term.log",
    "var/log/bootstrap.log",
    "var/log/dnf.log",
    "var/log/dpkg.log",
    "var/log/fontconfig.log",
    "var/log/lastlog",
    "var/log/yum.log",
)
"""Files that say when something happened, or who the machine is: kept, with nothing in them."""

DROPPED = (
    "etc/.pwd.lock",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/periodic",
    "var/lib/dbus/machine-id",
    "var/log/apt/eipp.log.xz",
    "*/.cache/node-gyp",
    "*/.cache/pip",
    "*/.npm/_cacache",
    "*/.npm/_logs",
    "*/.npm/_update-notifier-last-checked",
)
"""What its program makes again: locks, and caches that hold times, inode numbers or answers of servers.

A leading `*` stands for the home of an account, `/root` or a folder in `/home`.
"""

_SCRATCH_NAME = re.compile(rb"(/tmp/(?:pip-(?:[a-z]+-)+|tmp))[a-z0-9_]{8}(?=/)")
"""A folder as Python's tempfile names it, of pip or without a prefix; the last eight characters are random."""

_SHADOW = (b"etc/shadow", b"etc/shadow-")
_SHADOW_DAY = re.compile(rb"(?m)^([^:\n]*:[^:\n]*:)([0-9]{1,9}):")
"""The day on which a password was set. Accounts that a step makes get the newest day that was there before."""
_OLD_DAY = 3652  # 1980-01-01; 0 would ask for a new password

_LISTS = b"var/lib/apt/lists/"
"""Lists of packages have the time at which the mirror says it got them, and mirrors differ."""


def settle(
    upper_fd: int,
    lower_fds: Sequence[int],
    *,
    since_ns: int,
    newest: int,
    unsettled: Mapping[int, int] | None = None,
    keep_volatile: bool = False,
) -> int:
    """Settles the directory and gives the mark, in seconds since 1970.

    `since_ns` is when the step began, by the clock of the file system; `newest` the latest time in seconds of what
    was there before; `unsettled` are times that only this step saw, with what stands for them. With `keep_volatile`
    no log or cache is touched. Raises AerogelError `settle.failed`.
    """
    settling = _Settling(upper_fd, tuple(reversed(lower_fds)), since_ns, unsettled or {})
    return settling.run(newest, keep_volatile=keep_volatile)


class _Settling:
    def __init__(self, upper_fd: int, lower_fds: tuple[int, ...], since_ns: int, unsettled: Mapping[int, int]) -> None:
        self._upper = upper_fd
        self._lowers = lower_fds
        self._since_ns = since_ns
        self._unsettled = unsettled

    def run(self, newest: int, *, keep_volatile: bool) -> int:
        if not keep_volatile:
            self._drop()
        found = list(self._walk())
        for _, status in found:
            # The clock may have been set back meanwhile; a change of the inode tells when that was.
            self._since_ns = min(self._since_ns, status.st_ctime_ns)
        mark = max([newest, *(time for path, status in found if (time := self._time(status, path)) is not None)]) + 1
        if not keep_volatile:
            self._empty()
        for path, status in found:
            if is_compiled(path) and stat.S_ISREG(status.st_mode):
                with system_errors("settle", path, "settle.failed"):
                    self._compiled(path, mark)
                    if not keep_volatile and self._time(status) is None:
                        self._rewrite(path, _without_scratch)
        for path, status in found:
            with system_errors("settle", path, "settle.failed"):
                self._date(path, status, mark)
        return mark

    def _time(self, status: os.stat_result, path: bytes = b"") -> int | None:
        """The time of a file as any run of the step would give it, None for one that this step wrote."""
        if path.startswith(_LISTS):
            return None
        seconds = status.st_mtime_ns // _SECOND
        known = self._unsettled.get(seconds)
        if known is not None:
            return known
        return None if status.st_mtime_ns >= self._since_ns else seconds

    def _walk(self) -> Iterator[tuple[bytes, os.stat_result]]:
        """Everything that a layer can hold, below the directory."""
        pending = [b""]
        while pending:
            folder = pending.pop()
            with system_errors("settle", folder, "settle.failed"):
                fd = os.open(folder or b".", _OPEN_DIR, dir_fd=self._upper)
                try:
                    with os.scandir(fd) as listing:
                        rows = [(os.fsencode(each.name), each.stat(follow_symlinks=False)) for each in listing]
                finally:
                    os.close(fd)
            for name, status in rows:
                path = folder + b"/" + name if folder else name
                if stat.S_ISSOCK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
                    continue  # hides what is below, or is in no layer
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
                yield path, status

    def _date(self, path: bytes, status: os.stat_result, mark: int) -> None:
        known = self._time(status, path)
        seconds = mark if known is None else known
        os.utime(path, ns=(seconds * _SECOND, seconds * _SECOND), dir_fd=self._upper, follow_symlinks=False)

    # Python's compiled files.

    def _compiled(self, path: bytes, mark: int) -> None:
        """Gives a compiled file that fits a source written by this step the time that the source gets."""
        fd = os.open(path, _OPEN_FILE, dir_fd=self._upper)
        try:
            head = os.pread(fd, HEAD, 0)
            recorded = recorded_time(head)
            if recorded is None:
                return
            source = self._lookup(sources_of(path))
            if source is None:
                # Nothing compares it with a source any more, but it would differ from run to run.
                time = None if recorded >= self._since_ns // _SECOND else self._unsettled.get(recorded, recorded)
            elif fits(head, source.st_mtime_ns // _SECOND, source.st_size):
                time = self._time(source)
            else:
                return
            new = with_time(head, mark if time is None else time)
            if new != head:
                os.pwrite(fd, new, 0)
        finally:
            os.close(fd)

    def _lookup(self, path: bytes) -> os.stat_result | None:
        """What is at a path, in the step's own directory or in those below; not through symbolic links."""
        parent = path.rpartition(b"/")[0]
        for fd in (self._upper, *self._lowers):
            try:
                status = os.lstat(path, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                if parent and self._hides(parent, fd):
                    return None
                continue
            return status if stat.S_ISREG(status.st_mode) else None
        return None

    @staticmethod
    def _hides(folder: bytes, fd: int) -> bool:
        """Whether a directory of this layer shows nothing of those below it."""
        for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
            try:
                opened = os.open(folder, _OPEN_DIR, dir_fd=fd)
            except OSError:
                return False
            try:
                if os.getxattr(opened, name) == b"y":
                    return True
            except OSError:
                continue
            finally:
                os.close(opened)
        return False

    # Logs and caches.

    def _homes(self) -> list[str]:
        found = ["root"]
        with suppress(OSError):
            fd = os.open(b"home", _OPEN_DIR, dir_fd=self._upper)
            try:
                found += [f"home/{name}" for name in sorted(os.listdir(fd))]
            finally:
                os.close(fd)
        return found

    def _drop(self) -> None:
        homes = self._homes()
        for pattern in DROPPED:
            for home in homes if pattern.startswith("*") else [""]:
                path = os.fsencode(pattern.replace("*", home, 1) if home else pattern)
                parent, _, name = path.rpartition(b"/")
                fd = self._folder(parent)
                if fd is None:
                    continue
                try:
                    status = os.lstat(name, dir_fd=fd)
                    times = os.fstat(fd)
                    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                        with system_errors("settle", path, "settle.failed"):
                            remove_tree(name, fd)
                            os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
                except FileNotFoundError:
                    continue
                finally:
                    os.close(fd)

    def _folder(self, path: bytes) -> int | None:
        """The directory, if all on the way to it are directories of this step."""
        fd = os.dup(self._upper)
        for part in path.split(b"/"):
            try:
                below = os.open(part, _OPEN_DIR, dir_fd=fd)
            except OSError:
                os.close(fd)
                return None
            os.close(fd)
            fd = below
        return fd

    def _empty(self) -> None:
        for path in map(os.fsencode, EMPTIED):
            self._rewrite(path, lambda _: b"")
        first = self._since_ns // _SECOND // _DAY

        def settled(data: bytes) -> bytes:
            days = [day for _, text in _SHADOW_DAY.findall(data) if (day := int(text)) < first]
            newest = b"%d" % max(days, default=_OLD_DAY)
            return _SHADOW_DAY.sub(
                lambda found: found[0] if int(found[2]) < first else b"%b%b:" % (found[1], newest), data
            )

        for path in _SHADOW:
            self._rewrite(path, settled)

    def _rewrite(self, path: bytes, change: Callable[[bytes], bytes]) -> None:
        """Changes the content of a regular file of this step in place."""
        parent, _, name = path.rpartition(b"/")
        folder = self._folder(parent)
        if folder is None:
            return
        try:
            fd = os.open(name, _OPEN_FILE, dir_fd=folder)
        except OSError:
            return
        finally:
            os.close(folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return
            data = os.pread(fd, 1 << 22, 0)
            new = change(data)
            if new != data:
                os.ftruncate(fd, 0)
                os.pwrite(fd, new, 0)
        finally:
            os.close(fd)


def _without_scratch(data: bytes) -> bytes:
    """A compiled file without the random name of the folder where pip compiled it.

    The interpreter puts the real path in its place when it loads the file, and the length stays.
    """
    return _SCRATCH_NAME.sub(rb"\g<1>00000000", data)
