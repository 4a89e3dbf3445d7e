"""What a run read of the host, so that a later one can tell that it would read the same: the ground of `cli.replay`.

Whoever reads something of the host or of the store that decides what a build gives says so to the `Witness` of the
run: a file that was looked at (or was not there), a folder of which directories were listed, or that there was
something which cannot be told again. `holds` asks the kernel whether all that is as it was. Nothing is read but names
and states of files: the change time of a file cannot be set by a program, so a change is never missed; what changed
just before it was looked at might change again within the same tick of the clock and is not vouched for.

Standard library only, and little of it: this is on the way to a build that has nothing to do.
"""

from __future__ import annotations

import marshal
import os
import stat
import time
from _blake2 import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Status(Protocol):
        """The state of a file: `os.stat_result` and what is made of it."""

        @property
        def st_mode(self) -> int: ...
        @property
        def st_dev(self) -> int: ...
        @property
        def st_ino(self) -> int: ...
        @property
        def st_uid(self) -> int: ...
        @property
        def st_gid(self) -> int: ...
        @property
        def st_size(self) -> int: ...
        @property
        def st_mtime_ns(self) -> int: ...
        @property
        def st_ctime_ns(self) -> int: ...

    Identity = tuple[int, ...]
    Kept = tuple[int | bytes, ...]
    Facts = tuple[dict[str, Identity | None], dict[str, Kept | None], list[tuple[str, "Listings"]]]
    Listings = dict[bytes, tuple[bytes, dict[bytes, int]]]
    """Directory -> fingerprint of what is in it, and the names that do not count, with their kinds (S_IFMT): another
    kind may count."""

__all__ = ["RACY_NS", "Witness", "fingerprint", "holds", "is_racy", "row", "touch"]

RACY_NS = 50_000_000
_COARSE_NS = 2_100_000_000
_SECOND_NS = 10**9

_TOUCH_AFTER_S = 6 * 3600.0
_FOLDER = 3
"""Numbers in the identity of a folder."""


class Witness:
    """What one run read. Threads may share it."""

    def __init__(self) -> None:
        self._files: dict[str, Identity | None] = {}
        self._kept: dict[str, Kept | None] = {}
        self._trees: list[tuple[str, Listings]] = []
        self._doubts: list[str] = []
        self._is_sworn = False

    def look(self, path: str | os.PathLike[str]) -> None:
        """A file of the host, or one that is not there, is about to be read. A folder counts as being one."""
        name = os.path.abspath(path)
        found = self._files[name] = _identity(name)
        if found is not None and len(found) > _FOLDER and is_racy(found[-1], time.time_ns()):
            self.doubt(name)

    def keep(self, path: str) -> None:
        """A file of the store (or that it has none of this name): never changed in place, only replaced or removed."""
        self._kept[path] = _kept_identity(path)

    def listed(self, root: str | os.PathLike[str], listings: Listings, newest_ns: int, began_ns: int) -> None:
        """Directories below `root` were listed, from `began_ns` on; `newest_ns` is the last change of what was found."""
        self._trees.append((os.path.abspath(root), listings))
        if is_racy(newest_ns, began_ns):
            self.doubt(str(root))

    def doubt(self, what: str) -> None:
        """Something decides the result that cannot be looked at again."""
        self._doubts.append(what)

    def swear(self) -> None:
        """Nothing was done but looking: the run would give the same again while all this holds."""
        self._is_sworn = True

    def facts(self, since_ns: int = 0) -> Facts | None:
        """What must hold, as `marshal` takes it; None when it cannot be told, or for a run that began at `since_ns` and
        may have read a file before its last change.
        """
        if self._doubts or not self._is_sworn:
            return None
        if since_ns and any(
            len(each) > _FOLDER and is_racy(each[-1], since_ns) for each in self._files.values() if each
        ):
            return None
        return self._files, self._kept, self._trees


def holds(facts: Facts) -> bool:
    """Whether everything is as it was. Raises OSError for a folder that cannot be read any more."""
    files, kept, trees = facts
    return (
        all(_identity(path) == found for path, found in files.items())
        and all(_kept_identity(path) == found for path, found in kept.items())
        and all(_same_tree(os.fsencode(root), listings) for root, listings in trees)
    )


def touch(facts: Facts) -> None:
    """Notes that files of the store are in use, as reading them would: once in six hours is enough."""
    now_s = time.time()
    for path in facts[1]:
        if "/actions-v1/" in path and now_s - os.stat(path).st_mtime > _TOUCH_AFTER_S:
            os.utime(path)


def is_racy(changed_ns: int, now_ns: int) -> bool:
    """Whether a change is so recent that the next one may have the same time stamp.

    Kernels tick every 1 to 10 ms; some file systems keep seconds only, or even ones (vfat).
    """
    tick_ns = RACY_NS if changed_ns % _SECOND_NS else _COARSE_NS
    return changed_ns > now_ns - tick_ns


def row(name: bytes, status: Status) -> tuple[bytes | int, ...]:
    """What is compared of one name in a directory. A directory is its own listing: times and size do not count."""
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        return (name, mode, status.st_dev, status.st_ino, status.st_uid, status.st_gid)
    return (name, mode, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def fingerprint(rows: Iterable[tuple[bytes | int, ...]]) -> bytes:
    """The digest of the rows of a directory, which are sorted here."""
    # Form 2 has no references between objects, so equal rows give equal bytes.
    return blake2b(marshal.dumps(sorted(rows), 2), digest_size=16).digest()


def _same_tree(root: bytes, listings: Listings) -> bool:
    for path, (expected, ignored) in listings.items():
        rows = []
        with os.scandir(root + b"/" + path) as listing:
            for each in listing:
                status = each.stat(follow_symlinks=False)
                kind = ignored.get(each.name)
                if kind is None:
                    rows.append(row(each.name, status))
                elif kind != stat.S_IFMT(status.st_mode):
                    return False
        if fingerprint(rows) != expected:
            return False
    return True


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        return (mode, found.st_dev, found.st_ino)
    return (mode, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _kept_identity(path: str) -> Kept | None:
    """Of a blob, whose name is its content, that it is there; of a record what it says: inodes are used again."""
    try:
        if "/blobs/" in path:
            found = os.stat(path)
            return (found.st_dev, found.st_ino, found.st_size)
        with open(path, "rb") as file:
            return (blake2b(file.read(), digest_size=16).digest(),)
    except OSError:
        return None
