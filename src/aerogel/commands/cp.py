"""`aerogel cp`: files between a container and this host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from msgspec import Struct

from aerogel.commands.detaching import containers_of, helper_for
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.files import transfer
from aerogel.files.entry import DIR, LNK, Entry
from aerogel.files.tar import Readable, TarWriter, read_entries
from aerogel.flag import Flag
from aerogel.runtime.containers import Seen
from aerogel.runtime.copying import in_container, piped

__all__ = ["EXAMPLES", "Cp", "CpResult", "run"]

EXAMPLES = (
    ("a file out of a container", "aerogel cp web:/etc/passwd ."),
    ("what is in a folder into one", "aerogel cp site/. web:/srv"),
    ("a folder as a tar", "aerogel cp web:/var/log - >log.tar"),
)


class Cp(Struct, frozen=True, kw_only=True):
    """Copy files between a container, running or not, and this host.

    One of the two is `CONTAINER:PATH`. A folder is copied into one that is there, or becomes a new one; with `/.` at
    its end, what is in it is copied. `-` is a tar on standard output or input.
    """

    source: Annotated[str, Flag("What is copied", positional=True, metavar="[CONTAINER:]SOURCE|-", complete="file")]
    target: Annotated[str, Flag("Where to", positional=True, metavar="[CONTAINER:]TARGET|-", complete="file")]
    archive: Annotated[bool, Flag("Give what is copied into the container to its user", short="a")] = False
    follow_link: Annotated[bool, Flag("Copy what a link leads to", short="L")] = False
    quiet: Annotated[bool, Flag("Accepted for docker's sake: there is no progress", short="q")] = False


class CpResult(Result, frozen=True, kw_only=True):
    def text(self) -> str:
        return ""


def run(options: Cp, world: World) -> CpResult:
    """Copies. Raises `cp.*`, `container.not-found`, `extract.*`, `tar.*`."""
    source, target = _parse(options.source), _parse(options.target)
    if source[0] and target[0]:
        raise fault(
            "files are not copied from container to container", "cp.words", "copy them to this host first, or pipe `-`"
        )
    if not source[0] and not target[0]:
        raise fault("neither is in a container", "cp.words", "write `CONTAINER:PATH` for one of the two")
    seen = containers_of(world).find(source[0] or target[0])
    (_from if source[0] else _to)(seen, source[1], target[1], options, world)
    return CpResult()


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Says in errors of copying which side they are of."""
    try:
        yield
    except AerogelError as error:
        if error.code.startswith("cp."):
            error.message += f" {where}"
        if error.code == "tar.changed" and where != _HERE:
            error.hints = (
                *error.hints,
                "a file that the kernel makes up, as in /proc, is read by `aerogel exec NAME cat FILE`",
            )
        raise


_HERE = "on this host"


def _there(seen: Seen) -> str:
    return f"in container `{seen.container.name}`"


def _parse(word: str) -> tuple[str, str]:
    """The container, empty for this host, and the path; as docker tells them apart."""
    container, sign, path = word.partition(":")
    if word.startswith("/") or not sign or container.startswith(".") or "/" in container:
        return "", word
    if not container or not path:
        raise fault(f"`{word}` is not `CONTAINER:PATH`", "cp.words", "write for example `web:/etc/passwd`")
    return container, path


def _on_host(path: str, world: World) -> str:
    # the end says whether a folder is meant, or what is in it
    whole = os.path.join(world.settings.directory, path)
    return whole if whole.endswith(("/", "/.")) or not path.endswith("..") else whole + "/"


def _from(seen: Seen, path: str, target: str, options: Cp, world: World) -> None:
    args: dict[str, Any] = {"path": path, "follow": options.follow_link}

    def pack(fd: int) -> None:
        with _told(_there(seen)), open(os.devnull, "rb") as null:
            in_container(seen, helper_for(seen, world), "pack", args, null.fileno(), fd)

    with piped(pack) as read:
        if target == "-":
            _as_tar(read, world.streams.stdout)
            return
        where = {
            "path": _on_host(target, world),
            "contents": path.endswith("/."),
            "owner": [os.getuid(), os.getgid()],
            "plain": True,
        }
        with _told(_HERE):
            transfer.unpack(where, [read, -1])


def _to(seen: Seen, source: str, path: str, options: Cp, world: World) -> None:
    args: dict[str, Any] = {"path": path, "contents": source.endswith("/."), "raw": source == "-"}
    if options.archive and seen.container.sandbox.user:  # without one docker keeps the ids too
        args["user"] = seen.container.sandbox.user
    given = {"path": _on_host(source, world), "follow": options.follow_link}

    def pack(fd: int) -> None:
        with _told(_HERE):
            transfer.pack(given, [-1, fd])

    def unpack(fd: int) -> None:
        with _told(_there(seen)), open(os.devnull, "wb") as null:
            in_container(seen, helper_for(seen, world), "unpack", args, fd, null.fileno())

    if source == "-":
        unpack(world.streams.stdin)
        return
    with piped(pack) as read:
        unpack(read)


def _as_tar(read: int, out: int) -> None:
    """The stream as a tar whose names begin with the name of what was copied, as docker's."""
    head = transfer.read_head(read)
    if head is None:
        return
    name = os.fsencode(head.name)
    with open(out, "wb", closefd=False) as file:
        writer = TarWriter(file.write)
        if head.kind == DIR and name:
            writer.entry(Entry(name, DIR, head.mode, head.uid, head.gid, mtime=head.mtime))
        for entry, content in read_entries(_reader(read)):
            writer.entry(_below(entry, name, is_file=head.kind != DIR))
            while piece := content.some():
                writer.content(piece)
            writer.pad()
        writer.close()


def _below(entry: Entry, name: bytes, *, is_file: bool) -> Entry:
    if is_file:
        return entry._replace(path=name)
    if not name:
        return entry
    link = name + b"/" + entry.link if entry.kind == LNK else entry.link
    return entry._replace(path=name + b"/" + entry.path, link=link)


def _reader(fd: int) -> Readable:
    return open(fd, "rb", buffering=0, closefd=False)
