"""Counts the bytes of parallel downloads into progress events, at most ten a second."""

from __future__ import annotations

import threading
import time

from aerogel.errors import EXIT_INTERRUPTED, AerogelError
from aerogel.events import Progress, Sink

__all__ = ["Meter"]

_PERIOD_S = 0.1


class Meter:
    """One progress line; `add` may be called by several threads, with negative numbers too."""

    def __init__(self, sink: Sink, step: int, label: str, total: int) -> None:
        self._sink = sink
        self._step = step
        self._label = label
        self._total = total
        self._lock = threading.Lock()
        self._count = 0
        self._shown_s = 0.0
        self._canceled = False

    def add(self, count: int) -> None:
        """Counts bytes. Raises AerogelError `debian.canceled` in the downloads that outlive `cancel`."""
        with self._lock:
            if self._canceled:
                raise AerogelError("the download was given up", code="debian.canceled", exit_status=EXIT_INTERRUPTED)
            self._count += count
            now = time.monotonic()
            if now - self._shown_s < _PERIOD_S:
                return
            self._shown_s = now
            self._emit()

    def cancel(self) -> None:
        with self._lock:
            self._canceled = True

    def reset(self) -> None:
        """What came so far does not count."""
        with self._lock:
            self._count = 0

    def done(self) -> None:
        with self._lock:
            self._emit()

    def _emit(self) -> None:
        self._sink.emit(Progress(self._step, self._label, self._count, self._total))
