"""This program once more, in a process for which the host looks different: for seeing whether that matters.

The other process has other hash seeds, time zone, locale and umask, gets the names in directories in another order and
a clock that is hours ahead. Nothing of this may reach an image.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Self

__all__ = ["AHEAD_S", "repeat", "shuffle"]

AHEAD_S = 3 * 3600 + 1234
"""How far the clock of the other process is ahead."""

_scandir = os.scandir
_UMASK = 0o077
_LOOKS = {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "4294967291"}


def repeat(words: Sequence[str], environment: Mapping[str, str], stderr: int) -> tuple[int, bytes]:
    """Runs a command of this program in the folder `/`; its exit status and what it wrote to standard output."""
    program = "from aerogel.sandbox.repeat import shuffle; shuffle(); from aerogel.cli.main import main; raise SystemExit(main())"
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd="/",
        env={**environment, **_LOOKS, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        umask=_UMASK,
        check=False,
    )
    return done.returncode, done.stdout


class _Backwards:
    """What `os.scandir` gives, last first."""

    def __init__(self, path: str) -> None:
        with _scandir(path) as listing:
            self._entries = list(listing)

    def __iter__(self) -> _Backwards:
        return self

    def __next__(self) -> os.DirEntry[str]:
        if not self._entries:
            raise StopIteration
        return self._entries.pop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open."""


def shuffle() -> None:
    """Makes this process see names in the opposite order and a later time."""
    import time

    listdir, now, now_ns = os.listdir, time.time, time.time_ns
    os.scandir = _Backwards  # type: ignore[assignment] # the part of it that is used
    os.listdir = lambda path=".": listdir(path)[::-1]  # type: ignore[assignment] # the part of it that is used
    time.time = lambda: now() + AHEAD_S
    time.time_ns = lambda: now_ns() + AHEAD_S * 10**9
