"""Owners that a file cannot have here, written beside it: the format, read and written.

On the rung `single` only one id is mapped, so every file belongs to it. What its layer says is kept in an extended
attribute, which follows the file through renames, hard links and the copying up of overlayfs. A regular file or a
directory has `user.aerogel.stat`, ASCII: `uid gid`, or `uid gid c|b major minor` for an empty file that stands for a
device. The kernel lets nothing else have `user.*`; a symbolic link, a fifo or a socket, which nobody executes, has
`security.capability` with the two ids where a program's capabilities would be. No attribute means 0:0.

On the rung `proot` there is no user namespace, so files belong to an ordinary user, whom modes bind and who may not
write `security.*`. There every file can be read and written by its owner, and what its mode is said to be follows as
`m` and an octal number; capabilities are in `user.aerogel.capability`; and in a layer a link or fifo that is not
root's is an empty file with `l 0 0` or `p 0 0`, a link's text being in `user.aerogel.link`.

Standard library only: part of the helper and of its file jobs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from typing import NamedTuple

__all__ = [
    "CAPABILITY",
    "KEY",
    "LINK",
    "ROOT",
    "Record",
    "copy",
    "dress",
    "erase",
    "give",
    "parse",
    "parse_special",
    "read",
    "read_at",
    "real_mode",
    "write",
]

KEY = "user.aerogel.stat"
LINK = "user.aerogel.link"
CAPABILITY = "user.aerogel.capability"
_SPECIAL = "security.capability"
_CAPABILITY = struct.Struct("<IIIII")
_REVISION_2 = 0x02000000
_NONE = (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES)
_LETTERS = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "l": stat.S_IFLNK, "p": stat.S_IFIFO}
_OF_KIND = {kind: letter for letter, kind in _LETTERS.items()}


class Record(NamedTuple):
    """What a file is said to be.

    `kind` is S_IFCHR or S_IFBLK for a device with the numbers `rdev`, S_IFLNK or S_IFIFO for what else an empty file
    stands for, else 0. `mode` is its permissions where they are not the real ones, else -1.
    """

    uid: int = 0
    gid: int = 0
    kind: int = 0
    rdev: tuple[int, int] = (0, 0)
    mode: int = -1

    def mode_of(self, real: int) -> int:
        """The mode that the file is said to have, which has the st_mode `real`."""
        return real if self.mode < 0 else stat.S_IFMT(real) | self.mode


ROOT = Record()


def parse(data: bytes) -> Record | None:
    """The record in the text form; None for what this module did not write."""
    words = data.split()
    try:
        mode = int(words.pop()[1:], 8) if words[-1:] and words[-1].startswith(b"m") else -1
        if len(words) == 2:
            return Record(int(words[0]), int(words[1]), mode=mode)
        uid, gid, letter, major, minor = words
        return Record(int(uid), int(gid), _LETTERS[letter.decode("ascii")], (int(major), int(minor)), mode)
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
            text += f" {_OF_KIND[record.kind]} {record.rdev[0]} {record.rdev[1]}"
        if record.mode >= 0:
            text += f" m{record.mode:o}"
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


def real_mode(mode: int, *, is_directory: bool) -> int:
    """The mode of a file that is to look as if it had `mode`, and that an ordinary owner can work with as root can."""
    return mode | (stat.S_IRWXU if is_directory else stat.S_IRUSR | stat.S_IWUSR)


def dress(where: int | str | bytes, kind: int, record: Record, mode: int) -> None:
    """Owner and permissions, where modes bind the owner, of what has the st_mode `kind`. Raises OSError."""
    real = real_mode(mode, is_directory=stat.S_ISDIR(kind))
    write(where, kind, record._replace(mode=-1 if real == mode else mode))
    os.chmod(where, real)


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
