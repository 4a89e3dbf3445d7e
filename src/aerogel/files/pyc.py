"""Python's compiled files: whether one fits its source, and the same one for another time of the source.

The interpreter uses a `.pyc` file if the time and size that it records are those of its source. A layer gives files
other times, so the recorded one must follow, or every start of the image would compile again. Only the four bytes of
the time change. Files that record a hash of the source instead need nothing. Standard library only.
Spec: PEP 3147 (`__pycache__`), PEP 552 (hash-based); CPython, Lib/importlib/_bootstrap_external.py.
"""

from __future__ import annotations

__all__ = ["HEAD", "fits", "is_compiled", "recorded_time", "sources_of", "with_time"]

HEAD = 16
"""Bytes at the begin of a file that say what it was made from."""

_FLAGGED = range(3390, 4000)
"""Magic numbers since Python 3.7: magic, flags, time, size."""
_PLAIN = range(3190, 3390)
"""Magic numbers of Python 3.3 to 3.6: magic, time, size."""
_WORD = 0xFFFFFFFF


def is_compiled(path: bytes) -> bool:
    """Whether the name is that of a compiled file."""
    return path.endswith(b".pyc")


def sources_of(path: bytes) -> bytes:
    """The path of the source of a compiled file: of `a/__pycache__/m.cpython-313.opt-1.pyc` and of `a/m.pyc`, `a/m.py`."""
    folder, _, name = path.rpartition(b"/")
    above, _, last = folder.rpartition(b"/")
    if last == b"__pycache__":
        stem = name.removesuffix(b".pyc")
        before, dot, tail = stem.rpartition(b".")
        if dot and tail.startswith(b"opt-"):
            stem, (before, dot, _) = before, before.rpartition(b".")
        if dot:
            stem = before
        folder = above
    else:
        stem = name.removesuffix(b".pyc")
    return (folder + b"/" if folder else b"") + stem + b".py"


def _place(head: bytes) -> int:
    """Where the recorded time is, 0 if there is none."""
    if len(head) < HEAD or head[2:4] != b"\r\n":
        return 0
    magic = int.from_bytes(head[:2], "little")
    if magic in _FLAGGED:
        return 8 if head[4:8] == b"\0\0\0\0" else 0
    return 4 if magic in _PLAIN else 0


def recorded_time(head: bytes) -> int | None:
    """The low 32 bits of the time of the source that the file records; None when it records none."""
    at = _place(head)
    return int.from_bytes(head[at : at + 4], "little") if at else None


def fits(head: bytes, mtime: int, size: int) -> bool:
    """Whether the interpreter would use the file for a source of this time (seconds) and size."""
    at = _place(head)
    if not at:
        return False
    words = int.from_bytes(head[at : at + 4], "little"), int.from_bytes(head[at + 4 : at + 8], "little")
    return words == (mtime & _WORD, size & _WORD)


def with_time(head: bytes, mtime: int) -> bytes:
    """The first bytes of a file that records a time, with another one."""
    at = _place(head)
    if not at:
        raise ValueError("no time is recorded")
    return head[:at] + (mtime & _WORD).to_bytes(4, "little") + head[at + 4 :]
