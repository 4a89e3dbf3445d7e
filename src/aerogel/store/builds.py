"""What past builds were: a record of each, and lists of the files that their steps selected. Only for people.

::

    <cache>/builds-v1/<id>.json             one build; the id begins with its time: 20261121-140355-1f0a
    <cache>/selections-v1/<2 hex>/<62 hex>  the files that a key was made of, by the digest that stands in the key

Nothing here decides what a build does: what cannot be read counts as absent, and a disk that is full costs the record,
not the build. The newest 200 builds stay, less when they take more than 32 MB; lists that none of them can have used
go, and the oldest ones when all take more than 128 MB.
"""

from __future__ import annotations

import calendar
import json
import marshal
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import islice
from typing import Any

from aerogel.decoding import parse_json
from aerogel.errors import AerogelError
from aerogel.store.disk import read_file
from aerogel.store.scratch import Scratch

__all__ = ["BUILD_ID", "Builds", "Row", "Selections"]

Row = tuple[bytes, int, int, int, int, int, bytes, bytes]
"""Path, kind (of `files.entry`), mode, uid, gid, size, link, first half of the SHA-256 of the content."""

BUILD_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")

_STAMP = "%Y%m%d-%H%M%S"
_MAX_BUILDS = 200
_MAX_BYTES = 32 << 20
_MAX_SELECTIONS_BYTES = 128 << 20
_DIGEST_BYTES = 16
_TOUCH_AFTER_S = 6 * 3600.0
_CRC_BYTES = 4
_ROWS = 1000
"""Rows of a list that are packed at a time."""


class Builds:
    """The records of builds in one store."""

    def __init__(self, cache: str, scratch: Scratch) -> None:
        self.root = f"{cache}/builds-v1"
        self._cache = cache
        self._scratch = scratch
        self.selections = Selections(cache, scratch)

    def salt(self) -> bytes:
        """Random bytes of this store: what is hashed with them can be compared in records, and not guessed from them."""
        path = f"{self._cache}/salt-v1"
        for _ in range(2):
            found = read_file(path)
            if found:
                return found
            self._scratch.write_file(path, os.urandom(32))
        return b""

    def new_id(self, now_s: float) -> str:
        """An id for a build that begins at `now_s` seconds since 1970; it sorts behind all others.

        So a clock that goes backwards does not make the last build an old one.
        """
        stamp, count = time.strftime(_STAMP, time.gmtime(now_s)), 0
        newest = self.ids()[:1]
        if newest and newest[0][:15] >= stamp:
            stamp, count = newest[0][:15], int(newest[0][16:18], 16) + 1
            if count > 255:
                after_s = calendar.timegm(time.strptime(stamp, _STAMP)) + 1
                stamp, count = time.strftime(_STAMP, time.gmtime(after_s)), 0
        return f"{stamp}-{count:02x}{os.urandom(1).hex()}"

    def put(self, record: dict[str, Any]) -> None:
        """Keeps a record under its `id`, and removes those that are too many. Says nothing when it cannot."""
        try:
            data = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode()
            self._scratch.write_file(f"{self.root}/{record['id']}.json", data)
            self._trim()
        except (AerogelError, OSError):
            return

    def get(self, name: str) -> dict[str, Any] | None:
        """The record of a build, None when there is none that can be read."""
        try:
            record = parse_json(read_file(f"{self.root}/{name}.json") or b"")
        except ValueError:
            return None
        return record if isinstance(record, dict) and record.get("id") == name and "steps" in record else None

    def ids(self) -> list[str]:
        """The ids of all builds, the newest first."""
        try:
            names = os.listdir(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        return sorted((name for name in found if BUILD_ID.fullmatch(name)), reverse=True)

    def newest(self) -> Iterator[dict[str, Any]]:
        """All records that can be read, the newest first."""
        for name in self.ids():
            record = self.get(name)
            if record is not None:
                yield record

    def remove(self, name: str) -> None:
        _forget(f"{self.root}/{name}.json")

    def _trim(self) -> None:
        names = self.ids()
        total = 0
        kept = 0
        for name in names:
            total += _size(f"{self.root}/{name}.json")
            if kept >= _MAX_BUILDS or (total > _MAX_BYTES and kept):
                break
            kept += 1
        for name in names[kept:]:
            self.remove(name)
        if len(names) > kept:
            oldest = _mtime(f"{self.root}/{names[kept - 1]}.json")
            self.selections.trim(oldest - 2 * _TOUCH_AFTER_S)


class Selections:
    """Lists of selected files by the digest of all that a key covers of them."""

    def __init__(self, cache: str, scratch: Scratch) -> None:
        self.root = f"{cache}/selections-v1"
        self._scratch = scratch

    def path(self, digest: str) -> str:
        encoded = digest.partition(":")[2]
        return f"{self.root}/{encoded[:2]}/{encoded[2:]}"

    def keep(self, digest: str, make: Callable[[], Iterable[Row]]) -> None:
        """Keeps the list that `make` gives, unless it is there. Says nothing when the disk will not."""
        path = self.path(digest)
        try:
            if time.time() - os.stat(path).st_mtime > _TOUCH_AFTER_S:
                os.utime(path)
            return
        except FileNotFoundError:
            pass
        except OSError:
            return
        packer = zlib.compressobj(1)
        body, rows, crc = [b""], iter(make()), 0
        while some := [(*row[:7], row[7][:_DIGEST_BYTES]) for row in islice(rows, _ROWS)]:
            body.append(packer.compress(marshal.dumps(some)))
            crc = zlib.crc32(body[-1], crc)
        body.append(packer.flush())
        body[0] = zlib.crc32(body[-1], crc).to_bytes(_CRC_BYTES, "big")
        try:
            self._scratch.write_file(path, body)
        except (AerogelError, OSError):
            return

    def get(self, digest: str) -> dict[bytes, Row] | None:
        """The list by path; None when it is not kept."""
        data = read_file(self.path(digest)) or b""
        body = data[_CRC_BYTES:]
        if len(data) < _CRC_BYTES or zlib.crc32(body).to_bytes(_CRC_BYTES, "big") != data[:_CRC_BYTES]:
            return None
        found: dict[bytes, Row] = {}
        plain = BytesIO(zlib.decompress(body))
        while plain.tell() < plain.getbuffer().nbytes:
            found |= {row[0]: row for row in marshal.load(plain)}  # noqa: S302 - our own file, checked
        return found

    def all(self) -> Iterator[tuple[str, str]]:
        """Digest and path of each list."""
        try:
            folders = os.listdir(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return
        for folder in folders:
            try:
                names = os.listdir(f"{self.root}/{folder}")
            except OSError:
                continue
            for name in names:
                yield f"sha256:{folder}{name}", f"{self.root}/{folder}/{name}"

    def trim(self, before_s: float, max_bytes: int = _MAX_SELECTIONS_BYTES) -> None:
        """Removes lists that were last used before a time, and the oldest while all take more than `max_bytes`."""
        found = sorted(((_mtime(path), _size(path), path) for _, path in self.all()), reverse=True)
        total = 0
        for used, size, path in found:
            total += size
            if used < before_s or total > max_bytes:
                _forget(path)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
