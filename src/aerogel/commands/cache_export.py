"""`aerogel cache export`: directories of cache mounts as one archive, for another host or for what CI keeps.

The archive is a tar of `caches.json` (format, and what each cache is) and of `N.tar`, its files with their owners.
"""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Annotated, BinaryIO

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.files.entry import REG, Entry
from aerogel.files.tar import TarWriter
from aerogel.flag import Flag
from aerogel.store.disk import write_whole
from aerogel.store.mounts import CacheMounts, KeptCache

__all__ = ["EXAMPLES", "FORMAT", "LIST", "CacheExport", "CacheExportResult", "run", "write_archive"]

EXAMPLES = (
    ("all caches, compressed", "aerogel cache export | zstd >caches.tar.zst"),
    ("that of pip alone", "aerogel cache export -o pip.tar /root/.cache/pip"),
)
FORMAT = 1
LIST = "caches.json"


class CacheExport(Struct, frozen=True, kw_only=True):
    """Write cache mounts to an archive.

    Of a cache with `sharing=private` the first directory is taken. A cache that a step is writing to is an error.
    """

    ids: Annotated[tuple[str, ...], Flag("Ids of caches; without one, all", positional=True, metavar="ID")] = ()
    output: Annotated[
        str, Flag("File to write; without it, standard output", short="o", metavar="FILE", complete="file")
    ] = "-"


class CacheExportResult(Result, frozen=True, kw_only=True):
    exported: tuple[str, ...]
    """Ids."""

    def text(self) -> str:
        return ""


def run(options: CacheExport, world: World) -> CacheExportResult:
    """Writes the archive; a file is there whole or not at all.

    Raises `cache.unknown`, `cache.terminal`, `store.cache-in-use`, `store.*`.
    """
    kept = CacheMounts(world.store.cache, world.store.scratch)
    mapping = world.helper().rung.map_id
    found = [one for one in kept.all() if one.number == 0 and one.mapping == mapping]
    known = {one.about.id for one in found}
    for wanted in options.ids:
        if wanted not in known:
            guess = nearest(wanted, known)
            hint = f"did you mean `{guess}`?" if guess else "`aerogel cache ls` shows those that are kept"
            raise AerogelError(f"there is no cache `{wanted}` of this user", code="cache.unknown", hints=[hint])
    chosen = [one for one in found if not options.ids or one.about.id in options.ids]
    if options.output == "-":
        if os.isatty(world.streams.stdout):
            raise AerogelError(
                "standard output is a terminal, and an archive is not for reading",
                code="cache.terminal",
                hints=["write to a file with `-o FILE`, or pipe it"],
                exit_status=EXIT_USAGE,
            )
        with os.fdopen(os.dup(world.streams.stdout), "wb") as stream:
            write_archive(stream, chosen, kept, world)
    else:
        target = world.settings.directory / options.output
        write_whole(target, lambda stream: write_archive(stream, chosen, kept, world))
    return CacheExportResult(exported=tuple(one.about.id for one in chosen))


def write_archive(stream: BinaryIO, chosen: list[KeptCache], kept: CacheMounts, world: World) -> None:
    """Writes the archive of the chosen caches. Raises `store.cache-in-use`, `store.*`."""
    archive = TarWriter(stream.write)
    caches = [one.about._asdict() for one in chosen]
    data = json.dumps({"format": FORMAT, "caches": caches}, indent=1, sort_keys=True).encode()
    archive.entry(_entry(LIST, len(data)))
    archive.content(data)
    archive.pad()
    for number, one in enumerate(chosen):
        fd, path = world.store.scratch.file()
        try:
            os.unlink(path)
            with kept.hold(one.mapping, one.about, "shared", _refill, partial(_busy, one)) as held:
                world.helper().call("archive", {"root": held.path, "epoch": None}, [fd])
            size = os.lseek(fd, 0, os.SEEK_END)
            os.lseek(fd, 0, os.SEEK_SET)
            archive.file_fd(_entry(f"{number}.tar", size), fd)
        finally:
            os.close(fd)
    archive.close()


def _entry(name: str, size: int) -> Entry:
    return Entry(name.encode(), REG, 0o644, 0, 0, size, 0, b"", (0, 0), ())


def _refill(path: str) -> None:
    """A cache that was removed meanwhile is empty."""
    del path


def _busy(one: KeptCache, first: bool) -> None:
    del first
    raise AerogelError(
        f"a step is using cache `{one.about.id}`",
        code="store.cache-in-use",
        hints=["try again when that build has ended"],
        temporary=True,
    )
