"""What the main process used for a moment goes back to the kernel, which the programs of makers need more.

By itself glibc keeps it: a decoder's window of some megabytes is not mapped any more once one was freed, and what lies at
the end of a thread's arena is never given back. musl needs neither, and has not these functions.
Spec: mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

__all__ = ["give_back", "map_large_blocks"]

_M_MMAP_THRESHOLD = -3
_LARGE = 4 << 20
"""Bytes: less than the window of an xz stream in an archive, more than any buffer that is made over and over."""


def map_large_blocks() -> None:
    """From now on large blocks are mapped, so that each is gone when it is freed."""
    import ctypes

    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Gives back whole pages in which nothing lies."""
    import ctypes

    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
