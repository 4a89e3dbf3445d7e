"""`aerogel base list`: the built-in bases."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.format import table_or_template
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.distroless.catalogue import OWN, built_in, declarations, tags
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "BaseLine", "BaseList", "BaseListResult", "run", "text"]

EXAMPLES = (
    ("what FROM knows without a registry", "aerogel base list"),
    ("the names alone", "aerogel base list -q"),
)


class BaseList(Struct, frozen=True, kw_only=True):
    """List the base images that are composed here from signed packages."""

    format: Annotated[str, Flag("`table`, `json` or a template such as `{{.Name}}`", metavar="TEMPLATE")] = ""
    quiet: Annotated[bool, Flag("Show only names", short="q")] = False


class BaseLine(Struct, frozen=True, kw_only=True):
    """One base. `names` are the repositories by which FROM knows it, `releases` Debian's, the usual one first."""

    name: str
    summary: str
    names: tuple[str, ...]
    extends: str
    releases: tuple[str, ...]
    tags: tuple[str, ...]
    platforms: tuple[str, ...]


class BaseListResult(Result, frozen=True, kw_only=True):
    bases: tuple[BaseLine, ...]


def run(options: BaseList, world: World) -> BaseListResult:
    """Reads the catalogue."""
    del options, world
    return BaseListResult(bases=tuple(_line(name) for name in declarations()))


def _line(name: str) -> BaseLine:
    base = built_in(name)
    one = base.declaration
    own = () if one.tags and one.names else (OWN + name,)
    return BaseLine(
        name=name,
        summary=one.summary,
        names=(*one.names, *own),
        extends=one.extends or "",
        releases=base.releases,
        tags=tuple(tags(name)),
        platforms=tuple(one for one in base.platforms if any(one in base.platforms_of(each) for each in base.releases)),
    )


def text(options: BaseList, result: BaseListResult) -> str:
    """The list as a table, as names or by the template."""
    if options.quiet:
        return "\n".join(one.names[0] for one in result.bases)
    rows = [
        {
            "Name": one.name,
            "From": one.names[0],
            "Releases": " ".join(one.releases),
            "Platforms": str(len(one.platforms)),
            "Summary": one.summary,
        }
        for one in result.bases
    ]
    headings = ("NAME", "FROM", "RELEASES", "PLATFORMS", "WHAT")
    fields = list(zip(("Name", "From", "Releases", "Platforms", "Summary"), headings, strict=True))
    return table_or_template(options.format, fields, rows)
