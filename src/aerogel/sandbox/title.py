"""What `ps` shows of the helper's processes inside a sandbox: a short name, not this machine's paths.

The words of a command line lie in the memory of the process, and the kernel shows what is there. Standard library only:
part of the helper. Spec: proc(5), `/proc/PID/stat` fields 48 and 49; prctl(2) PR_SET_NAME.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from functools import cache

from aerogel.sandbox import syscalls

__all__ = ["EXEC", "INIT", "place", "set_title"]

INIT, EXEC = "aerogel-init", "aerogel-exec"
_PR_SET_NAME = 15
_ARG_START = 47
_ARG_END = 48


@cache
def place() -> tuple[int, int]:
    """Where the words begin and end; asked once before /proc is another's, since forks keep it. (0, 0): not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        # the list begins with field 3
        start, end = int(fields[_ARG_START - 2]), int(fields[_ARG_END - 2])
        if 0 < start < end:
            return start, end
    return 0, 0


def set_title(title: str) -> None:
    """Names this process; where the words are not known only its short name changes."""
    name = os.fsencode(title)
    buffer = ctypes.create_string_buffer(name[:15])
    syscalls.prctl(_PR_SET_NAME, ctypes.addressof(buffer))
    start, end = place()
    size = end - start
    if size > 1:
        ctypes.memmove(start, name[: size - 1].ljust(size, b"\0"), size)
