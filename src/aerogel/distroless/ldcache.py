"""/etc/ld.so.cache for any architecture, written from the ELF headers of the libraries in an image.

The loader would find libraries in its built-in directories without it; Python's `ctypes.util.find_library` and
programs that use other directories would not. The result has the entries that `ldconfig` writes, in its order.
Not for: hwcaps subdirectories (Debian has none) and the old format of libc5.
Spec: glibc elf/cache.c, sysdeps/generic/dl-cache.h (CACHEMAGIC_VERSION_NEW), elf/dl-cache.c `_dl_cache_libcmp`.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = [
    "PATH",
    "Library",
    "compare",
    "directories",
    "is_library_name",
    "read_cache",
    "read_soname",
    "sort_key",
    "write_cache",
]

PATH = b"etc/ld.so.cache"

Reader = Callable[[int, int], bytes]
"""Bytes of a file by offset and size; fewer at its end."""

_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = struct.Struct("20s II B 3x 4I")
_LITTLE, _BIG = 2, 3
_ELF_LIBC6 = 3
_FLAGS = {
    # (class, machine) -> what ldconfig ORs to the type of the library.
    (2, 62): 0x0300,  # x86-64
    (1, 62): 0x0800,  # x32
    (1, 3): 0x0000,  # i386
    (2, 183): 0x0A00,  # AArch64
    (1, 40): 0x0900,  # Arm hard float
    (2, 22): 0x0400,  # s390x
    (2, 21): 0x0500,  # PowerPC 64
    (2, 243): 0x1000,  # RISC-V double float
}
_LIBRARY = re.compile(rb"(?:lib|ld).*\.so(?:\..+)?", re.DOTALL)
_DT_STRTAB, _DT_SONAME = 5, 14
_PT_LOAD, _PT_DYNAMIC = 1, 2


class Library(NamedTuple):
    """An entry: `soname` is what programs ask for, `path` the absolute path of the link with that name."""

    soname: bytes
    path: bytes
    flags: int
    big_endian: bool


def is_library_name(name: bytes) -> bool:
    """Whether ldconfig would look at a file of this name."""
    return _LIBRARY.fullmatch(name) is not None


def directories(triplet: str) -> tuple[bytes, ...]:
    """Where ldconfig looks on a Debian system of this multiarch triplet, in the order of its configuration."""
    wide = triplet.encode()
    return (b"usr/local/lib", b"usr/local/lib/" + wide, b"usr/lib/" + wide, b"usr/lib")


def read_soname(read: Reader) -> tuple[bytes, int, bool] | None:
    """DT_SONAME (empty without one that is a file's name), flags and byte order of a shared library; None for anything else."""
    head = read(0, 64)
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    if len(head) < 64 and head[4] == 2:
        return None
    wide, order = head[4] == 2, "<>"[head[5] - 1]
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    flags = _FLAGS.get((head[4], machine))
    if kind != 3 or flags is None:
        return None
    at, size, count = (
        (*struct.unpack_from(order + "Q", head, 32), *struct.unpack_from(order + "HH", head, 54))
        if wide
        else (*struct.unpack_from(order + "I", head, 28), *struct.unpack_from(order + "HH", head, 42))
    )
    if size < (56 if wide else 32):
        return None  # no program headers, or damaged ones
    table = read(at, size * count)
    loads: list[tuple[int, int, int]] = []
    dynamic = b""
    for offset in range(0, len(table) - size + 1, size):
        if wide:
            tag, _, where, address, _, length = struct.unpack_from(order + "IIQQQQ", table, offset)
        else:
            tag, where, address, _, length = struct.unpack_from(order + "IIIII", table, offset)
        if tag == _PT_LOAD:
            loads.append((address, where, length))
        elif tag == _PT_DYNAMIC:
            dynamic = read(where, length)
    if not dynamic:
        return None
    return _name(read, dynamic, loads, order + ("qQ" if wide else "iI")), _ELF_LIBC6 | flags, order == ">"


def _name(read: Reader, dynamic: bytes, loads: list[tuple[int, int, int]], form: str) -> bytes:
    """The string that DT_SONAME points to in the string table, whose address is looked up in the segments."""
    found = dict(struct.iter_unpack(form, dynamic[: len(dynamic) - len(dynamic) % struct.calcsize(form)]))
    table, soname = found.get(_DT_STRTAB), found.get(_DT_SONAME)
    if table is None or soname is None:
        return b""
    for address, where, length in loads:
        if address <= table < address + length:
            name = read(table - address + where + soname, 256).partition(b"\0")[0]
            # A name with a folder is looked for there, never in the cache; as a file's it would lead out of the folder.
            return b"" if b"/" in name or name in (b".", b"..") else name
    return b""


def write_cache(libraries: Iterable[Library]) -> bytes:
    """The file's content; empty input gives a valid cache without entries (little endian)."""
    entries = sorted(set(libraries), key=sort_key, reverse=True)
    endian = ">" if entries and entries[0].big_endian else "<"
    header, entry = struct.Struct(endian + _HEADER.format), struct.Struct(endian + "iIIIQ")
    base = header.size + entry.size * len(entries)
    strings = bytearray()
    known: dict[bytes, int] = {}

    def place(text: bytes) -> int:
        if text not in known:
            known[text] = base + len(strings)
            strings.extend(text + b"\0")
        return known[text]

    rows = []
    for library in entries:
        # The soname is the end of the path: ldconfig stores it once.
        path = place(library.path)
        tail = len(library.path) - len(library.soname)
        key = path + tail if library.path.endswith(b"/" + library.soname) else place(library.soname)
        rows.append(entry.pack(library.flags, key, path, 0, 0))
    order = _BIG if endian == ">" else _LITTLE
    return header.pack(_MAGIC, len(entries), len(strings), order, 0, 0, 0, 0) + b"".join(rows) + bytes(strings)


def read_cache(data: bytes) -> list[Library]:
    """The entries of a file that `write_cache` or ldconfig wrote; none for anything else.

    Those for some processors only are left out: each has one for all beside it.
    """
    order = {_LITTLE: "<", _BIG: ">"}.get(data[28], "<") if len(data) >= _HEADER.size else ""
    if not order or not data.startswith(_MAGIC):
        return []
    (count,) = struct.unpack_from(order + "I", data, 20)
    found = []
    for number in range(count):
        at = 48 + 24 * number
        if at + 24 > len(data):
            return []
        flags, key, path, _, processors = struct.unpack_from(order + "iIIIQ", data, at)
        if processors:
            continue
        names = (data[place : data.find(b"\0", place)] for place in (key, path))
        found.append(Library(next(names), next(names), flags, order == ">"))
    return found


def _order(left: Library, right: Library) -> int:
    by_name = compare(left.soname, right.soname)
    return by_name or left.flags - right.flags or (left.path > right.path) - (left.path < right.path)


sort_key = functools.cmp_to_key(_order)
"""The order of entries, ascending; the file has them descending."""


def compare(left: bytes, right: bytes) -> int:
    """The loader's order of names: runs of digits by value, else by byte. It searches by this order."""
    a, b = left + b"\0", right + b"\0"
    i = j = 0
    while a[i]:
        if a[i : i + 1].isdigit():
            if not b[j : j + 1].isdigit():
                return 1
            (first, i), (second, j) = _digits(a, i), _digits(b, j)
            if first != second:
                return 1 if first > second else -1
        elif b[j : j + 1].isdigit():
            return -1
        elif a[i] != b[j]:
            return a[i] - b[j]
        else:
            i, j = i + 1, j + 1
    return a[i] - b[j]


def _digits(text: bytes, at: int) -> tuple[tuple[int, bytes], int]:
    """The number at a place, of any length, as what can be compared, and where it ends."""
    end = at
    while text[end : end + 1].isdigit():
        end += 1
    number = text[at:end].lstrip(b"0")
    return (len(number), number), end
