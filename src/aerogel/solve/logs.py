"""The whole output of each step that runs, kept for a while: what a failing step said before its last 40 lines.

    <cache>/logs-v1/<time>-<pid>/<step>.log     one directory for each build that ran something; the newest 50 stay

Secrets are taken out line by line before anything is written.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from aerogel.store.disk import disk_errors, remove_tree

__all__ = ["Logs", "StepLogFile"]

_KEPT_BUILDS = 50
_LONGEST_LINE = 1 << 16


class Logs:
    """The logs of one build. `redact` takes secrets out of a line; `clock` gives seconds since 1970."""

    def __init__(self, cache: str, redact: Callable[[str], str], clock: Callable[[], float]) -> None:
        self._root = f"{cache}/logs-v1"
        self._redact = redact
        self._clock = clock
        self._lock = threading.Lock()
        self._directory = ""

    def open(self, step: int) -> StepLogFile:
        """The log of a step. Raises `store.*`."""
        with self._lock, disk_errors(os.path.dirname(self._root)):
            if not self._directory:
                os.makedirs(self._root, 0o700, exist_ok=True)
                for old in sorted(os.listdir(self._root))[: -_KEPT_BUILDS + 1]:
                    remove_tree(f"{self._root}/{old}")
                stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
                self._directory = f"{self._root}/{stamp}-{os.getpid()}"
                os.makedirs(self._directory, 0o700, exist_ok=True)
            path = f"{self._directory}/{step:02}.log"
            return StepLogFile(
                path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), self._redact
            )


class StepLogFile:
    """The log of one step at `path`, which is empty once the disk would not take it: no step fails for its log."""

    def __init__(self, path: str, fd: int, redact: Callable[[str], str]) -> None:
        self.path = path
        self._fd = fd
        self._redact = redact
        self._rest = b""

    def add(self, data: bytes) -> None:
        """Adds output as it comes."""
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) > _LONGEST_LINE:
            whole, newline, rest = whole + newline + rest, b"", b""
        self._rest = rest
        self._write(whole + newline)

    def close(self) -> None:
        self._write(self._rest)
        self._rest = b""
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        text = self._redact(data.decode("utf-8", "surrogateescape")) if data else ""
        left = memoryview(text.encode("utf-8", "surrogateescape"))
        while left and self.path:
            try:
                left = left[os.write(self._fd, left) :]
            except OSError:
                self.path = ""
