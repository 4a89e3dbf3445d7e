"""Ids that processes believe to have where only one id is mapped: set, inherited and asked as the kernel would do it.

Standard library only: part of the helper. Spec: credentials(7), capabilities(7) on changes of user ids.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, replace

__all__ = ["KEEP", "Credentials", "Table"]

KEEP = 0xFFFFFFFF
"""The id that means: as it is."""

_MAX_MARK = 0x1FF
_PLAIN_MARK = 0x33
"""What /proc/PID/coredump_filter is when nobody changed it."""
_PURGE_EVERY = 1024


@dataclass(slots=True)
class Credentials:
    """Of one process. `permitted`: it has what a root has; `keep`: it keeps that when it becomes another user."""

    ruid: int = 0
    euid: int = 0
    suid: int = 0
    fsuid: int = 0
    rgid: int = 0
    egid: int = 0
    sgid: int = 0
    fsgid: int = 0
    groups: tuple[int, ...] = ()
    permitted: bool = True
    keep: bool = False
    chrooted: bool = False

    @property
    def effective(self) -> bool:
        """Whether it may do what root may."""
        return self.permitted and (self.euid == 0 or self.keep)

    @property
    def is_root(self) -> bool:
        """Whether files are made as root makes them, and none is refused."""
        return self.fsuid == 0 and self.fsgid == 0 and self.permitted

    def set_users(self, real: int, effective: int, saved: int) -> None:
        """setresuid(2). Raises PermissionError."""
        own = (self.ruid, self.euid, self.suid)
        wanted = tuple(old if new == KEEP else new for old, new in zip(own, (real, effective, saved), strict=True))
        if not self.effective and any(each not in own for each in wanted):
            raise PermissionError(errno.EPERM, "not permitted")
        self.ruid, self.euid, self.suid = wanted
        self.fsuid = self.euid
        if 0 in own and 0 not in wanted and not self.keep:
            self.permitted = False

    def set_groups(self, real: int, effective: int, saved: int) -> None:
        """setresgid(2). Raises PermissionError."""
        own = (self.rgid, self.egid, self.sgid)
        wanted = tuple(old if new == KEEP else new for old, new in zip(own, (real, effective, saved), strict=True))
        if not self.effective and any(each not in own for each in wanted):
            raise PermissionError(errno.EPERM, "not permitted")
        self.rgid, self.egid, self.sgid = wanted
        self.fsgid = self.egid

    def set_user(self, user: int) -> None:
        """setuid(2). Raises PermissionError."""
        if self.effective:
            self.set_users(user, user, user)
        elif user in (self.ruid, self.suid):
            self.set_users(KEEP, user, KEEP)
        else:
            raise PermissionError(errno.EPERM, "not permitted")

    def set_group(self, group: int) -> None:
        """setgid(2). Raises PermissionError."""
        if self.effective:
            self.set_groups(group, group, group)
        elif group in (self.rgid, self.sgid):
            self.set_groups(KEEP, group, KEEP)
        else:
            raise PermissionError(errno.EPERM, "not permitted")

    def set_reusers(self, real: int, effective: int) -> None:
        """setreuid(2). Raises PermissionError."""
        if not self.effective and (
            real not in (KEEP, self.ruid, self.euid) or effective not in (KEEP, self.ruid, self.euid, self.suid)
        ):
            raise PermissionError(errno.EPERM, "not permitted")
        before = self.ruid
        new = self.euid if effective == KEEP else effective
        moves = real != KEEP or (effective != KEEP and new != before)
        self.set_users(real, effective, new if moves else KEEP)

    def set_regroups(self, real: int, effective: int) -> None:
        """setregid(2). Raises PermissionError."""
        if not self.effective and (
            real not in (KEEP, self.rgid, self.egid) or effective not in (KEEP, self.rgid, self.egid, self.sgid)
        ):
            raise PermissionError(errno.EPERM, "not permitted")
        before = self.rgid
        new = self.egid if effective == KEEP else effective
        moves = real != KEEP or (effective != KEEP and new != before)
        self.set_groups(real, effective, new if moves else KEEP)

    def executed(self, mode: int, owner: int, group: int) -> None:
        """What executing a file does: set-id bits, and the loss of rights that only a root keeps."""
        if mode & stat.S_ISUID:
            self.euid = owner
        if mode & stat.S_ISGID and mode & stat.S_IXGRP:
            self.egid = group
        self.suid = self.fsuid = self.euid
        self.sgid = self.fsgid = self.egid
        self.permitted = 0 in (self.euid, self.ruid)
        self.keep = False

    def may(self, wanted: int, mode: int, owner: int, group: int) -> bool:
        """Whether the bits of a mode (4 read, 2 write, 1 execute) are granted on a file."""
        if self.effective:
            return True
        if self.fsuid == owner:
            granted = mode >> 6
        elif self.fsgid == group or group in self.groups:
            granted = mode >> 3
        else:
            granted = mode
        return granted & wanted == wanted


class Table:
    """The credentials of the processes of a sandbox, by thread and process id.

    A process that is new has those of the process that made it. One whose maker is gone already is known by a mark
    that the kernel hands down and that says nothing else: its coredump_filter.
    """

    def __init__(self, first: int) -> None:
        self._known: dict[int, Credentials] = {first: Credentials()}
        self._first = first
        self._marks: list[Credentials] = []
        self._asked = 0

    def of(self, pid: int) -> Credentials:
        """The credentials of a process or thread, to be changed in place."""
        self._asked += 1
        if self._asked % _PURGE_EVERY == 0:
            self._purge()
        found = self._known.get(pid)
        if found is None:
            found = self._known[pid] = self._inherited(pid)
        return found

    def mark(self, pid: int, credentials: Credentials) -> None:
        """Hands credentials that were changed down to children, should this process end before they ask."""
        copy = replace(credentials)
        if copy not in self._marks:
            self._marks.append(copy)
        number = self._marks.index(copy) + 1
        if number >= _PLAIN_MARK:
            number += 1
        if number <= _MAX_MARK:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/coredump_filter", "w", encoding="ascii") as file:
                file.write(hex(number))

    def _inherited(self, pid: int) -> Credentials:
        group, parent = _relatives(pid)
        if group not in (0, pid):
            return self.of(group)
        if parent > 1 and parent != os.getpid():
            return replace(self._known.get(parent) or self._inherited(parent))
        return self._marked(pid)

    def _marked(self, pid: int) -> Credentials:
        try:
            with open(f"/proc/{pid}/coredump_filter", encoding="ascii") as file:
                number = int(file.read(), 16)
        except (OSError, ValueError):
            return Credentials()
        if number > _PLAIN_MARK:
            number -= 1
        elif number == _PLAIN_MARK:
            return Credentials()
        return replace(self._marks[number - 1]) if 1 <= number <= len(self._marks) else Credentials()

    def _purge(self) -> None:
        for pid in list(self._known):
            if pid != self._first and not os.path.exists(f"/proc/{pid}"):
                del self._known[pid]


def _relatives(pid: int) -> tuple[int, int]:
    """The process that a thread belongs to, and that one's parent; 0 when it is gone."""
    group = parent = 0
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Tgid:"):
                    group = int(line[5:])
                elif line.startswith(b"PPid:"):
                    parent = int(line[5:])
                    break
    except OSError:
        return 0, 0
    return group, parent
