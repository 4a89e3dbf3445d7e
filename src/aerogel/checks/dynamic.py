"""What the loader reads of an ELF file: which libraries and which of their versions it needs, and which it gives.

Read from program headers and the dynamic section alone, at most some pages of a file. Nothing in it is trusted.
Spec: System V ABI chapter 5; LSB 4.1, "Symbol Versioning".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["Dynamic", "Reader", "linked_go_functions", "read_dynamic"]

Reader = Callable[[int, int], bytes]
"""Bytes of a file by offset and size; fewer at its end."""

_MAX_TABLE = 1 << 16
_MAX_DYNAMIC = 1 << 16
_MAX_STRINGS = 16 << 20
_MAX_VERSIONS = 1 << 20
_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_NEEDED, _STRTAB, _STRSZ, _SONAME = 1, 5, 10, 14
_VERDEF, _VERDEFNUM, _VERNEED, _VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_WEAK = 2
_MAX_WANTED = 4096
"""Versions that one file may need; glibc's own programs need some tens."""


class Dynamic(NamedTuple):
    """`wants` are pairs of a library and a version of it; `gives` the versions that the file itself has."""

    machine: int
    wide: bool
    interpreter: str = ""
    soname: str = ""
    needed: tuple[str, ...] = ()
    wants: tuple[tuple[str, str], ...] = ()
    gives: tuple[str, ...] = ()

    def dumps(self) -> list[Any]:
        """As JSON can hold it."""
        return [*self[:4], list(self.needed), [list(pair) for pair in self.wants], list(self.gives)]

    @classmethod
    def loads(cls, saved: list[Any]) -> Dynamic:
        machine, wide, interpreter, soname, needed, wants, gives = saved
        pairs = tuple((library, version) for library, version in wants)
        return cls(machine, wide, interpreter, soname, tuple(needed), pairs, tuple(gives))


class _File(NamedTuple):
    read: Reader
    order: str
    loads: tuple[tuple[int, int, int], ...]
    """Offset, address and size in the file of what is loaded."""

    def at(self, address: int, size: int) -> bytes:
        for offset, start, length in self.loads:
            if start <= address < start + length:
                return self.read(offset + address - start, min(size, start + length - address))
        return b""


def read_dynamic(read: Reader) -> Dynamic | None:
    """What the loader reads; None for what is no ELF file of a program or library."""
    head = read(0, 64)
    if head[:4] != b"\x7fELF" or len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    try:
        return _read(read, head, head[4] == 2, "<" if head[5] == 1 else ">")
    except (struct.error, OverflowError, ValueError):
        return None


def _read(read: Reader, head: bytes, wide: bool, order: str) -> Dynamic | None:
    kind, machine = struct.unpack_from(f"{order}HH", head, 16)
    if kind not in (2, 3):
        return None
    at, at_sizes = (32, 54) if wide else (28, 42)
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, at)
    size, count = struct.unpack_from(f"{order}HH", head, at_sizes)
    if size < (56 if wide else 32) or size * count > _MAX_TABLE:
        return Dynamic(machine, wide)
    headers = read(table, size * count)
    loads, dynamic, interpreter = [], (0, 0), ""
    for start in range(0, len(headers) - size + 1, size):
        if wide:
            what, _, offset, address, _, length = struct.unpack_from(f"{order}IIQQQQ", headers, start)
        else:
            what, offset, address, _, length = struct.unpack_from(f"{order}IIIII", headers, start)
        if what == _LOAD:
            loads.append((offset, address, length))
        elif what == _DYNAMIC:
            dynamic = offset, min(length, _MAX_DYNAMIC)
        elif what == _INTERP:
            interpreter = read(offset, min(length, 4096)).partition(b"\0")[0].decode("utf-8", "replace")
    file = _File(read, order, tuple(loads))
    return _with_section(file, Dynamic(machine, wide, interpreter), read(*dynamic) if dynamic[1] else b"")


def _with_section(file: _File, found: Dynamic, section: bytes) -> Dynamic:
    form = struct.Struct(file.order + ("QQ" if found.wide else "II"))
    values: dict[int, int] = {}
    needed: list[int] = []
    for tag, value in form.iter_unpack(section[: len(section) // form.size * form.size]):
        if tag == 0:
            break
        if tag == _NEEDED:
            needed.append(value)
        else:
            values.setdefault(tag, value)
    strings = file.at(values.get(_STRTAB, 0), min(values.get(_STRSZ, 0), _MAX_STRINGS))

    def text(offset: int) -> str:
        end = strings.find(b"\0", offset)
        return strings[offset : max(end, offset)].decode("utf-8", "replace")

    wants = _wanted(file, values.get(_VERNEED, 0), values.get(_VERNEEDNUM, 0), text)
    gives = _given(file, values.get(_VERDEF, 0), values.get(_VERDEFNUM, 0), text)
    return found._replace(
        soname=text(values[_SONAME]) if _SONAME in values else "",
        needed=tuple(filter(None, map(text, needed))),
        wants=tuple(dict.fromkeys(wants)),
        gives=tuple(dict.fromkeys(gives)),
    )


def _wanted(file: _File, address: int, count: int, text: Callable[[int], str]) -> Iterator[tuple[str, str]]:
    data = file.at(address, _MAX_VERSIONS) if address else b""
    at, left = 0, _MAX_WANTED
    for _ in range(min(count, _MAX_WANTED)):
        _, members, name, aux, following = struct.unpack_from(f"{file.order}HHIII", data, at)
        library, inner = text(name), at + aux
        for _ in range(min(members, left)):
            left -= 1
            _, flags, _, version, after = struct.unpack_from(f"{file.order}IHHII", data, inner)
            if not flags & _WEAK:
                yield library, text(version)
            if not after:
                break
            inner += after
        if not following:
            return
        at += following


def _given(file: _File, address: int, count: int, text: Callable[[int], str]) -> Iterator[str]:
    data = file.at(address, _MAX_VERSIONS) if address else b""
    at = 0
    for _ in range(min(count, 5000)):
        _, _, _, _, _, aux, following = struct.unpack_from(f"{file.order}HHHHIII", data, at)
        (name,) = struct.unpack_from(f"{file.order}I", data, at + aux)
        yield text(name)
        if not following:
            return
        at += following


def linked_go_functions(read: Reader, size: int, names: tuple[bytes, ...]) -> frozenset[bytes] | None:
    """Which of the functions are in a program made by Go; None for any other program.

    Go's linker leaves out what cannot be reached, and keeps the names of the rest. Reads the file up to 64 MiB.
    """
    piece, most = 1 << 20, 64 << 20
    found: set[bytes] = set()
    is_go = False
    before = b""
    longest = max(map(len, names))
    for at in range(0, min(size, most), piece):
        data = before + read(at, piece)
        is_go = is_go or b"\xff Go buildinf:" in data
        found |= {name for name in names if name in data}
        before = data[-longest:]
    return frozenset(found) if is_go else None
