"""Parts of a file that are a request's body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["FilePart", "parts_of"]

_PART = 1 << 20


class FilePart:
    """Bytes of an open file without a buffer. `sent` is how many are on their way: fewer than `count` where it ends."""

    def __init__(self, file: BinaryIO, at: int, count: int) -> None:
        self.file = file
        self.at = at
        self.count = count
        self.sent = 0


def parts_of(file: BinaryIO, size: int) -> Iterator[FilePart]:
    """The first `size` bytes of a file, or all if it has fewer; each part has been sent when the next is asked for."""
    at = 0
    while at < size:
        part = FilePart(file, at, min(_PART, size - at))
        yield part
        if part.sent < part.count:
            return
        at += part.sent
