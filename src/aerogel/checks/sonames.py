"""Which package of Debian has a library, by the name that programs ask for: a table made by `tools/gen_sonames.py`."""

from __future__ import annotations

import functools
import zlib
from importlib.resources import files

__all__ = ["package_of"]


@functools.cache
def _table() -> dict[str, tuple[str, ...]]:
    data = files("aerogel.checks").joinpath("data", "sonames.z").read_bytes()
    rows = (line.split(" ") for line in zlib.decompress(data).decode().splitlines())
    return {row[0]: tuple(row[1:]) for row in rows}


def package_of(soname: str, version: str) -> str:
    """The package of Debian 12 or 13 (`version`) that has a library in the loader's folders; empty for none."""
    packages = _table().get(soname, ())
    found = packages[-1 if version == "12" else 0] if packages else ""
    return "" if found == "-" else found
