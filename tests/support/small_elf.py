"""The smallest shared library that the loader's tables can be read of, for any machine."""

from __future__ import annotations

import struct


def shared_library(wide: bool, order: str, machine: int) -> bytes:
    """The headers of a library, its dynamic section and its name, as the ABI lays them out."""
    header, entry, word = (64, 56, 16) if wide else (52, 32, 8)
    at = header + 2 * entry
    strings, size = at + 3 * word, at + 3 * word + 20
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    if wide:
        head = struct.pack(order + "HHIQQQIHHHHHH", 3, machine, 1, 0, header, 0, 0, 64, entry, 2, 0, 0, 0)
        load = struct.pack(order + "IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
        dynamic = struct.pack(order + "IIQQQQQQ", 2, 6, at, at, at, 3 * word, 3 * word, 8)
    else:
        head = struct.pack(order + "HHIIIIIHHHHHH", 3, machine, 1, 0, header, 0, 0, 52, entry, 2, 0, 0, 0)
        load = struct.pack(order + "IIIIIIII", 1, 0, 0, 0, size, size, 5, 4096)
        dynamic = struct.pack(order + "IIIIIIII", 2, at, at, at, 3 * word, 3 * word, 6, 4)
    form = order + ("qQ" if wide else "iI")
    section = b"".join(struct.pack(form, *pair) for pair in ((5, strings), (14, 1), (0, 0)))
    return ident + head + load + dynamic + section + b"\0libx.so.1\0".ljust(20, b"\0")
