"""Which package of Debian has a library, by the name that programs ask for: a table made by `tools/gen_sonames.py`."""

from __future__ import annotations

import functools
import zlib
from importlib.resources import files

__all__ = ["package_of"]


@functools.cache
def _tables() -> dict[str, dict[str, tuple[str, ...]]]:
    """By architecture: all of amd64, of the others what differs from it."""
    data = files("aerogel.checks").joinpath("data", "sonames.z").read_bytes()
    rows: dict[str, tuple[str, ...]] = {}
    tables = {"amd64": rows}
    for line in zlib.decompress(data).decode().splitlines():
        if line.startswith("="):
            rows = tables[line[1:]] = {}
        else:
            name, *packages = line.split(" ")
            rows[name] = tuple(packages)
    return tables


def package_of(soname: str, version: str, arch: str = "amd64") -> str:
    """The package of Debian 12 or 13 (`version`) that has a library in the loader's folders; empty for none.

    `arch` is Debian's name of the architecture; of one that is not known, amd64's packages are told.
    """
    tables = _tables()
    packages = tables.get(arch, {}).get(soname) or tables["amd64"].get(soname, ())
    found = packages[-1 if version == "12" else 0] if packages else ""
    return "" if found == "-" else found
