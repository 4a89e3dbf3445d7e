"""Every image that a test leaves in a store is validated: digests, sizes, diff ids, counts, types, referrers.

A store is looked at when a test opened it or ran a command on it. The reader here shares no code with the store: it
knows the names of files only. A layer that was right once in this run is not read again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import BinaryIO

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.types import Descriptor, from_dict
from aerogel.oci.validate import Seen, validate_descriptor
from aerogel.store.store import Store

_touched: set[Path] = set()
_known: set[Path] = set()
_seen: Seen = set()


def touch(data: Path) -> None:
    """The folder `data` of a store has been in use by this test."""
    _touched.add(data)


def watch() -> None:
    """From now on the stores that are opened in this process are looked at too."""
    opened = Store.open.__func__  # type: ignore[attr-defined]  # of a class method

    def open_and_touch(cls: type[Store], data: str, cache: str, **options: object) -> Store:
        touch(Path(data))
        found: Store = opened(cls, data, cache, **options)
        return found

    Store.open = classmethod(open_and_touch)  # type: ignore[assignment]  # the same, seen


def problems() -> list[str]:
    """What is wrong with the images and artifacts that came into the stores in use since the last call."""
    found = []
    for data in _touched:
        for path in sorted((*data.glob("images-v1/by-digest/*.json"), *data.glob("images-v1/referrers/*/*.json"))):
            if path in _known:
                continue
            _known.add(path)
            entry = json.loads(path.read_bytes())
            descriptor = from_dict(entry.get("descriptor", entry), Descriptor)
            if not _Files(data).has(descriptor.digest):
                continue  # counts as absent
            try:
                told = validate_descriptor(descriptor, _Files(data), _seen)
            except AerogelError as error:
                told = [error.message]
            found += [f"{data}: {descriptor.digest}: {text}" for text in told if not _is_elsewhere(data, text)]
    forget()
    return found


def _is_elsewhere(data: Path, text: str) -> bool:
    """Whether a problem is that a layer of a base image stayed in its registry, which the store knows."""
    absent = re.search(r"blob `(sha\d+):([0-9a-f]+)` is missing", text)
    return absent is not None and (data / "origins-v1" / absent[1] / absent[2]).is_file()


def forget() -> None:
    """What the stores in use hold is meant to be damaged."""
    _touched.clear()


class _Files:
    """The blobs of a store as files."""

    def __init__(self, data: Path) -> None:
        self._root = data / "blobs"

    def _path(self, digest: Digest) -> Path:
        return self._root.joinpath(*digest.split(":"))

    def has(self, digest: Digest, /) -> bool:
        return self._path(digest).is_file()

    def open(self, digest: Digest, size: int | None = None, /) -> BinaryIO:
        del size
        try:
            return self._path(digest).open("rb")
        except OSError as error:
            raise AerogelError(f"blob `{digest}`: {error.strerror}", code="store.missing") from error

    def read(self, digest: Digest, size: int | None = None, /) -> bytes:
        with self.open(digest, size) as file:
            return file.read()
