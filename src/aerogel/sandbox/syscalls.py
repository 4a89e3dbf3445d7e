"""System calls that Python 3.11 does not offer, through ctypes; each raises OSError with its errno.

Standard library only: part of the helper. Numbers are those of x86_64 and aarch64, which agree above 424.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

__all__ = [
    "AT_EMPTY_PATH",
    "AT_RECURSIVE",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "MNT_DETACH",
    "MOUNT_ATTR_NODEV",
    "MOUNT_ATTR_NOEXEC",
    "MOUNT_ATTR_NOSUID",
    "MOUNT_ATTR_RDONLY",
    "MS_BIND",
    "MS_MOVE",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "MS_SLAVE",
    "PR_CAPBSET_DROP",
    "PR_CAP_AMBIENT",
    "PR_SET_CHILD_SUBREAPER",
    "PR_SET_DUMPABLE",
    "PR_SET_NO_NEW_PRIVS",
    "PR_SET_PDEATHSIG",
    "capset",
    "listening_filter",
    "load",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "prctl",
    "set_filter",
    "setns",
    "stat_bytes",
    "statx_bytes",
    "umount",
    "unshare",
]

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SLAVE = 1 << 19
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47

_AT_FDCWD = -100
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_MOUNT_SETATTR = 442
_NR_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 1 << 3
_FLAG_WAIT_KILLABLE = 1 << 5
_NR_SECCOMP = {"x86_64": 317, "aarch64": 277}
_NR_NEWFSTATAT = {"x86_64": 262, "aarch64": 79}
_NR_STATX = {"x86_64": 332, "aarch64": 291}
_STAT_BYTES = {"x86_64": 144, "aarch64": 128}
_STATX_BYTES = 256


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


@cache
def load() -> ctypes.CDLL:
    """The C library; called once before anything of an image can be seen."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.mount.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
    )
    libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
    return libc


def _check(result: int, what: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), what)
    return result


def _call(what: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(int(load().syscall(ctypes.c_long(number), *converted)), what)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mounts a file system, or changes a mount, by flags: Linux manual, section 2."""
    result = load().mount(
        os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, os.fsencode(data) or None
    )
    _check(result, f"mount {kind or source} on {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """Detaches a mount: Linux manual, section 2."""
    _check(load().umount2(os.fsencode(target), flags), f"umount {target}")


def unshare(flags: int) -> None:
    """Enters new namespaces: Linux manual, section 2."""
    _check(load().unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enters the namespace of a descriptor: Linux manual, section 2."""
    _check(load().setns(fd, kind), "setns")


def pivot_root(new: str, old: str) -> None:
    """Exchanges the root mount: Linux manual, section 2."""
    _call("pivot_root", _NR_PIVOT_ROOT[os.uname().machine], os.fsencode(new), os.fsencode(old))


def open_tree(path: str, *, recursive: bool = True) -> int:
    """A detached copy of the mount at `path` as a descriptor; since Linux 5.2."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _call(f"open_tree {path}", _NR_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)


def move_mount(source_fd: int, target_fd: int) -> None:
    """Attaches a detached mount on what the other descriptor names; since Linux 5.2."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _call("move_mount", _NR_MOVE_MOUNT, source_fd, b"", target_fd, b"", flags)


def mount_setattr(fd: int, attributes: int) -> None:
    """Sets attributes on a mount and all mounts below it; since Linux 5.12."""
    wanted = _MountAttr(attributes, 0, 0, 0)
    libc = load()
    result = libc.syscall(
        ctypes.c_long(_NR_MOUNT_SETATTR),
        ctypes.c_long(fd),
        b"",
        ctypes.c_long(AT_EMPTY_PATH | AT_RECURSIVE),
        ctypes.byref(wanted),
        ctypes.c_long(ctypes.sizeof(wanted)),
    )
    _check(int(result), "mount_setattr")


def prctl(option: int, second: int = 0, third: int = 0) -> int:
    """Changes an attribute of this process: Linux manual, section 2."""
    return _check(load().prctl(option, second, third, 0, 0), f"prctl {option}")


def capset(mask: int) -> None:
    """Sets the effective and permitted capabilities to `mask` (a bit set); inheritable becomes empty."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (_CapData * 2)(_CapData(low, low, 0), _CapData(high, high, 0))
    _check(load().capset(ctypes.byref(header), data), "capset")


def set_filter(program: bytes) -> None:
    """Loads a seccomp program (8 bytes an instruction); needs CAP_SYS_ADMIN here or no_new_privs."""
    filter_ = _Filter(len(program) // 8, program)
    libc = load()
    _check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filter_), 0, 0), "seccomp")


def listening_filter(program: bytes) -> int:
    """Loads a seccomp program and gives the descriptor that its notifications are read from; since Linux 5.0."""
    filter_ = _Filter(len(program) // 8, program)
    number = _NR_SECCOMP[os.uname().machine]
    flags = _FLAG_NEW_LISTENER | _FLAG_WAIT_KILLABLE
    arguments = (ctypes.c_long(number), ctypes.c_long(_SECCOMP_SET_MODE_FILTER))
    fd = load().syscall(*arguments, ctypes.c_long(flags), ctypes.byref(filter_))
    if fd < 0:  # before Linux 5.19: a signal makes the call begin again
        fd = load().syscall(*arguments, ctypes.c_long(_FLAG_NEW_LISTENER), ctypes.byref(filter_))
    return _check(int(fd), "seccomp")


def stat_bytes(path: bytes, flags: int) -> bytes:
    """`struct stat` as the kernel writes it for a path."""
    machine = os.uname().machine
    space = ctypes.create_string_buffer(_STAT_BYTES[machine])
    _call("newfstatat", _NR_NEWFSTATAT[machine], _AT_FDCWD, path, space, flags)
    return space.raw


def statx_bytes(path: bytes, flags: int, mask: int) -> bytes:
    """`struct statx` as the kernel writes it for a path."""
    space = ctypes.create_string_buffer(_STATX_BYTES)
    _call("statx", _NR_STATX[os.uname().machine], _AT_FDCWD, path, flags, mask, space)
    return space.raw
