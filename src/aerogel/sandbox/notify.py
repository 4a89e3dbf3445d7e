"""System calls that another process answers: the kernel's seccomp user notification, without policy.

A command loads a filter whose notified calls wait in the kernel; the supervisor, which holds the listener, reads their
arguments and the caller's memory, and answers with a result, an error, a descriptor, or "go on". It is no boundary: what
memory says may change after it was read, and a call that goes on is made by the kernel with the caller's rights.

Standard library only: part of the helper. Spec: seccomp_unotify(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from typing import NamedTuple

from aerogel.sandbox import syscalls

__all__ = ["COMPAT", "MACHINES", "Call", "Listener", "Rule", "listen"]

_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_I386 = 0x40000003
COMPAT = 1 << 16
"""This bit is set in the numbers of calls that 32-bit programs make on x86_64: they have numbers of their own."""
MACHINES = tuple(_ARCHES)

_RECV, _SEND, _ADDFD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40182103, 0x40082104
_CONTINUE = 1
_ADDFD_SEND = 2
_NOTIF = struct.Struct("=QIIiIQ6Q")
_RESP = struct.Struct("=QqiI")
_ADD = struct.Struct("=QIIII")
_PAGE = 4096
_LONGEST = 4096

_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16
_ALLOW, _NOTIFY, _ENOSYS = 0x7FFF0000, 0x7FC00000, 0x00050026


class Rule(NamedTuple):
    """Calls of `number` are notified; with `argument`, only if that one has a bit of `any_bit` or is `value`."""

    number: int
    argument: int = -1
    any_bit: int = 0
    value: int = 0


class Call(NamedTuple):
    """A waiting system call: `pid` is the thread's, in the supervisor's process namespace."""

    id: int
    pid: int
    number: int
    args: tuple[int, ...]


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def listen(machine: str, rules: list[Rule], *, only_native: bool = False) -> int:
    """Loads the filter into this process and gives the listener. Raises OSError where the kernel has no such thing.

    `only_native`: calls of programs for another machine, 32-bit ones among them, do not exist; else nobody is asked but
    for rules with `COMPAT`.
    """
    return syscalls.listening_filter(_program(machine, rules, only_native=only_native))


def _program(machine: str, rules: list[Rule], *, only_native: bool) -> bytes:
    others = _ENOSYS if only_native else _ALLOW
    compat = [rule.number & ~COMPAT for rule in rules if rule.number & COMPAT]
    block = [_op(_JEQ, _I386, 1, 0), _op(_RET, others)]
    if compat:
        block += [_op(_LD, _NR), *(_op(_JEQ, number, len(compat) - at, 0) for at, number in enumerate(compat))]
        block += [_op(_RET, _ALLOW), _op(_RET, _NOTIFY)]
    else:
        block = [_op(_RET, others)]
    code = [_op(_LD, _ARCH), _op(_JEQ, _ARCHES[machine], len(block), 0), *block, _op(_LD, _NR)]
    for rule in rules:
        if rule.number & COMPAT:
            continue
        if rule.argument < 0:
            code += [_op(_JEQ, rule.number, 0, 1), _op(_RET, _NOTIFY)]
            continue
        test = _op(_JSET, rule.any_bit, 0, 1) if rule.any_bit else _op(_JEQ, rule.value, 0, 1)
        code += [_op(_JEQ, rule.number, 0, 4), _op(_LD, _ARGS + 8 * rule.argument)]
        code += [test, _op(_RET, _NOTIFY), _op(_RET, _ALLOW)]
    code.append(_op(_RET, _ALLOW))
    return b"".join(code)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


_REFUSED = (errno.EPERM, errno.ENOSYS)


class Listener:
    """The supervisor's side. `fd` becomes readable when a call waits, and hangs up when nobody is left."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray(_NOTIF.size)
        self._zeros = bytes(_NOTIF.size)
        self._libc = syscalls.load()
        self._by_file = False
        """Docker's filter before 23.0 refuses process_vm_readv(2) and lets /proc/PID/mem be read."""
        self._local = _IoVec()
        self._remote = _IoVec()
        self._space = ctypes.create_string_buffer(_LONGEST)
        with contextlib.suppress(OSError):  # the answer wakes the caller on this processor: since Linux 6.6
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=Q", 1))

    def receive(self) -> Call | None:
        """The call that waits; None when its caller is gone."""
        self._buffer[:] = self._zeros
        try:
            fcntl.ioctl(self.fd, _RECV, self._buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        identity, pid, _, number, arch, _, *args = _NOTIF.unpack(self._buffer)
        return Call(identity, pid, number | COMPAT if arch == _I386 else number, tuple(args))

    def go_on(self, call: Call) -> None:
        """The kernel makes the call as it is."""
        self._send(_RESP.pack(call.id, 0, 0, _CONTINUE))

    def answer(self, call: Call, value: int = 0) -> None:
        self._send(_RESP.pack(call.id, value, 0, 0))

    def fail(self, call: Call, number: int) -> None:
        self._send(_RESP.pack(call.id, 0, -number, 0))

    def give(self, call: Call, fd: int, *, close_on_exec: bool) -> None:
        """Answers with a copy of a descriptor."""
        flags = os.O_CLOEXEC if close_on_exec else 0
        try:
            fcntl.ioctl(self.fd, _ADDFD, _ADD.pack(call.id, _ADDFD_SEND, fd, 0, flags))
        except OSError as error:
            if error.errno == errno.EINVAL:  # before Linux 5.14: in two steps
                with contextlib.suppress(OSError):
                    given = fcntl.ioctl(self.fd, _ADDFD, bytearray(_ADD.pack(call.id, 0, fd, 0, flags)), True)
                    self.answer(call, given)
            elif error.errno in (errno.EMFILE, errno.ENFILE):
                self.fail(call, errno.EMFILE)
            elif error.errno != errno.ENOENT:
                self.fail(call, errno.EIO)

    def read(self, pid: int, address: int, size: int) -> bytes | None:
        """Memory of a process; None when it cannot be read. At most 4096 bytes."""
        if not self._by_file:
            self._aim(address, size)
            got = self._libc.process_vm_readv(
                pid, ctypes.byref(self._local), ctypes.c_ulong(1), ctypes.byref(self._remote), ctypes.c_ulong(1), 0
            )
            if got == size:
                return self._space.raw[:size]
            if ctypes.get_errno() not in _REFUSED:
                return None
        try:
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
                data = os.pread(file.fileno(), size, address)
        except OSError:
            return None
        self._by_file = True
        return data if len(data) == size else None

    def string(self, pid: int, address: int) -> bytes | None:
        """A string that ends with NUL, as paths are: up to 4095 bytes."""
        found = b""
        while len(found) < _LONGEST:
            size = min(256 if not found else _LONGEST - len(found), _PAGE - (address + len(found)) % _PAGE)
            part = self.read(pid, address + len(found), size)
            if part is None:
                return None
            text, end, _ = part.partition(b"\0")
            found += text
            if end:
                return found
        return None

    def write(self, pid: int, address: int, data: bytes) -> bool:
        """Whether all of the data, at most 4096 bytes, is in the memory of the process now."""
        if not self._by_file:
            self._aim(address, len(data))
            ctypes.memmove(self._space, data, len(data))
            put = self._libc.process_vm_writev(
                pid, ctypes.byref(self._local), ctypes.c_ulong(1), ctypes.byref(self._remote), ctypes.c_ulong(1), 0
            )
            if put == len(data):
                return True
            if ctypes.get_errno() not in _REFUSED:
                return False
        try:
            with open(f"/proc/{pid}/mem", "r+b", buffering=0) as file:
                return os.pwrite(file.fileno(), data, address) == len(data)
        except OSError:
            return False

    def _aim(self, address: int, size: int) -> None:
        self._local.base = ctypes.addressof(self._space)
        self._local.size = self._remote.size = size
        self._remote.base = address

    def _send(self, answer: bytes) -> None:
        try:
            fcntl.ioctl(self.fd, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:  # the caller was killed meanwhile
                raise
