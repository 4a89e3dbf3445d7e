"""`aerogel base update`: moves a lock to the packages of today and tells what changed."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.base_changes import ChangedPackage, Packages, changed_packages, shown_changes
from aerogel.commands.recipes import open_recipe
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["ABSENT", "EXAMPLES", "BaseUpdate", "BaseUpdateResult", "run"]

EXAMPLES = (
    ("everything", "aerogel base update"),
    ("what Debian's security team has fixed, and nothing else", "aerogel base update --security-only base.yaml"),
)

ABSENT = {("-o", "--output"): "`--lock FILE` is the lock to read and to write"}
"""What to use instead of flags of `base lock`."""


class BaseUpdate(Struct, frozen=True, kw_only=True):
    """Move the lock of a base to the packages of today, and tell which vulnerabilities that fixes.

    With `--security-only` packages move that have a fix in the security archive, and those which must go with them.
    """

    name: Annotated[str, Flag("A declaration or a built-in base", positional=True, metavar="BASE", complete="base")] = (
        "base.yaml"
    )
    security_only: Annotated[bool, Flag("Take only what is in the security archive; the rest stays")] = False
    dry_run: Annotated[bool, Flag("Tell what would change, and write nothing")] = False
    suite: Annotated[
        list[str], Flag("Suite to choose from instead of the release's, several times", metavar="NAME")
    ] = []
    lock: Annotated[str, Flag("The lock, if not beside the declaration", metavar="FILE", complete="file")] = ""


class BaseUpdateResult(Result, frozen=True, kw_only=True):
    path: str
    changes: tuple[ChangedPackage, ...]

    def text(self) -> str:
        return shown_changes(self.changes) or f"{self.path} is up to date"


def run(options: BaseUpdate, world: World) -> BaseUpdateResult:
    """Asks the mirror anew. Raises `base.*`, and what composing raises."""
    from aerogel.commands.locking import hosts_of, lock_file, make_lock, platforms_of, read_lock, write_lock
    from aerogel.distroless.base import debian_architecture
    from aerogel.oci.platform import Platform

    source = open_recipe(options.name, world, heeds_lock=False)
    path = lock_file(source, options.lock, world)
    before = read_lock(path, path.name, source.lock_words)
    after = make_lock(
        source,
        platforms_of(source, "", before, world),
        world,
        hosts=hosts_of("", before),
        refresh=True,
        suites=options.suite,
        keep=before if options.security_only else None,
    )
    if not options.dry_run and after != before:
        write_lock(path, after)
    archive = source.archive(world)
    archive.trust_locked()
    pool = source.pool(archive, world)
    for platform in after.platforms:
        pool.local(debian_architecture(Platform.parse(platform)))
    packages = Packages(pool, world.settings.cache / "debian-v1", world.sink)
    return BaseUpdateResult(path=path.name, changes=changed_packages(before, after, packages))
