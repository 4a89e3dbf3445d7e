"""The system call filter: Docker's default policy for the default capabilities, written as a BPF program.

Docker's list of allowed calls is turned round: every call that exists and is not on it is refused with EPERM, numbers
above the newest one known get ENOSYS so that C libraries fall back. 32-bit programs have their own table where the
kernel runs them. Standard library only: part of the helper. Spec: moby profiles/seccomp/default.json, seccomp(2).
"""

from __future__ import annotations

import struct
from functools import cache
from typing import NamedTuple

from aerogel.sandbox import syscalls

__all__ = ["install", "no_network", "program", "without"]

_NEWEST = 466  # removexattrat, Linux 6.13
_X32_BIT = 0x40000000
_CLONE_NAMESPACES = 0x7E020000
_AF_VSOCK = 40
_PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_LD_WORD = 0x20
_JEQ, _JGT, _JSET, _RET = 0x15, 0x25, 0x45, 0x06
_ALLOW = 0x7FFF0000
_EPERM = 0x00050001
_ENOSYS = 0x00050026
_NR, _ARCH, _ARG0 = 0, 4, 16

_EAFNOSUPPORT = 0x00050061
_FAMILIES = (2, 10, 17)
"""Of the internet, and raw packets."""

_CLONE3 = 435


class _Table(NamedTuple):
    arch: int
    column: int
    clone: int
    socket: int
    personality: int


_X86_64 = _Table(0xC000003E, 1, clone=56, socket=41, personality=135)
_I386 = _Table(0x40000003, 2, clone=120, socket=359, personality=136)
_AARCH64 = _Table(0xC00000B7, 3, clone=220, socket=198, personality=92)
_TABLES = {"x86_64": (_X86_64, _I386), "aarch64": (_AARCH64,)}

_DENIED = """
acct 163 51 89
add_key 248 286 217
afs_syscall 183 137 -
bdflush - 134 -
bpf 321 357 280
clock_settime 227 264 112
clock_settime64 - 404 -
create_module 174 127 -
delete_module 176 129 106
fanotify_init 300 338 262
finit_module 313 350 273
fsconfig 431 431 431
fsmount 432 432 432
fsopen 430 430 430
fspick 433 433 433
get_kernel_syms 177 130 -
get_mempolicy 239 275 236
getpmsg 181 188 -
idle - 112 -
init_module 175 128 105
io_uring_enter 426 426 426
io_uring_register 427 427 427
io_uring_setup 425 425 425
ioperm 173 101 -
iopl 172 110 -
kcmp 312 349 272
kexec_file_load 320 - 294
kexec_load 246 283 104
keyctl 250 288 219
lookup_dcookie 212 253 18
mbind 237 274 235
migrate_pages 256 294 238
mount 165 21 40
mount_setattr 442 442 442
move_mount 429 429 429
move_pages 279 317 239
nfsservctl 180 169 42
open_by_handle_at 304 342 265
open_tree 428 428 428
perf_event_open 298 336 241
pidfd_getfd 438 438 438
pivot_root 155 217 41
process_madvise 440 440 440
putpmsg 182 189 -
query_module 178 167 -
quotactl 179 131 60
quotactl_fd 443 443 443
reboot 169 88 142
request_key 249 287 218
security 185 - -
set_mempolicy 238 276 237
set_mempolicy_home_node 450 450 450
setdomainname 171 121 162
sethostname 170 74 161
setns 308 346 268
settimeofday 164 79 170
stime - 25 -
swapoff 168 115 225
swapon 167 87 224
_sysctl 156 149 -
sysfs 139 135 -
syslog 103 103 116
tuxcall 184 - -
umount - 22 -
umount2 166 52 39
unshare 272 310 97
uselib 134 86 -
userfaultfd 323 374 282
ustat 136 62 -
vhangup 153 111 58
vm86 - 166 -
vm86old - 113 -
vserver 236 273 -
"""
"""Refused calls: name, then the numbers of x86_64, i386 and aarch64."""


@cache
def program(machine: str) -> bytes:
    """The filter for a kernel's machine name (`x86_64`, `aarch64`); KeyError for another one."""
    code: list[bytes] = [_op(_LD_WORD, _ARCH)]
    for table in _TABLES[machine]:
        block = _block(table)
        code.append(_op(_JEQ, table.arch, 0, 1))
        code.append(_op(0x05, 1))  # over the next jump, into the block
        code.append(_op(0x05, len(block)))
        code += block
    code.append(_op(_RET, _ENOSYS))  # an architecture without a table
    return b"".join(code)


def no_network(machine: str) -> bytes:
    """A filter that makes no socket of the internet's families: where no network namespace can be made."""
    code: list[bytes] = [_op(_LD_WORD, _ARCH)]
    for table in _TABLES[machine]:
        block = [_op(_LD_WORD, _NR), _op(_JEQ, table.socket, 0, 4), _op(_LD_WORD, _ARG0)]
        block += [_op(_JEQ, family, len(_FAMILIES) - at, 0) for at, family in enumerate(_FAMILIES)]
        block += [_op(_RET, _ALLOW), _op(_RET, _EAFNOSUPPORT)]
        code += [_op(_JEQ, table.arch, 0, len(block)), *block]
    code.append(_op(_RET, _ALLOW))
    return b"".join(code)


def without(machine: str, numbers: tuple[int, ...]) -> bytes:
    """A filter for which these calls of the machine do not exist, and no call of programs for another machine."""
    code = [_op(_LD_WORD, _ARCH), _op(_JEQ, _TABLES[machine][0].arch, 1, 0), _op(_RET, _ENOSYS), _op(_LD_WORD, _NR)]
    code += [_op(_JEQ, number, len(numbers) - at, 0) for at, number in enumerate(numbers)]
    return b"".join([*code, _op(_RET, _ALLOW), _op(_RET, _ENOSYS)])


def install(machine: str) -> None:
    """Loads the filter into this thread; it stays through exec."""
    syscalls.set_filter(program(machine))


def _block(table: _Table) -> list[bytes]:
    code = [_op(_LD_WORD, _NR)]
    if table is _X86_64:
        code += [_op(_JSET, _X32_BIT, 0, 1), _op(_RET, _EPERM)]
    code += [_op(_JGT, _NEWEST, 0, 1), _op(_RET, _ENOSYS)]
    code += [_op(_JEQ, _CLONE3, 0, 1), _op(_RET, _ENOSYS)]
    code += [_op(_JEQ, table.clone, 0, 4), _op(_LD_WORD, _ARG0)]
    code += [_op(_JSET, _CLONE_NAMESPACES, 0, 1), _op(_RET, _EPERM), _op(_RET, _ALLOW)]
    code += [_op(_JEQ, table.socket, 0, 4), _op(_LD_WORD, _ARG0)]
    code += [_op(_JEQ, _AF_VSOCK, 0, 1), _op(_RET, _EPERM), _op(_RET, _ALLOW)]
    kinds = len(_PERSONALITIES)
    code += [_op(_JEQ, table.personality, 0, kinds + 3), _op(_LD_WORD, _ARG0)]
    code += [_op(_JEQ, value, kinds - at, 0) for at, value in enumerate(_PERSONALITIES)]
    code += [_op(_RET, _EPERM), _op(_RET, _ALLOW)]
    rows = [line.split() for line in _DENIED.strip().split("\n")]
    numbers = sorted(int(row[table.column]) for row in rows if row[table.column] != "-")
    # jump to the EPERM at the end; at most 255 away
    code += [_op(_JEQ, number, len(numbers) - at, 0) for at, number in enumerate(numbers)]
    code += [_op(_RET, _ALLOW), _op(_RET, _EPERM)]
    return code


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
