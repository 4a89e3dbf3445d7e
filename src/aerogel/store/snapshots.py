"""Unpacked layers and upper directories, by mapping and key: what sandboxes are mounted from.

::

    <cache>/snapshots-v1/<mapping>/<key>/   owned by us, mode 0700 as all directories above
        snapshot.json       {"boot": ..., "inode": ..., "key": ..., "durable": bool, "layers": [...]}
        ...                 what the maker put there (`fs/`), owners as the mapping has them

`mapping` names how ids inside are ids of the host (`root`, `u100000-65536`): files of one mapping mean nothing in
another. A snapshot is made in scratch space and gets its name by one rename, complete. It is not synced: `is_sound`
refuses one of an earlier boot unless it was made durable since (`sync`), and one that was copied with the folder
(another inode), since owners and attributes may be lost. What is refused is made again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aerogel.decoding import parse_json
from aerogel.errors import AerogelError
from aerogel.store.disk import boot_id, disk_errors, read_file, sync_filesystem
from aerogel.store.scratch import Scratch

__all__ = ["Snapshots"]

_META = "snapshot.json"


class Snapshots:
    """The snapshots of one store."""

    def __init__(self, cache: str, scratch: Scratch) -> None:
        self._root = f"{cache}/snapshots-v1"
        self._scratch = scratch
        self._boot: str | None = None
        self._fresh: set[str] = set()

    def _path(self, mapping: str, key: str) -> str:
        name = key.replace(":", "-")
        for word in (mapping, name):
            if not word or word[0] == "." or not word.replace("-", "").replace("_", "").replace(".", "").isalnum():
                raise ValueError(f"{word!r} cannot name a snapshot")
        return f"{self._root}/{mapping}/{name}"

    def dir_for(self, mapping: str, key: str) -> str | None:
        """The directory of a snapshot, None when there is none that can be trusted. Raises `store.*`."""
        path = self._path(mapping, key)
        if path in self._fresh:
            return path
        return path if self._is_sound(path, key) else None

    def _is_sound(self, path: str, key: str) -> bool:
        data = read_file(f"{path}/{_META}")
        if data is None:
            return False
        sound: bool
        try:
            meta = parse_json(data)
            sound = meta["key"] == key and meta["inode"] == os.stat(path).st_ino
            sound = sound and (meta["durable"] is True or meta["boot"] == self._boot_id())
        except (ValueError, KeyError, TypeError, OSError):
            sound = False
        if sound:
            self._fresh.add(path)
        return sound

    def _boot_id(self) -> str:
        if self._boot is None:
            self._boot = boot_id()
        return self._boot

    def new(self, mapping: str) -> str:
        """An empty directory, to be filled and then given to `commit` or `discard`. Raises `store.*`.

        It lies on the file system of the snapshots; if this process dies it is reclaimed.
        """
        with disk_errors(self._root):
            os.makedirs(f"{self._root}/{mapping}", mode=0o700, exist_ok=True)
        return self._scratch.directory()

    def commit(
        self,
        made: str,
        mapping: str,
        key: str,
        remove: Callable[[str], object] | None = None,
        layers: Sequence[str] = (),
    ) -> str:
        """Gives a directory of `new` its name and returns where it is now. Raises `store.*`.

        `layers` are the diff ids of a directory that is made of several; the key of one layer is its own.
        When another process was first, its snapshot is returned and ours is removed (`remove` as in `discard`).
        """
        path = self._path(mapping, key)
        self._write_meta(made, key, layers, durable=False)
        for _ in range(3):
            try:
                os.rename(made, path)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    with disk_errors(self._root):
                        raise
            else:
                self._fresh.add(path)
                return path
            if self._is_sound(path, key):
                self._scratch.discard(made, remove)
                return path
            self._scratch.discard(path, remove)
        raise AerogelError(f"snapshot `{path}` cannot be replaced", code="store.io")

    def discard(self, made: str, remove: Callable[[str], object] | None = None) -> bool:
        """Removes a directory of `new`; `remove(path)` is asked for what belongs to mapped owners.

        False when something stays in the scratch space, for `Store.reclaim`.
        """
        return self._scratch.discard(made, remove)

    def discard_later(self, made: str, remove: Callable[[str], object] | None = None) -> None:
        """As `discard`, of a directory of `new` or of something in one; the disk gets its space back by and by."""
        self._scratch.discard_later(made, remove)

    def remove(self, mapping: str, key: str, remove: Callable[[str], object] | None = None) -> bool:
        """Removes a snapshot that nobody has pinned; False when somebody has. For `store.gc` and after damage."""
        path = self._path(mapping, key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._fresh.discard(path)
            self._scratch.discard(path, remove)
        finally:
            os.close(fd)
        return True

    @contextmanager
    def pinned(self, mapping: str, key: str) -> Iterator[str | None]:
        """`dir_for`, and nobody removes it within the block: for a container that outlives its build."""
        path = self.dir_for(mapping, key)
        if path is None:
            yield None
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield path if os.path.isdir(path) else None
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Makes what this process committed or used outlive a power cut: one syncfs(2). Raises `store.*`."""
        # A damaged one is made anew by the next run.
        todo = [path for path in sorted(self._fresh) if self._meta(path).get("durable") is False]
        if todo:
            sync_filesystem(self._root)
            for path in todo:
                meta = self._meta(path)
                self._write_meta(path, meta.get("key", ""), meta.get("layers", ()), durable=True)

    @staticmethod
    def layers(path: str, key: str) -> list[str]:
        """The diff ids of what is unpacked in a snapshot, which is the key for a single layer."""
        found = Snapshots._meta(path).get("layers")
        return [str(each) for each in found] if isinstance(found, list) and found else [key]

    @staticmethod
    def _meta(path: str) -> dict[str, Any]:
        """Empty for one that is not there or damaged."""
        try:
            found = parse_json(read_file(f"{path}/{_META}") or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _write_meta(self, path: str, key: str, layers: Sequence[str], *, durable: bool) -> None:
        with disk_errors(path):
            meta: dict[str, object] = {"boot": self._boot_id(), "durable": durable, "inode": os.stat(path).st_ino}
        meta |= {"key": key} | ({"layers": list(layers)} if layers else {})
        data = json.dumps(meta, sort_keys=True, separators=(",", ":")).encode()
        self._scratch.write_file(f"{path}/{_META}", data)

    def all(self) -> Iterator[tuple[str, str, str]]:
        """Mapping, key and path of every snapshot."""
        try:
            mappings = os.listdir(self._root)
        except FileNotFoundError:
            return
        for mapping in mappings:
            with disk_errors(self._root):
                names = os.listdir(f"{self._root}/{mapping}")
            for name in names:
                key = name.replace("-", ":", 1) if name.startswith("sha256-") else name
                yield mapping, key, f"{self._root}/{mapping}/{name}"
