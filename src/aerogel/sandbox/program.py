"""What the first bytes of a program say: what runs it, and which machine it is for. Standard library only.

Used where exec has failed, inside the sandbox, and where a build looks at what its image would start. Specs: execve(2),
System V ABI chapter 5 (PT_INTERP).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["HEAD_BYTES", "Program", "read_program"]

HEAD_BYTES = 1 << 14
"""How much of a file is enough: linkers put the name of the loader into the first page."""

_MACHINES = {3: "i386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_LOADER = 3  # PT_INTERP
_MACHINE_END = 20  # e_machine is the last field that is always there, cut off or not
_HEADER = (52, 64)  # bytes of an ELF header of 32 and 64 bits


class Program(NamedTuple):
    """A program as exec sees it."""

    kind: str
    """`elf`, `script`, or empty for anything else."""
    interpreter: str = ""
    """The loader of a dynamic program, or what the first line of a script names; may end in a carriage return."""
    argument: str = ""
    """The rest of a script's first line."""
    machine: str = ""
    """As `uname -m` says it; `machine N` for those not known here; of ELF files only."""


def read_program(head: bytes) -> Program:
    """Reads the first bytes of a file, at best `HEAD_BYTES`. Nothing in them is trusted."""
    if head[:2] == b"#!":
        words = head[2:].split(b"\n", 1)[0].strip(b" \t").replace(b"\t", b" ").split(b" ", 1)
        decoded = [word.decode("utf-8", "surrogateescape") for word in words]
        return Program("script", decoded[0], decoded[1].strip(" ") if len(decoded) > 1 else "")
    if head[:4] != b"\x7fELF" or len(head) < _MACHINE_END or head[4] not in (1, 2) or head[5] not in (1, 2):
        return Program("")
    order = "<" if head[5] == 1 else ">"
    (number,) = struct.unpack_from(f"{order}H", head, 18)
    return Program("elf", _loader(head, order), machine=_MACHINES.get(number, f"machine {number}"))


def _loader(head: bytes, order: str) -> str:
    is_wide = head[4] == 2
    if len(head) < _HEADER[is_wide]:
        return ""
    at_table, at_sizes = (32, 54) if is_wide else (28, 42)
    at_offset, at_length, word = (8, 32, "Q") if is_wide else (4, 16, "I")
    (table,) = struct.unpack_from(order + word, head, at_table)
    size, count = struct.unpack_from(f"{order}HH", head, at_sizes)
    for at in range(table, table + size * count, size or 1):
        if at + at_length + 8 > len(head):
            break
        if struct.unpack_from(f"{order}I", head, at)[0] == _LOADER:
            (offset,) = struct.unpack_from(order + word, head, at + at_offset)
            (length,) = struct.unpack_from(order + word, head, at + at_length)
            return head[offset : offset + length].rstrip(b"\0").decode("utf-8", "replace")
    return ""
