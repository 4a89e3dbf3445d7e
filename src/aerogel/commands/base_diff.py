"""`aerogel base diff`: what differs between two locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Struct

from aerogel.commands.format import columns
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag

if TYPE_CHECKING:
    from aerogel.distroless.lock import Lock

__all__ = ["EXAMPLES", "BaseDiff", "BaseDiffResult", "ChangedPackage", "changed_packages", "run", "shown_changes"]

EXAMPLES = (("what an update changed", "aerogel base diff old.lock.json base.lock.json"),)


class BaseDiff(Struct, frozen=True, kw_only=True):
    """Show which packages differ between two locks."""

    before: Annotated[str, Flag("The older lock", positional=True, metavar="OLD", complete="file")]
    after: Annotated[str, Flag("The newer lock", positional=True, metavar="NEW", complete="file")]


class ChangedPackage(Struct, frozen=True, kw_only=True):
    """A package on a platform; an empty version: not there. `kind`: added, removed, newer, older or rebuilt."""

    platform: str
    name: str
    before: str
    after: str
    kind: str


class BaseDiffResult(Result, frozen=True, kw_only=True):
    """`layers`: whether the layers of any tag differ."""

    changes: tuple[ChangedPackage, ...]
    layers: bool

    def text(self) -> str:
        shown = shown_changes(self.changes)
        return shown or ("no package differs; layers do" if self.layers else "nothing differs")


def run(options: BaseDiff, world: World) -> BaseDiffResult:
    """Reads both. Raises `base.lock`, `base.no-file`."""
    from aerogel.commands.locking import read_lock

    here = world.settings.directory
    before, after = (read_lock(here / name, name) for name in (options.before, options.after))
    layers = [
        {(platform, tag): image.layers for platform, one in lock.platforms.items() for tag, image in one.images.items()}
        for lock in (before, after)
    ]
    return BaseDiffResult(changes=changed_packages(before, after), layers=layers[0] != layers[1])


def changed_packages(before: Lock, after: Lock) -> tuple[ChangedPackage, ...]:
    """The changes as a command prints them."""
    from aerogel.distroless.lock import changes

    return tuple(
        ChangedPackage(platform=one.platform, name=one.name, before=one.before, after=one.after, kind=one.kind)
        for one in changes(before, after)
    )


def shown_changes(changes: tuple[ChangedPackage, ...]) -> str:
    """A table; the same change on several platforms is one line. Empty for no change."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for one in changes:
        rows.setdefault((one.name, one.before or "-", one.after or "-", one.kind), []).append(one.platform)
    if not rows:
        return ""
    lines = [[*key, " ".join(platforms)] for key, platforms in rows.items()]
    return columns(["PACKAGE", "BEFORE", "AFTER", "CHANGE", "PLATFORMS"], lines)
