"""The file jobs that run in the sandbox helper's workers, where mapped owners and file capabilities are visible.

Each takes its arguments as JSON values (paths as strings, bytes that are no UTF-8 as lone surrogates) and open
descriptors, which stay the caller's, and gives back JSON values. Paths of host directories come from the main
process and are trusted; what is in the trees and streams is not. Standard library only.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.files.diff import write_diff, write_tree
from aerogel.files.entry import clean_path, shown
from aerogel.files.extract import extract as extract_tar
from aerogel.files.inside import Directories, open_regular, remove_tree, system_errors
from aerogel.files.settle import settle
from aerogel.files.shown import write_shown
from aerogel.files.tar import CHUNK
from aerogel.sandbox import record

__all__ = ["archive", "diff", "extract", "measure", "own", "read", "remove", "show"]


class _FdReader:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)


def _bytes(path: str) -> bytes:
    # Not os.fsencode: that depends on the locale, and the other side does not.
    return path.encode("utf-8", "surrogateescape")


@contextmanager
def _directory(path: str) -> Iterator[int]:
    try:
        fd = os.open(_bytes(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AerogelError(
            f"cannot open directory `{path}`: {(error.strerror or '').lower()}",
            code="files.directory",
            exit_status=EXIT_HOST,
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _output(fd: int) -> Iterator[io.BufferedWriter[io.FileIO]]:
    """The pipe to the main process; its being gone ends the job without a word, since nobody would hear it."""
    stream = io.BufferedWriter(io.FileIO(fd, "wb", closefd=False), CHUNK)
    try:
        yield stream
        stream.flush()
    except BrokenPipeError as error:
        raise AerogelError("nobody reads what a file job writes", code="files.canceled") from error
    finally:
        # What could not be written must not be tried again when the object goes.
        with suppress(OSError, ValueError):
            stream.detach()


def extract(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Unpacks the tar that `fds[0]` gives into the directory `path`, reading to the end.

    `overlay` is `"trusted"`, `"user"` or None (a plain tree, whiteouts delete). With `recorded`, which every job may
    be told, owners are written beside the files; with `copied` and `bare`, which are told too, whiteouts are sockets,
    and modes are written beside the files. Gives `entries`, `bytes` and
    `dropped_xattrs`. Raises AerogelError `tar.*`, `extract.*`.
    """
    with _directory(args["path"]) as root:
        done = extract_tar(
            _FdReader(fds[0]),
            root,
            args.get("overlay"),
            recorded=bool(args.get("recorded")),
            copied=bool(args.get("copied")),
            bare=bool(args.get("bare")),
        )
    return {"entries": done.entries, "bytes": done.size, "dropped_xattrs": done.dropped_xattrs}


def diff(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Writes the overlay directory `upper` as a layer tar to `fds[0]`, against `lowers` (lowest first).

    `epoch`: latest modification time in seconds, or None; `exclude`: paths that are left out; `mark`: the layer's mark.
    With `settle` (the arguments of `files.settle`, and `above`: the directories that the step saw above `lowers`) the
    directory is settled first, which gives its mark. Gives `entries`. Raises AerogelError `diff.*`, `settle.failed`, `tar.*`.
    """
    with ExitStack() as stack:
        upper = stack.enter_context(_directory(args["upper"]))
        lowers = [stack.enter_context(_directory(lower)) for lower in args["lowers"]]
        out = stack.enter_context(_output(fds[0]))
        recorded = bool(args.get("recorded"))
        mark = args.get("mark")
        if "settle" in args:
            above = [stack.enter_context(_directory(path)) for path in args["settle"]["above"]]
            mark = _settled(upper, lowers + above, args["settle"])
        entries = write_diff(
            out.write,
            upper,
            lowers,
            epoch=args.get("epoch"),
            exclude=_exclude(args),
            recorded=recorded,
            copied=bool(args.get("copied")),
            mark=mark,
            overlay=args.get("marks"),
        )
        _restore_root(upper, lowers, recorded=recorded)
    return {"entries": entries}


def _settled(upper: int, lowers: list[int], how: dict[str, Any]) -> int:
    return settle(
        upper,
        lowers,
        since_ns=how["since_ns"],
        newest=how["newest"],
        unsettled={int(seen): known for seen, known in how["unsettled"]},
        keep_volatile=how["keep_volatile"],
    )


def _restore_root(upper: int, lowers: list[int], *, recorded: bool) -> None:
    """Owner and mode of the root directory, which no layer holds, as they were: later steps mount this directory."""
    uid, gid, mode = 0, 0, 0o755
    if lowers:
        status = os.fstat(lowers[-1])
        uid, gid, mode = status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
    with system_errors("restore", b"", "diff.failed"):
        if recorded:
            record.write(upper, stat.S_IFDIR, record.read(lowers[-1], stat.S_IFDIR) if lowers else record.ROOT)
        os.fchown(upper, uid, gid)
        os.fchmod(upper, mode)


def archive(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Writes the directory `root` as a layer tar to `fds[0]`; `epoch`, `exclude` and the result as in `diff`."""
    with _directory(args["root"]) as root, _output(fds[0]) as out:
        recorded = bool(args.get("recorded"))
        entries = write_tree(out.write, root, epoch=args.get("epoch"), exclude=_exclude(args), recorded=recorded)
    return {"entries": entries}


def _exclude(args: dict[str, Any]) -> list[bytes]:
    return [clean_path(_bytes(path)) for path in args.get("exclude") or ()]


def read(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Writes the contents of regular files to `fds[0]`, one directly after the other; gives `bytes`.

    The files are `paths`, whose contents must have `sizes` bytes, in the directory `root` or, topmost first found,
    in the directories `lowers` (lowest first). No symbolic link is followed. Raises AerogelError `read.*`.
    """
    total = 0
    roots = [args["root"]] if "root" in args else list(reversed(args["lowers"]))
    with ExitStack() as stack:
        trees = [stack.enter_context(Directories(stack.enter_context(_directory(root)))) for root in roots]
        out = stack.enter_context(_output(fds[0]))
        for name, size in zip(args["paths"], args["sizes"], strict=True):
            path = clean_path(_bytes(name))
            fd = _open_first(trees, path)
            try:
                _copy(fd, out, path, size)
            finally:
                os.close(fd)
            total += size
    return {"bytes": total}


def _open_first(trees: list[Directories], path: bytes) -> int:
    for tree in trees[:-1]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return open_regular(tree, path)
    with system_errors("read", path, "read.failed"):
        return open_regular(trees[-1], path)


def _copy(fd: int, out: io.BufferedWriter[io.FileIO], path: bytes, size: int) -> None:
    left = size
    while left:
        data = os.read(fd, min(left, CHUNK))
        if not data:
            break
        out.write(data)
        left -= len(data)
    if left or os.fstat(fd).st_size != size:
        raise AerogelError(
            f"file `/{shown(path)}` does not have the {size} bytes that its layer says", code="read.changed"
        )


def own(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Gives the directory `path` to `uid` and `gid`, with `mode`. Raises AerogelError `own.failed`."""
    del fds
    path = _bytes(args["path"])
    with system_errors("set the owner of", path.lstrip(b"/"), "own.failed"):
        owner = record.Record(args["uid"], args["gid"])
        if args.get("bare"):
            record.dress(path, stat.S_IFDIR, owner, args["mode"])
            return {}
        if args.get("recorded"):
            record.write(path, stat.S_IFDIR, owner)
        else:
            os.chown(path, args["uid"], args["gid"])
        os.chmod(path, args["mode"])
    return {}


def remove(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Removes `path` with everything below it; a missing one is no error. Raises AerogelError `remove.failed`."""
    del fds
    path = _bytes(args["path"])
    with system_errors("remove", path.lstrip(b"/"), "remove.failed"), suppress(FileNotFoundError):
        remove_tree(path)
    return {}


def show(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Makes the new directory `path` and fills it with files of `lowers` (lowest first) that have other times.

    `rows` are pairs of a path and seconds since 1970. Gives `entries`. Raises AerogelError `shown.failed`.
    """
    del fds
    target = _bytes(args["path"])
    with system_errors("make", target.lstrip(b"/"), "shown.failed"):
        os.mkdir(target, 0o700)
    with ExitStack() as stack:
        made = stack.enter_context(_directory(args["path"]))
        lowers = [stack.enter_context(_directory(lower)) for lower in args["lowers"]]
        return {"entries": write_shown(lowers, made, [(_bytes(path), seconds) for path, seconds in args["rows"]])}


def measure(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """The bytes on the disk of `path` with all in it, hard links once: `bytes`. What goes meanwhile is left out."""
    del fds
    seen: set[tuple[int, int]] = set()
    total = 0
    todo = [_bytes(args["path"])]
    while todo:
        name = todo.pop()
        with suppress(OSError):
            state = os.lstat(name)
            if state.st_nlink > 1 and not stat.S_ISDIR(state.st_mode):
                if (state.st_dev, state.st_ino) in seen:
                    continue
                seen.add((state.st_dev, state.st_ino))
            total += state.st_blocks * 512
            if stat.S_ISDIR(state.st_mode):
                todo += [name + b"/" + child for child in os.listdir(name)]
    return {"bytes": total}
