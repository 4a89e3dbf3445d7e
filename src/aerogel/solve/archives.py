"""Local archives that ADD extracts: recognised by their content, read once into a nameless file.

Spec: the Dockerfile reference, ADD: a local tar archive, plain or compressed with gzip, bzip2, xz or zstd.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from tempfile import TemporaryFile
from typing import IO

from aerogel.errors import AerogelError
from aerogel.files.codec import open_uncompressed, sniff
from aerogel.files.copy import CopyItem
from aerogel.files.entry import REG, Entry, shown
from aerogel.files.host import HostTree
from aerogel.files.pyc import sources_of
from aerogel.files.tar import Readable, TarWriter, scan
from aerogel.store.disk import disk_errors

__all__ = ["Archives"]

_CHUNK = 1 << 18
_HEAD = 512
_MAGIC_AT = 257


class Archives:
    """The archives of one context that one instruction extracts; their plain contents lie in `folder` meanwhile."""

    def __init__(self, tree: HostTree, folder: str) -> None:
        self._tree = tree
        self._folder = folder
        self._open: dict[bytes, tuple[IO[bytes], dict[bytes, int]]] = {}
        self._sources: dict[bytes, dict[bytes, Entry]] = {}
        """The Python sources in each archive."""

    def entries(self, path: bytes) -> Sequence[Entry] | None:
        """What the archive holds, None for a file that is none. Raises AerogelError `tar.*`, `codec.*`."""
        fd = self._tree.open(path)
        try:
            self._tree.check_unchanged(path, fd)
            head = os.pread(fd, _HEAD, 0)
            family = sniff(head)
            if family is None and head[_MAGIC_AT : _MAGIC_AT + 5] != b"ustar":
                return None
            stream = open_uncompressed(fd, family or "tar")
            return self._spool(path, stream, is_compressed=family not in (None, "tar"))
        except AerogelError as error:
            error.message = f"the archive `{shown(path)}` cannot be extracted: {error.message}"
            error.hints = (*error.hints, "`ADD --unpack=false` copies it as it is")
            raise
        finally:
            os.close(fd)

    def _spool(self, path: bytes, stream: Readable, *, is_compressed: bool) -> Sequence[Entry] | None:
        with disk_errors(self._folder):
            spool = TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `close`
        try:
            while data := stream.read(_CHUNK):
                with disk_errors(self._folder):
                    spool.write(data)
                if is_compressed and spool.tell() == len(data) and data[_MAGIC_AT : _MAGIC_AT + 5] != b"ustar":
                    # A compressed file that is no archive is copied as it is.
                    spool.close()
                    return None
            with disk_errors(self._folder):
                spool.seek(0)
            found: dict[bytes, tuple[Entry, int]] = {}
            for entry, offset in scan(spool):
                found.pop(entry.path, None)
                found[entry.path] = (entry, offset)
        except BaseException:
            spool.close()
            raise
        self._open[path] = (spool, {name: offset for name, (entry, offset) in found.items() if entry.kind == REG})
        kept = [entry for entry, _ in found.values()]
        self._sources[path] = {entry.path: entry for entry in kept if entry.kind == REG and entry.path.endswith(b".py")}
        return kept

    def write(self, item: CopyItem, tar: TarWriter) -> None:
        """Writes a file of an archive, header and content."""
        spool, offsets = self._open[item.archive or b""]
        at, left = offsets[item.source or b""], item.entry.size
        tar.entry(item.entry)
        while left:
            data = os.pread(spool.fileno(), min(left, _CHUNK), at)
            if not data:
                raise AerogelError("an archive ended while it was copied", code="copy.archive")
            tar.content(data)
            at += len(data)
            left -= len(data)
        tar.pad()

    def source(self, item: CopyItem) -> Entry | None:
        """The source of a compiled file in the same archive."""
        return self._sources[item.archive or b""].get(sources_of(item.source or b""))

    def close(self) -> None:
        """Gives the space back."""
        for spool, _ in self._open.values():
            spool.close()
