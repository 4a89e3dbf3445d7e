"""`aerogel base lock`: writes down which packages a base means today, for every tag."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.recipes import open_recipe
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag

__all__ = ["ABSENT", "EXAMPLES", "BaseLock", "BaseLockResult", "run"]

EXAMPLES = (
    ("the declaration of this folder, for this machine", "aerogel base lock"),
    ("for two platforms", "aerogel base lock --platform linux/amd64,linux/arm64 base.yaml"),
    ("to be composed on amd64 machines only", "aerogel base lock --hosts linux/amd64"),
)

ABSENT = {("--lock",): "`-o FILE` is the lock to write"}
"""What to use instead of flags of `base update`."""


class BaseLock(Struct, frozen=True, kw_only=True):
    """Write the lock of a base: exactly which packages it means, and what must come out.

    Builds of the declaration take what the lock beside it says; `--locked` fails if one bit moved.
    """

    name: Annotated[str, Flag("A declaration or a built-in base", positional=True, metavar="BASE", complete="base")] = (
        "base.yaml"
    )
    platform: Annotated[
        str,
        Flag(
            "Platforms with commas, or `all`; without it those of the lock there is, or this machine's", metavar="LIST"
        ),
    ] = ""
    hosts: Annotated[
        str,
        Flag(
            "Kinds of machine that can compose by it; without it those of the lock there is, or amd64, arm64 and this one",
            metavar="LIST",
        ),
    ] = ""
    suite: Annotated[
        list[str], Flag("Suite to choose from instead of the release's, several times", metavar="NAME")
    ] = []
    output: Annotated[str, Flag("The lock, if not beside the declaration", short="o", metavar="FILE")] = ""


class BaseLockResult(Result, frozen=True, kw_only=True):
    """`packages` counts those of all platforms."""

    path: str
    platforms: tuple[str, ...]
    tags: tuple[str, ...]
    packages: int

    def text(self) -> str:
        return f"{self.path}: {self.packages} packages for {', '.join(self.platforms)}, tags {', '.join(self.tags)}"


def run(options: BaseLock, world: World) -> BaseLockResult:
    """Chooses, composes and writes. Raises `base.*`, and what composing raises."""
    from aerogel.commands.locking import hosts_of, lock_file, make_lock, platforms_of, read_lock, write_lock

    source = open_recipe(options.name, world, heeds_lock=False)
    path = lock_file(source, options.output, world)
    known = None
    try:
        known = read_lock(path, path.name)
    except AerogelError as error:
        if error.code not in ("base.no-file", "base.lock"):
            raise
    lock = make_lock(
        source,
        platforms_of(source, options.platform, known, world),
        world,
        hosts=hosts_of(options.hosts, known),
        must_have_hosts=bool(options.hosts),
        suites=options.suite,
    )
    write_lock(path, lock)
    return BaseLockResult(
        path=path.name,
        platforms=tuple(lock.platforms),
        tags=tuple(next(iter(lock.platforms.values())).images),
        packages=sum(len(each.packages) for each in lock.platforms.values()),
    )
