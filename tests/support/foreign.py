"""Programs for other machines, made without a compiler."""

import struct

__all__ = ["greeter"]


def greeter(text: bytes = b"hello from arm64\n", code: int = 7) -> bytes:
    """A static ELF file for arm64 that writes a text and ends with a status."""
    words = (
        0xD2800020,  # mov x0, #1
        0x100000E1,  # adr x1, the text behind the eight instructions
        0xD2800002 | len(text) << 5,  # mov x2, #len
        0xD2800808,  # mov x8, #64 (write)
        0xD4000001,  # svc #0
        0xD2800000 | code << 5,  # mov x0, #code
        0xD2800BA8,  # mov x8, #93 (exit)
        0xD4000001,  # svc #0
    )
    body = struct.pack("<8I", *words) + text
    start, head = 0x400000, 64 + 56
    ident = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, start + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, head + len(body), head + len(body), 0x10000) + body
