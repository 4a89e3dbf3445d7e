"""`aerogel base diff`: what differs between two locks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Struct

from aerogel.commands.base_changes import (
    ChangedFile,
    ChangedPackage,
    Packages,
    changed_files,
    changed_packages,
    shown_changes,
    shown_files,
)
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag

if TYPE_CHECKING:
    from aerogel.distroless.lock import Lock

__all__ = ["EXAMPLES", "BaseDiff", "BaseDiffResult", "run"]

EXAMPLES = (
    ("what an update changed, and which vulnerabilities it fixes", "aerogel base diff old.lock.json base.lock.json"),
    ("the files as well", "aerogel base diff --files old.lock.json base.lock.json"),
)


class BaseDiff(Struct, frozen=True, kw_only=True):
    """Show which packages differ between two locks, what they fix, and which of their files differ.

    What is fixed stands in the changelogs of the packages, which are taken from the cache, from `vendor` beside the newer
    lock, or from the mirror.
    """

    before: Annotated[str, Flag("The older lock", positional=True, metavar="OLD", complete="file")]
    after: Annotated[str, Flag("The newer lock", positional=True, metavar="NEW", complete="file")]
    files: Annotated[bool, Flag("List the files of packages that differ, with their sizes")] = False
    profile: Annotated[
        Literal["micro", "parity"], Flag("Rules that say which files count for `--files`", metavar="NAME")
    ] = "micro"


class BaseDiffResult(Result, frozen=True, kw_only=True):
    """`layers`: whether the layers of any tag differ. `files` are those of the packages that differ."""

    changes: tuple[ChangedPackage, ...]
    layers: bool
    files: tuple[ChangedFile, ...] = ()

    def text(self) -> str:
        shown = "\n\n".join(filter(None, (shown_changes(self.changes), shown_files(self.files))))
        return shown or ("no package differs; layers do" if self.layers else "nothing differs")


def run(options: BaseDiff, world: World) -> BaseDiffResult:
    """Reads both. Raises `base.lock`, `base.no-file`."""
    from aerogel.commands.recipes import archive_of

    here = world.settings.directory
    before, after = (_lock(here, name) for name in (options.before, options.after))
    layers = [
        {(platform, tag): image.layers for platform, one in lock.platforms.items() for tag, image in one.images.items()}
        for lock in (before, after)
    ]
    vendor = (here / options.after).parent / "vendor"
    archive = archive_of(world, is_locked=True, vendor=vendor if vendor.is_dir() else None)
    packages = Packages(archive, world.settings.cache / "debian-v1", world.sink)
    return BaseDiffResult(
        changes=changed_packages(before, after, packages),
        layers=layers[0] != layers[1],
        files=changed_files(before, after, packages, options.profile) if options.files else (),
    )


def _lock(here: Path, name: str) -> Lock:
    """Raises also `base.lock` for what has a lock, but is none: a declaration, the name of a base."""
    from aerogel.commands.locking import read_lock
    from aerogel.commands.recipes import lock_path
    from aerogel.distroless.catalogue import choose, declarations

    message = ""
    if name.endswith((".yaml", ".yml")):
        lock = lock_path(name)
        message = f"`{name}` is a declaration, not a lock"
        hint = f"its lock is `{lock}`" if (here / lock).is_file() else f"make its lock: `aerogel base lock {name}`"
    elif not (here / name).exists() and (name in declarations() or choose(name) is not None):
        message = f"`{name}` is a built-in base, not a lock"
        hint = f"make a lock of today's: `aerogel base lock -o FILE {name}`"
    if message:
        raise AerogelError(message, code="base.lock", hints=[hint], exit_status=EXIT_USAGE)
    return read_lock(here / name, name)
