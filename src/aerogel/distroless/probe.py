"""The probe: a health check for images that have neither a shell nor curl; one static program of a few kilobytes.

`COPY --from=aerogel/probe /aerogel-probe /` puts it into any image, `FROM aerogel/NAME+probe` and `probe: true` of a
declaration into a base. The programs in `data/probe` are made of `probe.c` beside them; tests make them again.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from aerogel.distroless.layout import Item, write_layer
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.files.entry import REG, Entry
from aerogel.files.index import LayerIndex

__all__ = ["ARCHITECTURES", "IMAGE", "MTIME_S", "PATH", "program", "write_probe_layer"]

IMAGE = "aerogel/probe"
"""The image that holds nothing else."""
PATH = b"aerogel-probe"
ARCHITECTURES = ("amd64", "arm64", "armhf", "ppc64el", "riscv64", "s390x")
"""Debian's names of the machines that it is made for."""
MTIME_S = 315_532_800
"""1980-01-01, as of everything that has no better date."""


def program(arch: str) -> bytes:
    """The program for Debian's architecture. Raises `distroless.platform`."""
    if arch not in ARCHITECTURES:
        raise AerogelError(
            f"the probe is not made for `{arch}`",
            code="distroless.platform",
            hints=[f"it is made for {', '.join(ARCHITECTURES)}"],
            exit_status=EXIT_USAGE,
        )
    return files("aerogel.distroless").joinpath("data", "probe", f"aerogel-probe-{arch}").read_bytes()


def write_probe_layer(arch: str, write: Callable[[bytes | memoryview], object]) -> LayerIndex:
    """Writes the tar of the layer that holds the probe alone. Raises `distroless.platform`."""
    data = program(arch)
    return write_layer([Item(Entry(PATH, REG, 0o755, size=len(data), mtime=MTIME_S), data)], write)
