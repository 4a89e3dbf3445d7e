"""Those who are attached to a container in the background: they get what its command says, as it comes.

Each has a thread of its own, so that one who does not read holds up neither the command nor its log. Who is too far
behind is left out.
"""

from __future__ import annotations

import os
import threading
from collections import deque

__all__ = ["Audience", "Listener"]

_MOST_BYTES = 16 << 20
"""So far one may be behind."""


class Listener:
    """One who is attached. It writes to descriptors of its own: the caller may close those it gave at any time."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self._fds = {"stdout": os.dup(stdout), "stderr": os.dup(stderr)}
        self._pieces: deque[tuple[str, bytes]] = deque()
        self._waiting = 0
        self._is_over = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="attached", daemon=True)
        self._thread.start()

    def tell(self, stream: str, data: bytes) -> None:
        with self._change:
            if self._is_over:
                return
            self._waiting += len(data)
            if self._waiting > _MOST_BYTES:
                self._is_over = True
            self._pieces.append((stream, data))
            self._change.notify()

    def close(self, wait_s: float) -> None:
        """No more comes; what came before is written within the time, and dropped after it."""
        if wait_s:
            with self._change:
                self._is_over = True
                self._change.notify()
            self._thread.join(wait_s)
        with self._change:
            self._is_over = True
            self._pieces.clear()
            self._change.notify()

    def _run(self) -> None:
        try:
            self._write_all()
        finally:
            for fd in self._fds.values():
                os.close(fd)

    def _write_all(self) -> None:
        while True:
            with self._change:
                while not self._pieces and not self._is_over:
                    self._change.wait()
                if not self._pieces:
                    return
                stream, data = self._pieces.popleft()
                self._waiting -= len(data)
            left = memoryview(data)
            try:
                while left:
                    left = left[os.write(self._fds[stream], left) :]
            except OSError:  # nobody reads it any more
                with self._change:
                    self._is_over = True
                    self._pieces.clear()
                return


class Audience:
    """All who are attached; threads may share it."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    def join(self, stdout: int, stderr: int) -> Listener:
        listener = Listener(stdout, stderr)
        with self._lock:
            self._listeners.append(listener)
        return listener

    def leave(self, listener: Listener, wait_s: float = 0.0) -> None:
        with self._lock:
            self._listeners.remove(listener)
        listener.close(wait_s)

    def tell(self, stream: str, data: bytes) -> None:
        """What the command said on `stdout` or `stderr`."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.tell(stream, data)
