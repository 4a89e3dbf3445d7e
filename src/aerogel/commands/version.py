"""`aerogel version`: aerogel's own version and those of what it runs on."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
from msgspec import Struct

from aerogel import __version__
from aerogel.commands.format import columns, expand_template
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Version", "VersionResult", "run", "text"]

EXAMPLES = (("only aerogel's own", "aerogel version --format '{{.version}}'"),)

PARTS = ("msgspec", "urllib3", "rich", "shtab", "zstandard", "deflate", "isal", "pysequoia")


class Version(Struct, frozen=True, kw_only=True):
    """Show versions of aerogel and of what it uses."""

    format: Annotated[str, Flag("Print by a template such as `{{.version}}`", short="f", metavar="TEMPLATE")] = ""


class VersionResult(Result, frozen=True, kw_only=True):
    version: str
    python: str
    platform: str
    kernel: str
    parts: dict[str, str]
    """Version of each package that aerogel uses."""


def run(options: Version, world: World) -> VersionResult:
    """Reads versions from the installed packages' metadata."""
    del options, world
    import platform

    from aerogel.oci.platform import Platform

    return VersionResult(
        version=__version__,
        python=".".join(map(str, sys.version_info[:3])),
        platform=str(Platform.host()),
        kernel=platform.release(),
        parts=_parts(),
    )


def text(options: Version, result: VersionResult) -> str:
    if options.format:
        return expand_template(options.format, msgspec.to_builtins(result))
    rows = [
        ("aerogel", result.version),
        ("Python", result.python),
        ("platform", result.platform),
        ("kernel", result.kernel),
        *result.parts.items(),
    ]
    return columns((), rows)


def _parts() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for name in PARTS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
