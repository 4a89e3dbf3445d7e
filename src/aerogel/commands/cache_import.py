"""`aerogel cache import`: directories of cache mounts out of an archive of `aerogel cache export`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, BinaryIO

from msgspec import Struct

from aerogel.commands.cache_export import FORMAT, LIST
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.decoding import parse_json
from aerogel.errors import AerogelError
from aerogel.files.entry import Entry
from aerogel.files.tar import Readable, read_entries
from aerogel.flag import Flag
from aerogel.store.disk import disk_errors
from aerogel.store.mounts import CacheAbout, CacheMounts

__all__ = ["EXAMPLES", "CacheImport", "CacheImportResult", "read_archive", "run"]

EXAMPLES = (("what another host exported", "zstd -dc caches.tar.zst | aerogel cache import"),)
_CHUNK = 1 << 18
_LONGEST_LIST = 16 << 20


class CacheImport(Struct, frozen=True, kw_only=True):
    """Read cache mounts from an archive.

    A cache that is here already stays as it is, unless `--replace` is given.
    """

    file: Annotated[
        str, Flag("Archive; without it, standard input", positional=True, metavar="FILE", complete="file")
    ] = "-"
    replace: Annotated[bool, Flag("Put those of the archive in place of those that are here")] = False


class CacheImportResult(Result, frozen=True, kw_only=True):
    imported: tuple[str, ...]
    """Ids."""
    kept: tuple[str, ...]
    """Ids of those that were here already."""

    def text(self) -> str:
        lines = [f"{name}" for name in self.imported]
        return "\n".join([*lines, *(f"{name} (was here already)" for name in self.kept)])


def run(options: CacheImport, world: World) -> CacheImportResult:
    """Reads the archive from its begin to its end. Raises `cache.archive`, `extract.*`, `tar.*`, `store.*`."""
    if options.file == "-":
        return _read(sys.stdin.buffer, options, world)
    path = world.settings.directory / options.file
    with disk_errors(str(path)), path.open("rb") as stream:
        return _read(stream, options, world)


def read_archive(stream: BinaryIO, world: World) -> CacheImportResult:
    """Makes the caches of an archive that are not here. Raises as `run`."""
    return _read(stream, CacheImport(file="-"), world)


def _read(stream: BinaryIO, options: CacheImport, world: World) -> CacheImportResult:
    imported: list[str] = []
    here: list[str] = []
    members = read_entries(stream)
    try:
        for number, about in enumerate(_list(_member(members, LIST))):
            done = _take(_member(members, f"{number}.tar"), about, options, world)
            (imported if done else here).append(about.id)
    except AerogelError as error:
        if error.code.startswith("tar."):
            raise _bad(error.message) from None
        raise
    return CacheImportResult(imported=tuple(imported), kept=tuple(here))


def _member(members: Iterator[tuple[Entry, Readable]], name: str) -> Readable:
    for entry, content in members:
        if entry.path == name.encode():
            return content
        break
    raise _bad(f"`{name}` is not where it belongs")


def _list(content: Readable) -> list[CacheAbout]:
    try:
        data = parse_json(content.read(_LONGEST_LIST))
        if data["format"] != FORMAT:
            raise _bad(f"its format is {data['format']}, this is known: {FORMAT}")
        found = [CacheAbout(**one) for one in data["caches"]]
    except (ValueError, KeyError, TypeError):
        raise _bad(f"`{LIST}` is damaged") from None
    kinds = (str, int, int, int, str)
    if not all(isinstance(value, kind) for one in found for value, kind in zip(one, kinds, strict=True)):
        raise _bad(f"`{LIST}` is damaged")
    return found


def _take(content: Readable, about: CacheAbout, options: CacheImport, world: World) -> bool:
    """Makes the cache; whether it was made."""
    kept = CacheMounts(world.store.cache, world.store.scratch)
    helper = world.helper()
    mapping = helper.rung.map_id
    old = [one for one in kept.all() if (one.about, one.mapping, one.number) == (about, mapping, 0)]
    if old and not options.replace:
        return False
    for one in old:
        kept.remove(one, lambda path: helper.call("remove", {"path": path}))

    def fill(path: str) -> None:
        _extract(content, path, world)
        helper.call("own", {"path": path, "uid": about.uid, "gid": about.gid, "mode": about.mode})

    def wait(first: bool) -> None:
        del first
        raise AerogelError(f"a step has just made cache `{about.id}`", code="store.cache-in-use", temporary=True)

    kept.hold(mapping, about, "locked", fill, wait).close()
    return True


def _extract(content: Readable, path: str, world: World) -> None:
    read_fd, write_fd = os.pipe()
    failures: list[BaseException] = []

    def pump() -> None:
        try:
            with os.fdopen(write_fd, "wb") as pipe, suppress(BrokenPipeError):  # the job failed and says why
                while data := content.read(_CHUNK):
                    pipe.write(data)
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            failures.append(error)

    thread = threading.Thread(target=pump, name="import a cache")
    thread.start()
    try:
        world.helper().call("extract", {"path": path, "overlay": None}, [read_fd])
    finally:
        os.close(read_fd)
        thread.join()
    if failures:
        raise failures[0]


def _bad(why: str) -> AerogelError:
    return AerogelError(
        f"this is no archive of `aerogel cache export`: {why}",
        code="cache.archive",
        hints=["`aerogel cache export -o FILE` writes one"],
    )
