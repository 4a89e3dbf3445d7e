"""What two builds of the same differ in, as a value. `export.difference` finds it."""

from __future__ import annotations

import msgspec

__all__ = ["Difference"]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where two images differ first: `path` in the layer of `step`, or a field of the config."""

    what: str
    """`content`, `mode`, `owner`, `time`, `kind`, `link`, `attributes`, `missing`, `added`, `config`, `number of layers`
    or `bytes`."""
    path: str = ""
    layer: int = 0
    """The number of the layer, 1 is the lowest; 0 for the config."""
    step: str = ""
    platform: str = ""
    first: str = ""
    second: str = ""
    cause: str = ""
