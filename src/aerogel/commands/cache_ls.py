"""`aerogel cache ls`: the directories of `RUN --mount=type=cache` that are kept."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.format import age, size, table_or_template
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.store.gc import tree_size
from aerogel.store.mounts import CacheMounts, KeptCache

__all__ = ["EXAMPLES", "CacheLine", "CacheLs", "CacheLsResult", "run", "text"]

EXAMPLES = (("the ids alone", "aerogel cache ls -q"),)


class CacheLs(Struct, frozen=True, kw_only=True):
    """List the cache mounts.

    One line for each directory: a cache with another owner, mode or beginning is another one.
    """

    format: Annotated[str, Flag("`table`, `json` or a template such as `{{.ID}}`", metavar="TEMPLATE")] = ""
    quiet: Annotated[bool, Flag("Show only ids", short="q")] = False


class CacheLine(Struct, frozen=True, kw_only=True):
    """One directory. `size` is bytes on the disk as far as this user may look."""

    id: str
    owner: str
    mode: str
    size: int
    age_s: float
    in_use: bool
    seeded: bool
    path: str


class CacheLsResult(Result, frozen=True, kw_only=True):
    caches: tuple[CacheLine, ...]


def run(options: CacheLs, world: World) -> CacheLsResult:
    """Reads the store's caches."""
    del options
    kept = CacheMounts(world.store.cache, world.store.scratch)
    return CacheLsResult(caches=tuple(_line(one, world.clock()) for one in kept.all()))


def _line(one: KeptCache, now: float) -> CacheLine:
    return CacheLine(
        id=one.about.id,
        owner=f"{one.about.uid}:{one.about.gid}",
        mode=f"{one.about.mode:04o}",
        size=tree_size(f"{one.path}/fs"),
        age_s=max(0.0, now - one.last_use_s),
        in_use=one.in_use,
        seeded=bool(one.about.seed),
        path=f"{one.path}/fs",
    )


def text(options: CacheLs, result: CacheLsResult) -> str:
    """The list as a table, as ids or by the template."""
    if options.quiet:
        return "\n".join(dict.fromkeys(one.id for one in result.caches))
    rows = [
        {
            "ID": one.id,
            "Owner": one.owner,
            "Mode": one.mode,
            "LastUsed": age(one.age_s),
            "Size": size(one.size),
            "InUse": "yes" if one.in_use else "",
        }
        for one in result.caches
    ]
    headings = ("ID", "OWNER", "MODE", "LAST USED", "SIZE", "IN USE")
    fields = list(zip(("ID", "Owner", "Mode", "LastUsed", "Size", "InUse"), headings, strict=True))
    return table_or_template(options.format, fields, rows)
