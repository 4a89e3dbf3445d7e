"""The first difference between two images that should be equal, and what probably made it.

For `aerogel build --verify`. Both images are in one store. A cause is a guess from what is known to differ from run
to run; what it is named after is said, so that it can be judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from aerogel.export.verdict import Difference
from aerogel.files.codec import open_uncompressed
from aerogel.files.entry import Entry, shown
from aerogel.files.tar import CHUNK, read_entries
from aerogel.oci.image import Image
from aerogel.oci.types import Descriptor
from aerogel.store.blobs import Blobs

__all__ = ["first_difference"]

_SHOWN = 40
_MAX_CONTENT = 32 << 20

_PLACES: tuple[tuple[str, str], ...] = (
    (r"etc/machine-id|var/lib/dbus/machine-id", "the random identity of a machine"),
    (r"etc/ssh/ssh_host_.*|.*/dropbear/.*_key", "a random key: make it when a container starts, not in the image"),
    (r".*\.(pem|key|crt|p12|jks|keystore)|.*/gnupg/.*", "a random key or a certificate made in the step"),
    (r"var/cache/ldconfig/aux-cache", "times and inode numbers of libraries, which ldconfig notes"),
    (r"var/log/.*|.*/log/.*|.*\.log", "a log with dates"),
    (r"run/.*\.pid|var/run/.*|.*\.pid", "the number of a process"),
    (r".*/(\.npm|\.cache|_cacache)/.*|var/cache/.*|tmp/.*", "a cache that its program makes again"),
    (r"var/lib/(apt/lists|apk|dnf|rpm)/.*", "lists of packages: the archive has changed, or the database has dates"),
    (r".*\.pyc", "a compiled file of Python: built twice at once, or with the order of a set in it"),
    (r".*\.(a|o)", "an archive of objects: `ar` without `D`, or a path or date in an object"),
    (r".*(\.jar|\.war|\.whl|\.zip|\.egg)", "times of the files in an archive"),
)

_DATES = re.compile(
    rb"(?:19|20)\d\d[-/.]?[01]\d[-/.]?[0-3]\d|[0-2]\d:[0-5]\d:[0-5]\d|\b1[67]\d{8}\b"
    rb"|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-3]\d"
)
_RANDOM = re.compile(rb"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}|[0-9a-zA-Z+/]{20,}")


def first_difference(first: tuple[Image, ...], second: tuple[Image, ...], blobs: Blobs) -> Difference | None:
    """None when the images are the same byte for byte. Raises `store.*`."""
    if len(first) != len(second):
        return Difference(what="number of images", first=str(len(first)), second=str(len(second)))
    for one, two in zip(first, second, strict=True):
        if one.digest == two.digest:
            continue
        found = _of_image(one, two, blobs)
        return msgspec.structs.replace(found, platform=str(one.config.platform))
    return None


def _of_image(one: Image, two: Image, blobs: Blobs) -> Difference:
    layers = list(zip(one.layers(), two.layers(), strict=False))
    steps = [entry.created_by or "" for entry in one.config.history if not entry.empty_layer]
    for number, (left, right) in enumerate(layers, 1):
        if left.diff_id == right.diff_id:
            continue
        found = _of_layer(left.descriptor, right.descriptor, blobs)
        step = steps[number - 1] if len(steps) == len(one.layers()) else ""
        return msgspec.structs.replace(found, layer=number, step=step)
    if len(one.layers()) != len(two.layers()):
        counts = [str(len(each.layers())) for each in (one, two)]
        return Difference(what="number of layers", first=counts[0], second=counts[1], cause="a step that wrote nothing")
    for number, (left, right) in enumerate(layers, 1):
        if left.descriptor.digest != right.descriptor.digest:
            cause = "another compressor, or another version of it"
            return Difference(
                what="bytes", layer=number, first=left.descriptor.digest, second=right.descriptor.digest, cause=cause
            )
    return _of_config(msgspec.json.decode(one.config_bytes), msgspec.json.decode(two.config_bytes), "config")


def _of_config(left: Any, right: Any, where: str) -> Difference:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            if left.get(key) != right.get(key):
                return _of_config(left.get(key), right.get(key), f"{where}.{key}")
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for number, (one, two) in enumerate(zip(left, right, strict=True)):
            if one != two:
                return _of_config(one, two, f"{where}[{number}]")
    cause = "the date of the image: `--timestamps=keep`" if where.endswith("created") else ""
    return Difference(what="config", path=where, first=str(left)[:_SHOWN], second=str(right)[:_SHOWN], cause=cause)


class _File:
    """An entry with the digest of its content."""

    __slots__ = ("digest", "entry")

    def __init__(self, entry: Entry, digest: bytes) -> None:
        self.entry = entry
        self.digest = digest


def _files(blob: Descriptor, blobs: Blobs) -> dict[bytes, _File]:
    found = {}
    with blobs.open(blob.digest, blob.size) as stream:
        for entry, content in read_entries(open_uncompressed(stream, blob.media_type)):
            digest = sha256()
            while piece := content.some(CHUNK):
                digest.update(piece)
            found[entry.path] = _File(entry, digest.digest())
    return found


def _of_layer(left: Descriptor, right: Descriptor, blobs: Blobs) -> Difference:
    ours, theirs = _files(left, blobs), _files(right, blobs)
    differing = list(_differing(ours, theirs))
    if not differing:
        return Difference(what="bytes", first=left.digest, second=right.digest, cause="the order of the entries")
    path, what, first, second = differing[0]
    name = f"/{shown(path)}"
    if what == "content":
        return _of_content(name, path, _content(left, path, blobs), _content(right, path, blobs))
    cause = _by_place(path)
    if what == "time" and not cause:
        cause = "the time of the step: it was set by the step itself, so it was kept"
    if what in ("missing", "added") and not cause:
        cause = "a name that differs from run to run" if {"missing", "added"} <= {each[1] for each in differing} else ""
    return Difference(what=what, path=name, first=first, second=second, cause=cause)


def _differing(ours: dict[bytes, _File], theirs: dict[bytes, _File]) -> Iterator[tuple[bytes, str, str, str]]:
    """What differs, contents before times of the same layer: a directory's time says little."""
    late = []
    for path in sorted({*ours, *theirs}):
        one, two = ours.get(path), theirs.get(path)
        if one is None or two is None:
            yield path, "added" if one is None else "missing", "", ""
            continue
        left, right = one.entry, two.entry
        facts = (
            ("kind", str(left.kind), str(right.kind)),
            ("mode", f"{left.mode:o}", f"{right.mode:o}"),
            ("owner", f"{left.uid}:{left.gid}", f"{right.uid}:{right.gid}"),
            ("link", shown(left.link), shown(right.link)),
            ("content", one.digest.hex(), two.digest.hex()),
            ("attributes", repr(left.xattrs), repr(right.xattrs)),
        )
        for what, first, second in facts:
            if first != second:
                yield path, what, first, second
                break
        else:
            if left.mtime != right.mtime:
                late.append((path, "time", str(left.mtime), str(right.mtime)))
    yield from late


def _content(blob: Descriptor, wanted: bytes, blobs: Blobs) -> bytes:
    found = b""
    with blobs.open(blob.digest, blob.size) as stream:
        for entry, content in read_entries(open_uncompressed(stream, blob.media_type)):
            if entry.path == wanted:
                found = content.read(_MAX_CONTENT)
    return found


def _of_content(name: str, path: bytes, left: bytes, right: bytes) -> Difference:
    at = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    first, second = (_around(each, at) for each in (left, right))
    return Difference(what="content", path=name, first=first, second=second, cause=_cause(path, left, right, at))


def _around(data: bytes, at: int) -> str:
    """What stands at an offset, as text."""
    start = max(data.rfind(b"\n", 0, at) + 1, at - _SHOWN // 2)
    piece = data[start : start + _SHOWN].split(b"\n", 1)[0]
    return f"at byte {at}: {piece!r}"[:120].replace("b'", "'", 1)


def _cause(path: bytes, left: bytes, right: bytes, at: int) -> str:
    if left[:2] == right[:2] == b"\x1f\x8b" and 4 <= at < 8:
        return "the time in the head of a gzip file: `gzip -n`"
    by_place = _by_place(path)
    if by_place:
        return by_place
    if left[:4] == right[:4] == b"PK\3\4":
        return "times of the files in an archive"
    if len(left) == len(right) and b"\0" not in left[:4096] and sorted(left.split()) == sorted(right.split()):
        return "order: of a hash table, of a folder's names or of jobs that run at the same time"
    start, end = max(0, at - 32), at + 32
    if _has_date(left, at, start, end) and _has_date(right, at, start, end):
        return "a date: many programs take it from `SOURCE_DATE_EPOCH`, which a step sees after `ARG SOURCE_DATE_EPOCH`"
    if any(_spans(_RANDOM, each, at, start - 48, end + 48) for each in (left, right)):
        return "something random: an identity, a key, a salt"
    if left[at : at + 1].isdigit() and right[at : at + 1].isdigit():
        return "a number that differs from run to run: of a process, a counter, a duration"
    return ""


def _has_date(data: bytes, at: int, start: int, end: int) -> bool:
    return _spans(_DATES, data, at, start, end)


def _spans(pattern: re.Pattern[bytes], data: bytes, at: int, start: int, end: int) -> bool:
    start = max(0, start)
    return any(found.start() + start <= at <= found.end() + start for found in pattern.finditer(data[start:end]))


def _by_place(path: bytes) -> str:
    name = path.decode("utf-8", "replace")
    return next((cause for pattern, cause in _PLACES if re.fullmatch(pattern, name)), "")
