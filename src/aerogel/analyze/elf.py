"""The sections of an ELF file: as much as it takes to find one by its name and to follow an address.

Offsets and counts are the file's words and not trusted: every read is bounded. Spec: System V ABI, chapter 4.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

__all__ = ["MAGIC", "Elf", "Section", "read_elf"]

MAGIC = b"\x7fELF"

_MAX_HEADERS = 4 << 20
_MAX_NAMES = 4 << 20
_MAX_NAME = 64


class Section(NamedTuple):
    """Where a section lies in the file and in memory, in bytes."""

    name: bytes
    address: int
    offset: int
    size: int


class Elf(NamedTuple):
    """An ELF file. `sections` are in the order of the file's table."""

    stream: BinaryIO
    order: str
    """`<` or `>` for `struct`."""
    word: int
    """Bytes of an address: 4 or 8."""
    sections: tuple[Section, ...]

    def section(self, name: bytes) -> Section | None:
        """The first section of a name."""
        return next((one for one in self.sections if one.name == name), None)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file, fewer where it ends."""
        self.stream.seek(offset)
        return self.stream.read(size)

    def at_address(self, address: int, size: int) -> bytes:
        """Bytes of memory as the file gives them; nothing for what lies in no section."""
        for one in self.sections:
            if one.address and one.address <= address and address + size <= one.address + one.size:
                return self.read(one.offset + address - one.address, size)
        return b""


def read_elf(stream: BinaryIO) -> Elf | None:
    """The sections of a file; None for what is no ELF file or has none."""
    stream.seek(0)
    head = stream.read(64)
    if head[:4] != MAGIC or len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order = "<" if head[5] == 1 else ">"
    wide = head[4] == 2
    try:
        if wide:
            table, size, count, names = struct.unpack_from(f"{order}40xQ10xHHH", head)
        else:
            table, size, count, names = struct.unpack_from(f"{order}32xI10xHHH", head)
    except struct.error:
        return None
    if not table or not count or size < (64 if wide else 40) or size * count > _MAX_HEADERS:
        return None
    try:
        return Elf(stream, order, 8 if wide else 4, _sections(stream, order, wide, table, size, count, names))
    except (OSError, OverflowError, ValueError, struct.error):
        return None


def _sections(
    stream: BinaryIO, order: str, wide: bool, table: int, size: int, count: int, names: int
) -> tuple[Section, ...]:
    stream.seek(table)
    headers = stream.read(size * count)
    rows = []
    for number in range(min(count, len(headers) // size)):
        form = f"{order}I12xQQQ" if wide else f"{order}I8xIII"
        rows.append(struct.unpack_from(form, headers, number * size))
    if names >= len(rows):
        return ()
    _, _, at, length = rows[names]
    stream.seek(at)
    text = stream.read(min(length, _MAX_NAMES))
    return tuple(
        Section(text[name : name + _MAX_NAME].partition(b"\0")[0], address, offset, length)
        for name, address, offset, length in rows
    )
