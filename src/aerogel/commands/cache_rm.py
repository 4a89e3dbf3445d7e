"""`aerogel cache rm`: removes the directories of `RUN --mount=type=cache`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.flag import Flag
from aerogel.store.mounts import CacheMounts

__all__ = ["EXAMPLES", "CacheRm", "CacheRmResult", "run"]

EXAMPLES = (
    ("the packages that apt downloaded", "aerogel cache rm /var/cache/apt"),
    ("all of them", "aerogel cache rm --all"),
)


class CacheRm(Struct, frozen=True, kw_only=True):
    """Remove cache mounts.

    A cache that a step is using stays, and is an error.
    """

    ids: Annotated[tuple[str, ...], Flag("Ids of caches", positional=True, metavar="ID")] = ()
    all: Annotated[bool, Flag("Remove all of them", short="a")] = False


class CacheRmResult(Result, frozen=True, kw_only=True):
    removed: tuple[str, ...]
    """Ids, once for each directory."""

    def text(self) -> str:
        return "\n".join(self.removed)


def run(options: CacheRm, world: World) -> CacheRmResult:
    """Removes them. Raises `cache.which`, `cache.unknown`, `store.cache-in-use`."""
    if not options.ids and not options.all:
        raise AerogelError(
            "which caches shall be removed?",
            code="cache.which",
            hints=["name their ids (`aerogel cache ls`), or give `--all`"],
            exit_status=EXIT_USAGE,
        )
    kept = CacheMounts(world.store.cache, world.store.scratch)
    found = list(kept.all())
    known = {one.about.id for one in found}
    for wanted in options.ids:
        if wanted not in known:
            guess = nearest(wanted, known)
            raise AerogelError(
                f"there is no cache `{wanted}`",
                code="cache.unknown",
                hints=[f"did you mean `{guess}`?"] if guess else ["`aerogel cache ls` shows those that are kept"],
            )
    removed = []
    for one in found:
        if options.all or one.about.id in options.ids:
            kept.remove(one, lambda path: world.helper().call("remove", {"path": path}))
            removed.append(one.about.id)
    return CacheRmResult(removed=tuple(removed))
