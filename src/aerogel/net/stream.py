"""The body of an answer, in pieces as they arrive.

Where the length is known the bytes go from the socket into one buffer that is used again and again: `urllib3` makes a
new object of each piece, which costs half of the processor time of a fast download.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = ["pieces"]

_PIECE = 1 << 18
_SMALL = 1 << 16


def pieces(answer: BaseHTTPResponse) -> Iterator[bytes | memoryview]:
    """What has arrived, at most 256 KiB at a time; a view is good until the next piece is asked for.

    Raises what sockets and `urllib3` raise. The caller compares the sum with what was announced.
    """
    yield from _large(answer)
    while piece := answer.read1(_SMALL):
        yield piece


def _large(answer: BaseHTTPResponse) -> Iterator[memoryview]:
    """All but the last byte of a body of known length; with that one `urllib3` sees that the connection is free."""
    import http.client

    from urllib3 import HTTPResponse

    inner = getattr(answer, "_original_response", None)
    if not isinstance(answer, HTTPResponse) or not isinstance(inner, http.client.HTTPResponse):
        return
    if inner.chunked or not inner.length or inner.length <= _SMALL:
        return
    view = memoryview(bytearray(min(_PIECE, inner.length)))
    read = inner.fp.readinto1
    while inner.length > 1:
        count = read(view[: min(len(view), inner.length - 1)])
        if not count:
            return
        inner.length -= count
        answer.length_remaining = inner.length
        yield view[:count]
