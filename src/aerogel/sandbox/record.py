"""Owners that a file cannot have here, written beside it: the format, read and written.

On the rung `single` only one id is mapped, so every file belongs to it. What its layer says is kept in an extended
attribute, which follows the file through renames, hard links and the copying up of overlayfs. A regular file or a
directory has `user.aerogel.stat`, ASCII: `uid gid`, or `uid gid c|b major minor` for an empty file that stands for a
device. The kernel lets nothing else have `user.*`; a symbolic link, a fifo or a socket, which nobody executes, has
`security.capability` with the two ids where a program's capabilities would be. No attribute means 0:0.

Standard library only: part of the helper and of its file jobs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from typing import NamedTuple

__all__ = ["KEY", "ROOT", "Record", "copy", "erase", "give", "parse", "parse_special", "read", "read_at", "write"]

KEY = "user.aerogel.stat"
_SPECIAL = "security.capability"
_CAPABILITY = struct.Struct("<IIIII")
_REVISION_2 = 0x02000000
_NONE = (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES)
_LETTERS = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}


class Record(NamedTuple):
    """What a file is said to be. `kind` is S_IFCHR or S_IFBLK for a device with the numbers `rdev`, else 0."""

    uid: int = 0
    gid: int = 0
    kind: int = 0
    rdev: tuple[int, int] = (0, 0)


ROOT = Record()


def parse(data: bytes) -> Record | None:
    """The record in the text form; None for what this module did not write."""
    words = data.split()
    try:
        if len(words) == 2:
            return Record(int(words[0]), int(words[1]))
        uid, gid, letter, major, minor = words
        return Record(int(uid), int(gid), _LETTERS[letter.decode("ascii")], (int(major), int(minor)))
    except (ValueError, KeyError):
        return None


def parse_special(data: bytes) -> Record | None:
    """The record in the form of capabilities."""
    if len(data) != _CAPABILITY.size:
        return None
    revision, uid, gid, _, _ = _CAPABILITY.unpack(data)
    return Record(uid, gid) if revision & 0xFF000000 == _REVISION_2 else None


def read(where: int | str | bytes, mode: int, *, follow: bool = True) -> Record:
    """The record of what has the st_mode `mode`: by a descriptor, or by a path. Raises OSError."""
    is_plain = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    try:
        if isinstance(where, int):
            data = os.getxattr(where, KEY if is_plain else _SPECIAL)
        else:
            data = os.getxattr(where, KEY if is_plain else _SPECIAL, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NONE:
            return ROOT
        raise
    return (parse(data) if is_plain else parse_special(data)) or ROOT


def read_at(dir_fd: int, name: bytes, mode: int) -> Record:
    """The record of a name in a directory, which is not followed. Raises OSError."""
    return read(b"/proc/self/fd/%d/%b" % (dir_fd, name), mode, follow=False)


def write(where: int | str | bytes, mode: int, record: Record, *, follow: bool = True) -> None:
    """Writes the record of what has the st_mode `mode`; 0:0 erases it. Raises OSError."""
    if record == ROOT:
        erase(where, mode, follow=follow)
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        text = f"{record.uid} {record.gid}"
        if record.kind:
            letter = "c" if record.kind == stat.S_IFCHR else "b"
            text += f" {letter} {record.rdev[0]} {record.rdev[1]}"
        key, data = KEY, text.encode()
    else:
        key, data = _SPECIAL, _CAPABILITY.pack(_REVISION_2, record.uid, record.gid, 0, 0)
    if isinstance(where, int):
        os.setxattr(where, key, data)
    else:
        os.setxattr(where, key, data, follow_symlinks=follow)


def copy(source: str, target: str) -> None:
    """Gives a directory the record of another, if that has one."""
    with contextlib.suppress(OSError):
        os.setxattr(target, KEY, os.getxattr(source, KEY))


def give(where: int | str, uid: int, gid: int, *, recorded: bool) -> None:
    """chown(2) of what is no link, or its record where the ids cannot be had and it can be written. Raises OSError."""
    if not recorded:
        os.chown(where, uid, gid)
        return
    with contextlib.suppress(OSError):
        write(where, os.stat(where).st_mode, Record(uid, gid))


def erase(where: int | str | bytes, mode: int, *, follow: bool = True) -> None:
    """Removes the record, if there is one. Raises OSError."""
    key = KEY if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _SPECIAL
    try:
        if isinstance(where, int):
            os.removexattr(where, key)
        else:
            os.removexattr(where, key, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in _NONE:
            raise
