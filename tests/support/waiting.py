"""Waiting for what is to come about, and for words on a terminal."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")


def until(look: Callable[[], Seen], timeout_s: float = 60.0) -> Seen:
    """Looks again and again until there is something to see."""
    end = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return found


def read_until(fd: int, wanted: bytes, timeout_s: float = 60.0) -> bytes:
    """Reads from a terminal until the bytes come; what there was when it ends."""
    found = b""
    end = time.monotonic() + timeout_s
    while wanted not in found:
        ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"waited for {wanted!r}, found {found!r}"
        try:
            found += os.read(fd, 4096)
        except OSError:
            break
    return found
