"""Answers the system calls about users and groups of processes, where only one id is mapped: half of `recorder`.

Standard library only: part of the helper.
"""

from __future__ import annotations

import errno
import os
import struct

from aerogel.sandbox.credentials import KEEP, Credentials, Table
from aerogel.sandbox.notify import Call, Listener

__all__ = ["Errno", "IdCalls"]

_MAX_GROUPS = 1024


class Errno(Exception):
    """The call fails with this error number."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class IdCalls:
    """Methods named as the calls that they answer."""

    def __init__(self, listener: Listener, table: Table) -> None:
        self._listener = listener
        self._table = table

    def _changed(self, call: Call, who: Credentials, value: int = 0) -> None:
        self._table.mark(call.pid, who)
        self._listener.answer(call, value)

    def setuid(self, call: Call, who: Credentials) -> None:
        who.set_user(call.args[0] & KEEP)
        self._changed(call, who)

    def setgid(self, call: Call, who: Credentials) -> None:
        who.set_group(call.args[0] & KEEP)
        self._changed(call, who)

    def setreuid(self, call: Call, who: Credentials) -> None:
        who.set_reusers(call.args[0] & KEEP, call.args[1] & KEEP)
        self._changed(call, who)

    def setregid(self, call: Call, who: Credentials) -> None:
        who.set_regroups(call.args[0] & KEEP, call.args[1] & KEEP)
        self._changed(call, who)

    def setresuid(self, call: Call, who: Credentials) -> None:
        who.set_users(*(each & KEEP for each in call.args[:3]))
        self._changed(call, who)

    def setresgid(self, call: Call, who: Credentials) -> None:
        who.set_groups(*(each & KEEP for each in call.args[:3]))
        self._changed(call, who)

    def setfsuid(self, call: Call, who: Credentials) -> None:
        old, new = who.fsuid, call.args[0] & KEEP
        if new != KEEP and (who.effective or new in (who.ruid, who.euid, who.suid)):
            who.fsuid = new
        self._changed(call, who, old)

    def setfsgid(self, call: Call, who: Credentials) -> None:
        old, new = who.fsgid, call.args[0] & KEEP
        if new != KEEP and (who.effective or new in (who.rgid, who.egid, who.sgid)):
            who.fsgid = new
        self._changed(call, who, old)

    def setgroups(self, call: Call, who: Credentials) -> None:
        count = call.args[0] & KEEP
        if not who.effective:
            raise Errno(errno.EPERM)
        if count > _MAX_GROUPS:
            raise Errno(errno.EINVAL)
        data = self._listener.read(call.pid, call.args[1], 4 * count) if count else b""
        if data is None:
            raise Errno(errno.EFAULT)
        who.groups = tuple(sorted(struct.unpack(f"={count}I", data)))  # as the kernel does
        self._changed(call, who)

    def getgroups(self, call: Call, who: Credentials) -> None:
        size = call.args[0] & KEEP
        if size:
            if size < len(who.groups):
                raise Errno(errno.EINVAL)
            data = struct.pack(f"={len(who.groups)}I", *who.groups)
            if data and not self._listener.write(call.pid, call.args[1], data):
                raise Errno(errno.EFAULT)
        self._listener.answer(call, len(who.groups))

    def getresuid(self, call: Call, who: Credentials) -> None:
        self._three(call, who.ruid, who.euid, who.suid)

    def getresgid(self, call: Call, who: Credentials) -> None:
        self._three(call, who.rgid, who.egid, who.sgid)

    def _three(self, call: Call, *values: int) -> None:
        for address, value in zip(call.args, values, strict=False):
            if not self._listener.write(call.pid, address, struct.pack("=I", value)):
                raise Errno(errno.EFAULT)
        self._listener.answer(call)

    def getuid(self, call: Call, who: Credentials) -> None:
        self._listener.answer(call, who.ruid)

    def geteuid(self, call: Call, who: Credentials) -> None:
        self._listener.answer(call, who.euid)

    def getgid(self, call: Call, who: Credentials) -> None:
        self._listener.answer(call, who.rgid)

    def getegid(self, call: Call, who: Credentials) -> None:
        self._listener.answer(call, who.egid)

    def prctl(self, call: Call, who: Credentials) -> None:
        who.keep = bool(call.args[1])
        self._table.mark(call.pid, who)
        self._listener.go_on(call)
