"""Results of steps that other places know: what `--cache-from` adds to the action cache of the store.

A record says which layers a step of some key added, and nothing else: keys are computed here, the layers of the base
are those of the base that was found here, and layers are checked when they are brought. What a cache can do wrong is
to say that a step gave layers that it did not give, so a cache is trusted like whoever may write it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from aerogel.oci.digest import Digest

__all__ = ["Imported", "Known"]

Chain = tuple[str, ...]
"""The layer that each step from the base up to this one added, or an empty text."""


class Known:
    """What one place knows: key -> chain, and the content key of those that have one."""

    __slots__ = ("chains", "contents", "origin")

    def __init__(self, origin: str, chains: Mapping[Digest, Chain], contents: Mapping[Digest, Digest]) -> None:
        self.origin = origin
        self.chains = chains
        self.contents = contents


class Imported:
    """The places of one run; none is asked before something is looked for that the store does not know."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], Known | None]] = []
        self._known: list[Known] = []
        self.used: set[Digest] = set()
        """Keys that were found."""

    def add(self, load: Callable[[], Known | None]) -> None:
        """One more place; `load` is called once, when it is needed."""
        self._waiting.append(load)

    def __bool__(self) -> bool:
        return bool(self._waiting or self._known)

    def chain(self, key: Digest, length: int) -> Chain | None:
        """What is known of a key; an answer for another number of steps counts as none."""
        for known in self._all():
            found = known.chains.get(key)
            if found is not None and len(found) == length:
                self.used.add(key)
                return found
        return None

    def content(self, key: Digest) -> Digest | None:
        """The content key of the step of this key."""
        return next((known.contents[key] for known in self._all() if key in known.contents), None)

    def drop(self, origin: str) -> None:
        """Nothing more is taken from a place."""
        with self._lock:
            self._known = [each for each in self._known if each.origin != origin]

    def _all(self) -> list[Known]:
        with self._lock:
            while self._waiting:
                found = self._waiting.pop(0)()
                if found is not None:
                    self._known.append(found)
            return self._known
