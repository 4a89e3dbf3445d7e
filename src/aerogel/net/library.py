"""The HTTP library, imported by the first request and without what it does not need.

A fifth of the import of `urllib3` 2 is `importlib.metadata`, which is asked for the version of a package for HTTP/2 only:
nothing here speaks that. A stand-in takes its place as long as the import lasts; whoever asks it gets the real one.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType

__all__ = ["load"]

_METADATA = "importlib.metadata"
_LOADING = threading.Lock()


def load() -> ModuleType:
    """`urllib3`. Threads may call it at the same time."""
    with _LOADING:
        found = sys.modules.get("urllib3")
        if found is not None:
            return found
        if _METADATA in sys.modules:
            return importlib.import_module("urllib3")
        stand_in = sys.modules[_METADATA] = _Metadata(_METADATA)
        try:
            return importlib.import_module("urllib3")
        finally:
            stand_in.go()


class _Metadata(ModuleType):
    """`importlib.metadata` until something is asked of it."""

    def go(self) -> None:
        if sys.modules.get(_METADATA) is self:
            del sys.modules[_METADATA]

    def version(self, distribution_name: str) -> str:
        self.go()
        return str(importlib.import_module(_METADATA).version(distribution_name))

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)  # the import system looks for `__path__` and the like
        self.go()
        return getattr(importlib.import_module(_METADATA), name)
