"""A room: packages laid out as a root file system in which a program runs, and from which files are taken.

For what cannot be made without running something (jlink, compileall, localedef). The room is never part of an image:
it lies in scratch space, its programs see no network and nothing of the host, and what is taken out gets the times
and owners of generated files. No maintainer script has run in it.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BufferedReader, BufferedWriter, FileIO
from typing import TYPE_CHECKING

from aerogel.debian.memory import give_back
from aerogel.distroless.layout import Item, Layout, Place, write_layer
from aerogel.distroless.recipe import PATH
from aerogel.distroless.unpacked import Unpacked
from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry
from aerogel.files.index import LayerIndex, build_index
from aerogel.files.tar import scan
from aerogel.sandbox.spec import Mount, Rootfs, Sandbox

if TYPE_CHECKING:
    from aerogel.sandbox.launch import Helper

__all__ = ["Room", "archive_tree", "call_with", "extract_items", "opened_room", "pipe"]

_TAIL_LINES = 30


def pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    """Reading and writing end of a pipe; closed with the stack unless they were closed before."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    return stack.enter_context(open(reading, "rb", buffering=0)), stack.enter_context(open(writing, "wb", buffering=0))


def call_with(helper: Helper, job: str, args: dict[str, object], end: FileIO) -> None:
    """Runs a job with one end of a pipe, which is closed when it ends: the other end must notice."""
    with end:
        helper.call(job, args, [end.fileno()])


def extract_items(helper: Helper, items: Sequence[Item], tree: str) -> None:
    """Makes the files of items below a folder, with the owners that they have in an image."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        reading, writing = pipe(stack)
        done = pool.submit(call_with, helper, "extract", {"path": tree, "overlay": None}, reading)
        try:
            with writing, BufferedWriter(writing, 1 << 18) as out:
                write_layer(items, out.write)
        except BrokenPipeError:
            done.result()  # the job says why
            raise
        done.result()


def archive_tree(
    helper: Helper, tree: str, epoch: int, exclude: Sequence[str], write: Callable[[bytes | memoryview], object]
) -> LayerIndex:
    """Writes a folder as a canonical layer; no time in it is later than `epoch`, seconds since 1970."""
    args: dict[str, object] = {"root": tree, "epoch": epoch, "exclude": list(exclude)}
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        reading, writing = pipe(stack)
        done = pool.submit(call_with, helper, "archive", args, writing)
        try:
            with reading:
                index = build_index(reading, write)
        except AerogelError:
            done.result()  # a fault of the job explains a stream that ended early
            raise
        done.result()
        return index


class Room:
    """Made by `opened_room`. `layout` is what is in it when the first program starts; add to it before `run`."""

    def __init__(self, helper: Helper, scratch: str, packages: Sequence[Unpacked], *, emulated: bool) -> None:
        self._helper = helper
        self._tree, self._work = f"{scratch}/room", f"{scratch}/room-work"
        self._emulated = emulated
        self._is_made = False
        self._spools = ExitStack()
        self.layout = Layout()
        for one in sorted(packages, key=lambda each: (each.package.name != "base-files", each.package.name)):
            self.layout.add_package(one, lambda _: None)
        self.layout.merge_usr()

    def _make(self) -> None:
        os.mkdir(self._tree, 0o755)
        os.mkdir(self._work, 0o700)
        self._is_made = True
        extract_items(self._helper, self.layout.ordered(), self._tree)

    def run(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = "/") -> bytes:
        """Runs a program as root of the room, without network; returns its standard output and errors.

        Raises `distroless.tool` with the last lines if it fails, `sandbox.*`.
        """
        if not self._is_made:
            self._make()
        given = {
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PATH": PATH,
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": str(self.layout.epoch),
            "TZ": "UTC",
            **(env or {}),
        }
        sandbox = Sandbox(
            argv=tuple(argv),
            root=Rootfs(upper=self._tree, work=self._work),
            env=tuple(given.items()),
            cwd=cwd,
            mounts=(Mount(kind="tmpfs", target="/tmp"),),
            network="none",
            emulated=self._emulated,
        )
        lines: deque[bytes] = deque(maxlen=10_000)
        give_back()
        with ExitStack() as stack:
            reading, writing = pipe(stack)
            process = self._helper.run(sandbox, stdout=writing.fileno(), stderr=writing.fileno())
            writing.close()
            with BufferedReader(reading) as stream:
                lines.extend(stream)
            result = process.wait()
        if result.fault is not None:
            raise result.fault
        if result.code != 0:
            raise AerogelError(
                f"`{argv[0]}` failed while the base was made: it ended with status {result.code}",
                code="distroless.tool",
                detail=b"".join(list(lines)[-_TAIL_LINES:]).decode("utf-8", "replace"),
            )
        return b"".join(lines)

    def take(self, layout: Layout, path: bytes, to: bytes, *, owner: str = "") -> list[bytes]:
        """Puts what is at and below `path` of the room (relative) at `to` of an image; returns the paths there.

        Owner and group become root, the times those of the image's generated files; hard links become files.
        """
        spool = self._spools.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the stack
        args: dict[str, object] = {"root": f"{self._tree}/{os.fsdecode(path)}", "epoch": layout.epoch, "exclude": []}
        self._helper.call("archive", args, [spool.fileno()])
        spool.seek(0)
        taken: list[bytes] = []
        places: dict[bytes, tuple[int, Place]] = {}
        for found, offset in scan(spool):
            if found.kind not in (DIR, LNK, REG, SYM):
                continue
            where = to + b"/" + found.path if found.path else to
            entry = found._replace(path=where, uid=0, gid=0, mtime=layout.epoch)
            content: bytes | Place = b""
            if entry.kind == REG:
                content = Place(spool.fileno(), offset)
                places[where] = entry.size, content
            elif entry.kind == LNK:
                size, content = places[to + b"/" + found.link]
                entry = Entry(where, REG, found.mode, size=size, mtime=layout.epoch)
            if entry.kind == DIR and where in layout.items:
                continue
            layout.items[where] = Item(entry, content, owner)
            taken.append(where)
        return taken

    def close(self) -> None:
        """Removes the room; what was taken stays readable until `opened_room` ends."""
        if self._is_made:
            for path in (self._tree, self._work):
                self._helper.call("remove", {"path": path})
            self._is_made = False


@contextmanager
def opened_room(
    stack: ExitStack, helper: Helper, scratch: str, packages: Sequence[Unpacked], *, emulated: bool = False
) -> Iterator[Room]:
    """A room for the time of the block. What was taken out of it can be read until `stack` is closed."""
    room = Room(helper, scratch, packages, emulated=emulated)
    stack.callback(room._spools.close)
    try:
        yield room
    finally:
        room.close()
