"""A part of a local context as a directory that a step may see: what the ignore file removes is not in it.

The folder itself cannot be shown: it holds what is ignored, belongs to whoever checked it out, and may be edited while
the step runs. So the selected files are laid out once for each state of the context (path, mode, modification time,
content), owned by root as COPY would have them, with the times that they have, which compilers compare. A file that is
the same as in the state before is a hard link to that one's: nobody writes to either, since a mount that may be written
to is an overlay above. New ones are reflinked where the file system can, else copied.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
from hashlib import sha256
from typing import NamedTuple

from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, FIFO, REG, SYM, Entry, shown
from aerogel.files.host import HostTree
from aerogel.graph.ops import frame
from aerogel.oci.digest import Digest
from aerogel.solve.materials import FS, Materials
from aerogel.solve.subtree import chosen
from aerogel.store.disk import disk_errors, read_file

__all__ = ["Bound", "bind_context"]

_FICLONE = 0x40049409
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY)
_FILES = "files"
_CHUNK = 1 << 20


class Bound(NamedTuple):
    """`directory` holds it under `name` (empty: the directory itself); never to be written to."""

    directory: str
    name: str


def bind_context(tree: HostTree, source: str, number: int, materials: Materials) -> Bound:
    """Lays out what mount `number` shows of the context. Raises `solve.mount-source`, `context.*`, `store.*`."""
    root = chosen(tree, source, number)
    entries = list(tree.walk(root.path))
    start = len(root.path) + 1 if root.path else 0
    files = {entry.path[start:]: _identity(tree, entry) for entry in entries}
    state = Digest("sha256:" + sha256(frame(*(part for item in files.items() for part in item))).hexdigest())
    snapshots, mapping = materials.store.snapshots, materials.helper().rung.map_id
    name = "file" if root.kind != DIR else ""
    with materials.store.once(f"context-{mapping}-{state}"):
        found = snapshots.dir_for(mapping, state)
        if found is None:
            made = snapshots.new(mapping)
            try:
                with disk_errors(made):
                    _lay_out(tree, entries, start, f"{made}/{FS}", files, _before(materials, mapping, tree, source))
                with open(f"{made}/{_FILES}", "wb") as file:
                    file.write(marshal.dumps(files))
                found = snapshots.commit(made, mapping, state, materials.remove)
            except BaseException:
                snapshots.discard(made, materials.remove)
                raise
    materials.store.actions.put(_pointer(mapping, tree, source), {}, {"state": state})
    return Bound(f"{found}/{FS}", name)


def _pointer(mapping: str, tree: HostTree, source: str) -> Digest:
    """The key under which the latest state of this part of this folder is remembered."""
    parts = (b"aerogel-context-v1", mapping.encode(), os.fsencode(tree.path), source.encode("utf-8", "surrogateescape"))
    return Digest("sha256:" + sha256(frame(*parts)).hexdigest())


def _before(materials: Materials, mapping: str, tree: HostTree, source: str) -> tuple[str, dict[bytes, bytes]]:
    """The directory of the state before and what is in it, or nothing."""
    known = materials.store.actions.get(_pointer(mapping, tree, source))
    found = materials.store.snapshots.dir_for(mapping, known["state"]) if known is not None else None
    data = read_file(f"{found}/{_FILES}") if found is not None else None
    return (f"{found}/{FS}", marshal.loads(data)) if data is not None else ("", {})  # noqa: S302 - our own file


def _identity(tree: HostTree, entry: Entry) -> bytes:
    time = tree.status(entry.path).st_mtime_ns if entry.path else 0
    content = tree.digest(entry.path) if entry.kind == REG else entry.link
    # A directory's time says what came and went in it, ignored things as well.
    return b"%d %d %d " % (entry.kind, entry.mode, time if entry.kind == REG else 0) + content


def _lay_out(
    tree: HostTree,
    entries: list[Entry],
    start: int,
    target: str,
    files: dict[bytes, bytes],
    before: tuple[str, dict[bytes, bytes]],
) -> None:
    base = os.fsencode(target)
    old, known = os.fsencode(before[0]), before[1]
    if entries[0].kind != DIR:
        os.mkdir(base, 0o755)
    directories = []
    for entry in entries:
        name = entry.path[start:]
        path = b"%s/%s" % (base, name or b"file") if name or entry.kind != DIR else base
        if entry.kind == DIR:
            os.mkdir(path, 0o755)
            directories.append((path, entry))
        elif entry.kind == SYM:
            os.symlink(entry.link, path)
            _set_time(tree, path, entry)
        elif entry.kind == FIFO:
            os.mkfifo(path, entry.mode)
        elif entry.kind == REG:
            if known.get(name) == files[name] and _link(b"%s/%s" % (old, name or b"file"), path):
                continue
            _copy(tree, entry, path)
            _set_time(tree, path, entry)
    for path, entry in reversed(directories):
        os.chmod(path, entry.mode)
        _set_time(tree, path, entry)


def _link(old: bytes, new: bytes) -> bool:
    try:
        os.link(old, new)
    except OSError:  # too many links, or it was removed
        return False
    return True


def _set_time(tree: HostTree, path: bytes, entry: Entry) -> None:
    if entry.path:
        time = tree.status(entry.path).st_mtime_ns
        os.utime(path, ns=(time, time), follow_symlinks=False)


def _copy(tree: HostTree, entry: Entry, path: bytes) -> None:
    source = tree.open(entry.path)
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _fill(source, target)
            os.fchmod(target, entry.mode)
        finally:
            os.close(target)
        now, then = os.fstat(source), tree.status(entry.path)
    finally:
        os.close(source)
    if (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
        then.st_ino,
        then.st_size,
        then.st_mtime_ns,
        then.st_ctime_ns,
    ):
        raise AerogelError(
            f"`{shown(entry.path)}` changed while it was read",
            code="context.changed",
            hints=["build again when nothing writes to the build context, or leave the file out of it"],
            temporary=True,
        )


def _fill(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    else:
        return
    while data := os.read(source, _CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
