"""The root file system of an image as files: `-o type=tar` and `-o type=local`.

Files of all layers merged, whiteouts applied, hard links kept, no entry for the root itself. In a tar the entries are
sorted; the same image gives the same bytes.
Spec: BuildKit exporter/tar and exporter/local.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.export.merged import OpenTar, linked, write_entries
from aerogel.files.entry import BLK, CHR, DIR, LNK, Entry, directory
from aerogel.files.extract import extract
from aerogel.files.inside import Directories
from aerogel.files.tree import LayerTree, Origin
from aerogel.oci.digest import Digest
from aerogel.store.disk import disk_errors
from aerogel.store.store import Store

__all__ = ["Layers", "write_folder", "write_tar"]


class Layers(NamedTuple):
    """An image's files: the merged tree, the layers by number, how to read one.

    `prefix` is a folder to be put in; `name` says in errors which image it is.
    """

    tree: LayerTree
    layers: Sequence[Digest]
    open_tar: OpenTar
    prefix: bytes = b""
    name: str = ""


def write_tar(
    write: Callable[[bytes | memoryview], object], parts: Sequence[Layers], store: Store, *, epoch_s: int | None = None
) -> None:
    """Writes one tar of everything; with several parts, each below its prefix. `epoch_s`: the latest time of a file.

    Parts without prefix are merged. Raises `build.platforms-differ`, `store.*`, `tar.*`.
    """
    entries: list[tuple[Entry, Origin | None]] = []
    layers: list[Digest] = []
    opens: dict[Digest, OpenTar] = {}
    merged = _Merged() if len(parts) > 1 and not all(part.prefix for part in parts) else None
    for part in parts:
        if part.prefix:
            entries.append((directory(part.prefix, mtime=epoch_s or 0), None))
        base = len(layers)
        layers += part.layers
        opens.update((layer, part.open_tar) for layer in part.layers)
        for entry, origin in linked(part.tree, _below_root(part.tree)):
            if merged is not None and not merged.is_new(entry, origin, part):
                continue
            if origin is not None:
                origin = origin._replace(layer=base + origin.layer)  # noqa: PLW2901 - its place among all parts
            entries.append((_moved(entry, part.prefix, epoch_s), origin))
    if merged is not None:
        entries.sort(key=lambda each: each[0].path.split(b"/"))
    write_entries(write, entries, layers, lambda layer: opens[layer](layer), store)


class _Merged:
    """The files of several images in one place: what two have alike is taken once, what differs is refused."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Entry, object, str]] = {}

    def is_new(self, entry: Entry, origin: Origin | None, part: Layers) -> bool:
        """Raises `build.platforms-differ`."""
        content = None if origin is None else (part.layers[origin.layer], origin.offset)
        known, other, name = self._known.setdefault(entry.path, (entry, content, part.name))
        if name == part.name:
            return True
        if (known, other) != (entry, content) and not known.kind == entry.kind == DIR:
            raise AerogelError(
                f"`/{entry.path.decode('utf-8', 'backslashreplace')}` of `{part.name}` is not the one of `{name}`, "
                "and both have the same place",
                code="build.platforms-differ",
                hints=["leave `platform-split=false` out: each platform gets a folder"],
            )
        return False


def _below_root(tree: LayerTree) -> Iterator[Entry]:
    return (entry for entry in tree.walk() if entry.path)


def _moved(entry: Entry, prefix: bytes, epoch_s: int | None) -> Entry:
    if prefix:
        link = prefix + b"/" + entry.link if entry.kind == LNK else entry.link
        entry = entry._replace(path=prefix + b"/" + entry.path, link=link)
    if epoch_s is not None and entry.mtime > epoch_s:
        entry = entry._replace(mtime=epoch_s)
    return entry


def write_folder(folder: str, parts: Sequence[Layers], store: Store, *, epoch_s: int | None = None) -> tuple[str, ...]:
    """Puts the files below a folder, which is made when it is not there; what is there stays unless it is in the way.

    Root keeps the owners of the image; others own what they write, as with BuildKit, and cannot make devices: those
    are left out and returned. Raises `store.*` for the folder, `tar.*`, `extract.*`.
    """
    is_root = os.geteuid() == 0
    uid, gid = os.geteuid(), os.getegid()
    left_out: list[str] = []
    modes: list[tuple[bytes, int]] = []

    def change(entry: Entry) -> Entry | None:
        if is_root:
            return entry
        if entry.kind in (CHR, BLK):
            left_out.append("/" + entry.path.decode("utf-8", "backslashreplace"))
            return None
        if entry.kind == DIR:
            # Its files come after it, and only root may write where the owner may not.
            modes.append((entry.path, entry.mode))
            entry = entry._replace(mode=entry.mode | 0o700)
        return entry._replace(uid=uid, gid=gid)

    with disk_errors(folder):
        os.makedirs(folder, exist_ok=True)
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _unpack(root, parts, store, epoch_s, change)
        with Directories(root, follow=True) as directories:
            for path, mode in reversed(modes):
                os.fchmod(directories.fd(path), mode)
    finally:
        os.close(root)
    return tuple(left_out)


def _unpack(
    root: int,
    parts: Sequence[Layers],
    store: Store,
    epoch_s: int | None,
    change: Callable[[Entry], Entry | None],
) -> None:
    read_fd, write_fd = os.pipe()
    failures: list[BaseException] = []

    def pump() -> None:
        try:
            with os.fdopen(write_fd, "wb") as pipe:
                write_tar(pipe.write, parts, store, epoch_s=epoch_s)
        except BrokenPipeError:
            return  # the reader failed and says why
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            failures.append(error)

    thread = threading.Thread(target=pump, name="local output")
    thread.start()
    try:
        with os.fdopen(read_fd, "rb", buffering=0) as stream:
            extract(stream, root, change=change)
    except AerogelError as error:
        thread.join()
        if failures:
            raise failures[0] from None
        if error.code.startswith("extract."):
            error.exit_status = EXIT_HOST
        raise
    finally:
        thread.join()
    if failures:
        raise failures[0]
