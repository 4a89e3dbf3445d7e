"""Types that several threads decode: msgspec looks at each for the first time in one thread only.

For: whoever decodes a struct where other threads may do so too. Not for: decoding itself.
"""

from __future__ import annotations

from functools import cache
from threading import Lock

import msgspec

__all__ = ["prepare"]

_ONE = Lock()


@cache
def prepare(kind: type) -> None:
    """Has msgspec look at a type: in two threads at once it reads freed memory (0.22). Nothing is done the second time."""
    with _ONE:
        msgspec.json.Decoder(kind)
