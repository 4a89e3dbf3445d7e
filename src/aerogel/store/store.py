"""The local store: blobs, layers, images (kept) and actions, snapshots (cache), safe to share and to kill.

::

    <data>/                 what users made: images
        lock                shared by every process that uses the store; exclusive while `store.gc` removes things
        blobs/  layers-v1/  images-v1/  scratch/
    <cache>/                what can be made again; may be removed whole when nothing runs
        CACHEDIR.TAG
        actions-v1/  snapshots-v1/  builds-v1/  selections-v1/  failed-v1/  blocks-v1/  locks/  scratch/

Order of writes: blob, layer record, image record, reference; snapshot and layer record, action. So a process that
is killed anywhere leaves nothing that names what is not there, and scratch space that the next one reclaims.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.store import disk
from aerogel.store.actions import Actions
from aerogel.store.blobs import Blobs
from aerogel.store.disk import disk_errors
from aerogel.store.scratch import Scratch
from aerogel.store.snapshots import Snapshots

if TYPE_CHECKING:
    from aerogel.files.blocks import Blocks
    from aerogel.store.builds import Builds
    from aerogel.store.failed import FailedStates
    from aerogel.store.images import Images
    from aerogel.store.layers import Layers
    from aerogel.store.origins import Origins
    from aerogel.store.referrers import Referrers
    from aerogel.store.repositories import Repositories

__all__ = ["Store"]

_CACHE_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder is aerogel's cache; backups may leave it out.\n"
)


class Store:
    """The parts of the store; `Store.open` makes one. Threads may share it."""

    def __init__(self, data: str, cache: str, lock_fd: int) -> None:
        self.data = data
        self.cache = cache
        self._lock_fd = lock_fd
        self.data_scratch = Scratch(data)
        self.scratch = Scratch(cache)
        self.blobs = Blobs(data, self.data_scratch)
        self.actions = Actions(cache, self.scratch)
        self.snapshots = Snapshots(cache, self.scratch)
        self._layers: Layers | None = None
        self._builds: Builds | None = None
        self._images: Images | None = None

    @classmethod
    def open(
        cls,
        data: str | os.PathLike[str],
        cache: str | os.PathLike[str],
        *,
        on_wait: Callable[[], object] | None = None,
    ) -> Store:
        """Opens the store of two folders, making them when they are not there. Raises `store.*`.

        Waits while another process prunes; `on_wait` is called before.
        """
        data, cache = os.path.abspath(data), os.path.abspath(cache)
        with disk_errors(data):
            fd = _open_lock(data)
        try:
            _lock(fd, fcntl.LOCK_SH, on_wait)
            if not os.path.exists(f"{cache}/CACHEDIR.TAG"):
                with disk_errors(cache):
                    os.makedirs(cache, mode=0o700, exist_ok=True)
                    _write_cache_tag(f"{cache}/CACHEDIR.TAG")
        except BaseException:
            os.close(fd)
            raise
        return cls(data, cache, fd)

    @property
    def layers(self) -> Layers:
        if self._layers is None:
            # Structs: not imported by a build that finds all in the action cache.
            from aerogel.store.layers import Layers

            self._layers = Layers(self.data, self.data_scratch, self.blobs)
        return self._layers

    @property
    def builds(self) -> Builds:
        if self._builds is None:
            from aerogel.store.builds import Builds

            self._builds = Builds(self.cache, self.scratch)
        return self._builds

    @property
    def blocks(self) -> Blocks:
        """The compressed blocks of the layers here."""
        from aerogel.files.blocks import Blocks
        from aerogel.oci.digest import Digest

        def opened(encoded: str) -> int:
            return os.open(self.blobs.path(Digest(f"sha256:{encoded}")), os.O_RDONLY | os.O_CLOEXEC)

        return Blocks(f"{self.cache}/blocks-v1", opened)

    @property
    def failed(self) -> FailedStates:
        """What steps that failed had written."""
        from aerogel.store.failed import FailedStates

        return FailedStates(self.cache, self.scratch)

    @property
    def images(self) -> Images:
        if self._images is None:
            from aerogel.store.images import Images

            self._images = Images(self.data, self.data_scratch, self.blobs)
        return self._images

    @property
    def referrers(self) -> Referrers:
        from aerogel.store.referrers import Referrers

        return Referrers(self.data, self.data_scratch, self.blobs)

    @property
    def repositories(self) -> Repositories:
        """What was pushed here."""
        from aerogel.store.repositories import Repositories

        return Repositories(self.data, self.data_scratch)

    @property
    def origins(self) -> Origins:
        """Where blobs are that are not here."""
        from aerogel.store.origins import Origins

        return Origins(self.data, self.data_scratch)

    def once(self, key: str, on_wait: Callable[[], object] | None = None) -> AbstractContextManager[bool]:
        """Holds the lock of a piece of work, so that threads and processes do it once.

        Yields whether it had to wait: then look first whether the work is done. Locks of several keys must be taken
        in the order of dependence (inputs inside outputs), or two processes wait for each other.
        """
        return disk.once(f"{self.cache}/locks", key, on_wait)

    def exclusive(self) -> AbstractContextManager[None]:
        """Nobody else uses the store within the block: for removing things. Raises `store.busy`."""
        return _Exclusive(self._lock_fd)

    def sync(self) -> None:
        """Makes everything that this process wrote outlive a power cut: blobs one by one, snapshots by one syncfs."""
        self.blobs.sync()
        self.snapshots.sync()

    def reclaim(self, remove: Callable[[str], object] | None = None, *, parts: bool = False) -> list[str]:
        """Removes what killed processes left. `remove(path)` removes trees of mapped owners (the helper's job
        `remove`); without it such trees stay. `parts` of downloads go on request, else after a week. Returns what stays.
        """
        self.scratch.swept()
        return self.data_scratch.reclaim(remove, parts=parts) + self.scratch.reclaim(remove, parts=parts)

    def close(self) -> None:
        """Ends the use of the store. Harmless when called again."""
        self.data_scratch.close()
        self.scratch.close()
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Exclusive:
    """Turns the shared lock into an exclusive one for a while."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        try:
            # Not atomic: the shared lock is gone for a moment. Nothing was decided under it that is used later.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            raise AerogelError(
                "another aerogel process is using the store",
                code="store.busy",
                hints=["try again when it has ended"],
                exit_status=EXIT_HOST,
                temporary=True,
            ) from None

    def __exit__(self, *exc: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_SH)


def _open_lock(data: str) -> int:
    path = f"{data}/lock"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        os.makedirs(data, mode=0o700, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # A store that may only be read can still be read.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _lock(fd: int, kind: int, on_wait: Callable[[], object] | None) -> None:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is not None:
            on_wait()
        fcntl.flock(fd, kind)


def _write_cache_tag(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, _CACHE_TAG)
    finally:
        os.close(fd)
