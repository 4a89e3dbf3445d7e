"""A Packages index in a form that costs nothing to open: a sorted key table and the needed fields, memory-mapped.

For: looking up the few dozen packages of an image among 70,000, in microseconds. `write_index` reads the archive's
text once; the result is kept in the cache under the text's digest. Not for: full paragraphs.

The file (numbers are unsigned 32 bit in the machine's order, named in the magic)::

    magic | n keys | n postings | length of the records, padded | records
    n+1 offsets into the key text | n+1 offsets into the postings | postings (offset, length) | key text

Keys: `=name` a package of that name, `~name` one that provides it, `!essential`, `!required` (each priority).
Spec: Debian repository format, "Packages indices".
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from aerogel.debian.package import Package
from aerogel.errors import AerogelError

__all__ = ["FORMAT", "PackageIndex", "open_index", "write_index"]

FORMAT = "indexes-v1"
"""The cache folder's name; changes with the format."""

_MAGIC = f"aerogel packages 1 {sys.byteorder:6}\n".encode().ljust(32)
_HEAD = len(_MAGIC) + 12
_KEPT = frozenset(
    b"Pack Vers Arch File Size SHA2 Sour Depe Pre- Reco Prov Conf Brea Repl Mult Prio Sect Esse Inst".split()
)
"""First four bytes of the field names that are kept; `Size` and `Installed-Size` are both wanted."""
_FOLD = re.compile(rb"\n[ \t]+")
_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9+.-]*")
_PROVIDED = re.compile(rb"(?:^|,)\s*([A-Za-z0-9][A-Za-z0-9+.-]*)")


class PackageIndex:
    """An open index of one suite, component and architecture. Looks are cheap and return the same objects again."""

    def __init__(self, data: mmap.mmap | bytes, *, suite: str, component: str, arch: str) -> None:
        self.suite = suite
        self.component = component
        self.arch = arch
        view = memoryview(data)
        if bytes(view[: len(_MAGIC)]) != _MAGIC:
            raise ValueError("not an index of this format")
        count, postings, records = view[len(_MAGIC) : _HEAD].cast("I")
        self._records = view[_HEAD : _HEAD + records]
        at = _HEAD + records
        self._key_offsets = view[at : at + 4 * (count + 1)].cast("I")
        at += 4 * (count + 1)
        self._posting_offsets = view[at : at + 4 * (count + 1)].cast("I")
        at += 4 * (count + 1)
        self._postings = view[at : at + 8 * postings].cast("I")
        self._keys = view[at + 8 * postings :]
        if len(self._keys) != self._key_offsets[count]:
            raise ValueError("the index is truncated")
        self._count = count
        self._made: dict[int, Package] = {}

    def __repr__(self) -> str:
        return f"PackageIndex({self.suite}/{self.component} {self.arch})"

    def rest(self) -> None:
        """Gives the memory back that was looked at: it is read from the file again when it is needed."""
        if isinstance(self._records.obj, mmap.mmap):
            self._records.obj.madvise(mmap.MADV_DONTNEED)

    def named(self, name: str) -> tuple[Package, ...]:
        """The packages of that name, in the index's order."""
        return self._at(f"={name}")

    def providers(self, name: str) -> tuple[Package, ...]:
        """The packages that provide the name (any version), in the index's order."""
        return self._at(f"~{name}")

    def essential(self) -> tuple[Package, ...]:
        """The packages with `Essential: yes`."""
        return self._at("!essential")

    def with_priority(self, priority: str) -> tuple[Package, ...]:
        """The packages of a priority: `required`, `important`, `standard`; others are not kept apart."""
        return self._at(f"!{priority}")

    def names(self) -> Iterator[str]:
        """All names of packages, sorted."""
        for i in range(self._first(b"="), self._first(b">")):
            yield self._key(i)[1:].decode("utf-8", "replace")

    def _key(self, i: int) -> bytes:
        return bytes(self._keys[self._key_offsets[i] : self._key_offsets[i + 1]])

    def _first(self, key: bytes) -> int:
        return bisect_left(range(self._count), key, key=self._key)

    def _at(self, key: str) -> tuple[Package, ...]:
        wanted = key.encode("utf-8", "surrogateescape")
        i = self._first(wanted)
        if i == self._count or self._key(i) != wanted:
            return ()
        start, end = self._posting_offsets[i], self._posting_offsets[i + 1]
        return tuple(self._package(self._postings[2 * j], self._postings[2 * j + 1]) for j in range(start, end))

    def _package(self, offset: int, length: int) -> Package:
        found = self._made.get(offset)
        if found is None:
            found = _package(bytes(self._records[offset : offset + length]), self.suite, self.component)
            self._made[offset] = found
        return found


def _package(record: bytes, suite: str, component: str) -> Package:
    fields: dict[str, str] = {}
    for line in record.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    get = fields.get
    name, version = fields["Package"], fields["Version"]
    source, _, source_version = get("Source", name).partition(" ")
    return Package(
        name=name,
        version=version,
        architecture=get("Architecture", ""),
        filename=get("Filename", ""),
        size=_number(get("Size", "0")),
        sha256=get("SHA256", "").lower(),
        source=source,
        source_version=source_version.strip("() ") or version,
        depends=get("Depends", ""),
        pre_depends=get("Pre-Depends", ""),
        recommends=get("Recommends", ""),
        provides=get("Provides", ""),
        conflicts=get("Conflicts", ""),
        breaks=get("Breaks", ""),
        replaces=get("Replaces", ""),
        multi_arch=get("Multi-Arch", ""),
        priority=get("Priority", ""),
        section=get("Section", ""),
        essential=get("Essential", "") == "yes",
        installed_size=_number(get("Installed-Size", "0")) * 1024,
        suite=suite,
        component=component,
    )


def _number(text: str) -> int:
    """A number of bytes for progress and limits; what is none counts as nothing, as the digest decides."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def open_index(path: str | os.PathLike[str], *, suite: str, component: str, arch: str) -> PackageIndex:
    """Maps a file that `write_index` wrote.

    Raises:
        ValueError: the file is of another format or damaged: it is to be made anew.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return PackageIndex(data, suite=suite, component=component, arch=arch)
    except (IndexError, TypeError) as error:
        raise ValueError(str(error)) from None


def write_index(chunks: Iterable[bytes], out: BinaryIO, name: str) -> int:
    """Reads the text of a Packages index piece by piece, writes the compact form to a seekable file, returns the number of packages.

    Raises:
        AerogelError: `debian.index` when a paragraph lacks what a package needs; `name` says which index.
    """
    keys: dict[bytes, array[int]] = {}
    out.write(bytes(_HEAD))
    number = offset = 0
    for paragraph in _paragraphs(chunks):
        record = _filtered(paragraph)
        record_keys = _record_keys(record, name)
        for key in record_keys:
            posting = keys.get(key)
            if posting is None:
                posting = keys[key] = array("I")
            posting.append(offset)
            posting.append(len(record))
        out.write(record)
        number += 1
        offset += len(record)
    padding = -offset % 4
    out.write(bytes(padding))
    names = sorted(keys)
    key_offsets, posting_offsets, postings = array("I", [0]), array("I", [0]), array("I")
    for key in names:
        postings.extend(keys[key])
        key_offsets.append(key_offsets[-1] + len(key))
        posting_offsets.append(len(postings) // 2)
    out.write(key_offsets.tobytes())
    out.write(posting_offsets.tobytes())
    out.write(postings.tobytes())
    out.write(b"".join(names))
    out.seek(0)
    out.write(_MAGIC + array("I", [len(names), len(postings) // 2, offset + padding]).tobytes())
    return number


def _paragraphs(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        yield from filter(None, whole)
    if rest.strip():
        yield rest


def _filtered(paragraph: bytes) -> bytes:
    if b"\n " in paragraph or b"\n\t" in paragraph:
        paragraph = _FOLD.sub(b" ", paragraph)
    return b"\n".join([line for line in paragraph.split(b"\n") if line[:4] in _KEPT])


def _field(record: bytes, name: bytes) -> bytes:
    """The value of a field of a record that begins with a line feed; `name` has one before it and a colon after it."""
    at = record.find(name)
    if at < 0:
        return b""
    end = record.find(b"\n", at + len(name))
    return record[at + len(name) : end if end >= 0 else None].strip()


def _record_keys(record: bytes, name: str) -> list[bytes]:
    lined = b"\n" + record
    package = _field(lined, b"\nPackage:")
    if not (_NAME.fullmatch(package) and b"\nVersion:" in lined and b"\nFilename:" in lined and b"\nSHA256:" in lined):
        raise AerogelError(
            f"`{name}` has a paragraph that describes no package: `{record[:120].decode('utf-8', 'replace')}`",
            code="debian.index",
        )
    keys = [b"=" + package]
    if b"\nProvides:" in lined:
        keys += [b"~" + provided for provided in dict.fromkeys(_PROVIDED.findall(_field(lined, b"\nProvides:")))]
    if b"\nEssential: yes" in lined:
        keys.append(b"!essential")
    priority = _field(lined, b"\nPriority:")
    if priority in (b"required", b"important", b"standard"):
        keys.append(b"!" + priority)
    return keys
