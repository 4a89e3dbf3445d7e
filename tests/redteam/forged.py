"""Static programs of a few bytes that make one system call and end with its error number: 0 when it was allowed.

An image needs no compiler, C library or interpreter to try what a filter must refuse. x86_64 only. The arguments are
numbers, or bytes, which are put into the program and given by their address; `SIZE` bytes after them can be written to.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = ["ROOM", "chain", "compat", "program"]

_BASE = 0x400000
_HEAD = 64 + 56
ROOM = bytes(512)
_REGISTERS = (
    b"\x48\xbf",
    b"\x48\xbe",
    b"\x48\xba",
    b"\x49\xba",
    b"\x49\xb8",
    b"\x49\xb9",
)  # mov rdi, rsi, rdx, r10, r8, r9
_COMPAT = (b"\xbb", b"\xb9", b"\xba", b"\xbe", b"\xbf")  # mov ebx, ecx, edx, esi, edi
_EXIT = b"\xf7\xdf\xb8\x3c\x00\x00\x00\x0f\x05"  # neg edi; mov eax, 60; syscall
Argument = int | bytes


def program(number: int, *arguments: Argument) -> bytes:
    """One call."""
    return chain([(number, *arguments)])


def chain(calls: Sequence[tuple[Argument, ...]]) -> bytes:
    """Several calls; it ends with the error of the first that fails. `-1000` stands for the result of the one before."""
    size = sum(11 + 12 * len(call) + 12 for call in calls) + len(_EXIT) + 16
    code, data = b"", b""
    at = _BASE + _HEAD + size
    for number, *arguments in calls:
        # what the call before gave is in rax
        code += b"\x49\x89\xc4"  # mov r12, rax
        for register, argument in zip(_REGISTERS, arguments, strict=False):
            if argument == -1000:
                code += {0: b"\x4c\x89\xe7", 1: b"\x4c\x89\xe6"}[_REGISTERS.index(register)]  # mov rdi|rsi, r12
                continue
            if isinstance(argument, bytes):
                value = at + len(data)
                data += argument + b"\0"
            else:
                value = argument & 0xFFFFFFFFFFFFFFFF
            code += register + struct.pack("<Q", value)
        assert isinstance(number, int)
        code += b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"
        code += b"\x89\xc7\x48\x85\xc0"  # mov edi, eax; test rax, rax
        code += b"\x79\x09" + _EXIT  # jns over the exit
    code += b"\x31\xff" + _EXIT
    assert len(code) <= size, (len(code), size)
    return _elf(code.ljust(size, b"\x90") + data)


def compat(number: int, *arguments: int) -> bytes:
    """One call through the gate of 32-bit programs."""
    code = b"".join(register + struct.pack("<I", value) for register, value in zip(_COMPAT, arguments, strict=False))
    code += b"\xb8" + struct.pack("<I", number) + b"\xcd\x80"  # mov eax, number; int 0x80
    code += b"\x89\xc7\x31\xc9\x85\xc0\x0f\x49\xf9"  # mov edi, eax; xor ecx, ecx; test eax, eax; cmovns edi, ecx
    return _elf(code + _EXIT)


def _elf(body: bytes) -> bytes:
    size = _HEAD + len(body)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEAD, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size + 4096, 4096)
    return head + body
