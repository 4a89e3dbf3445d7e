"""The state of one run: settings, the store, the sandbox helper, the sink of events, the clock.

Everything is opened on first use, so a command pays only for what it touches. Made by `cli.main` (or by a program
that uses aerogel as a library), given to `run(options, world)`, closed at the end whatever happens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from aerogel.errors import AerogelError, Diagnostic
from aerogel.events import NullSink, Sink, Warned
from aerogel.redact import Redactor
from aerogel.settings import Settings
from aerogel.witness import Witness

if TYPE_CHECKING:
    from aerogel.debian.archive import Seen
    from aerogel.oci.digest import Digest
    from aerogel.sandbox.launch import Helper
    from aerogel.store.store import Store

__all__ = ["Bringing", "Streams", "World"]


class Streams(NamedTuple):
    """File descriptors of the standard streams, for commands that hand them to another program or write data."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


class Bringing(Protocol):
    """Brings blobs that stayed elsewhere (`commands.lazily`)."""

    def __call__(self, digest: Digest, size: int | None, /) -> bool: ...

    def close(self) -> None: ...


class World:
    """What a command may touch. Threads may share it; `close` is called once, by whoever made it.

    `bringer` makes what is asked for blobs that the store does not have, when there is one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sink: Sink | None = None,
        clock: Callable[[], float] = time.time,
        redactor: Redactor | None = None,
        bringer: Callable[[World], Bringing] | None = None,
        streams: Streams = Streams(),  # noqa: B008 - a tuple, made once and never changed
    ) -> None:
        self.settings = settings
        self.sink: Sink = NullSink() if sink is None else sink
        self.clock = clock
        self.redactor = Redactor() if redactor is None else redactor
        self.streams = streams
        self.witness = Witness()
        """What this run reads of the host that decides its result."""
        self._store: Store | None = None
        self._helper: Helper | None = None
        self._lock = threading.Lock()
        self._numbers = 0
        self._warned: set[tuple[str | None, str]] = set()
        self._seen: dict[tuple[object, ...], Seen] = {}
        self._make_bringer = bringer
        self._bringer: Bringing | None = None

    @property
    def store(self) -> Store:
        """The local store, opened on first use. Raises `AerogelError` `store.*` when it cannot be."""
        with self._lock:
            if self._store is None:
                from aerogel.store.store import Store

                self._store = Store.open(self.settings.data, self.settings.cache)
                self._store.blobs.on_missing = self._bring
            return self._store

    def _bring(self, digest: Digest, size: int | None) -> bool:
        """A blob that is not in the store: it may be a layer that stayed in its registry."""
        with self._lock:
            if self._bringer is None and self._make_bringer is not None:
                self._bringer = self._make_bringer(self)
        return self._bringer is not None and self._bringer(digest, size)

    def helper(self) -> Helper:
        """The sandbox helper of this run, started on first use; `close` ends it.

        Raises `AerogelError` `sandbox.*` with exit status 3 when the host offers no isolation.
        """
        with self._lock:
            if self._helper is None:
                from aerogel.sandbox.launch import Helper

                self._helper = Helper.start(str(self.settings.cache / "sandbox"), isolation=self.settings.isolation)
            return self._helper

    def seen(self, way: tuple[object, ...]) -> Seen:
        """The Release files of Debian that this run goes by, for each way of asking for them."""
        from aerogel.debian.archive import Seen

        with self._lock:
            return self._seen.setdefault(way, Seen())

    def take_numbers(self, count: int = 1) -> int:
        """Numbers for steps of this run, in the order in which they are asked for; the first of `count`, from 1."""
        with self._lock:
            first = self._numbers + 1
            self._numbers += count
            return first

    def warn_once(self, found: Diagnostic) -> None:
        """Emits a warning, unless this run has told the same before."""
        with self._lock:
            said = (found.code, found.message)
            if said in self._warned:
                return
            self._warned.add(said)
        self.sink.emit(Warned(found))

    @property
    def has_helper(self) -> bool:
        return self._helper is not None

    def close(self) -> None:
        """Removes what killed runs left, ends the helper and lets go of the store. Harmless when called again."""
        with self._lock:
            helper, self._helper = self._helper, None
            store, self._store = self._store, None
            bringer, self._bringer = self._bringer, None
        if bringer is not None:
            bringer.close()
        try:
            if store is not None:
                _reclaim(store, helper)
        finally:
            try:
                if helper is not None:
                    helper.close()
            finally:
                if store is not None:
                    store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _reclaim(store: Store, helper: Helper | None) -> None:
    """What belongs to mapped owners goes when a run has a helper; what cannot be removed now may be the next time."""
    try:
        store.reclaim(None if helper is None else lambda path: helper.call("remove", {"path": path}))
    except (AerogelError, OSError):
        return
