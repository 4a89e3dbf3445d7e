"""A place where the kernel runs programs of other machines through qemu, without a change of the host.

A user namespace below the helper's, with the same ids, that has its own list of binary formats (binfmt_misc, Linux 6.7
and newer). A command for another platform is put into it before it is executed; everything else stays outside. The
interpreters are opened when they are registered (flag F), so they need not be in the image; the list lives as long as
the helper holds its mount namespace.

Standard library only: part of the helper. Spec: kernel Documentation/admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import Any

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import syscalls, wire

__all__ = ["FORMATS", "enter", "line_of", "make"]

FORMATS = {
    "aarch64": (2, 1, 183),
    "arm": (1, 1, 40),
    "i386": (1, 1, 3),
    "loongarch64": (2, 1, 258),
    "mips64el": (2, 1, 8),
    "ppc64le": (2, 1, 21),
    "riscv64": (2, 1, 243),
    "s390x": (2, 2, 22),
    "x86_64": (2, 1, 62),
}
"""qemu's name of a machine -> class, byte order and machine number of its ELF files."""

_FLAGS = "POCF"
"""Keep argv[0], hand over the open file, take the file's owner for setuid, open the interpreter now."""


def make(mount_dir: str, interpreters: dict[str, str]) -> tuple[int, int]:
    """Makes the place: descriptors of its user and its mount namespace, both to be held.

    `interpreters` are paths on the host by qemu's name of the machine; `mount_dir` is an empty directory. Raises
    AerogelError `sandbox.no-emulation`.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            _inside(theirs, mount_dir, interpreters)
        finally:
            os._exit(0)
    theirs.close()
    try:
        with ours:
            about = _expect(ours)
            try:
                for kind in ("uid_map", "gid_map"):
                    _write_at(about, kind, _identity(kind))
                wire.send(ours, {})
                os.close(_expect(ours))
                namespaces = tuple(
                    os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=about) for kind in ("user", "mnt")
                )
                wire.send(ours, {})
            finally:
                os.close(about)
    except OSError as error:
        raise _refused(f"{error.filename or 'a system call'}: {error.strerror}") from None
    finally:
        # The helper may have reaped it already.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    return namespaces[0], namespaces[1]


def enter(namespace: int) -> None:
    """Puts this process there; it has all rights in it and, with the same ids, no others."""
    syscalls.setns(namespace, syscalls.CLONE_NEWUSER)


def line_of(machine: str, interpreter: str) -> bytes:
    """What is written to `register` for a machine."""
    bits, order, number = FORMATS[machine]
    pack = "<HH" if order == 1 else ">HH"
    magic = b"\x7fELF" + bytes((bits, order, 1, 0)) + bytes(8) + struct.pack(pack, 2, number)
    # ET_DYN is 3: the lowest bit of the type does not count, nor does the system that the file names.
    mask = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + struct.pack(pack, 0xFFFE, 0xFFFF)
    escaped = ["".join(f"\\x{byte:02x}" for byte in part) for part in (magic, mask)]
    return f":aerogel-{machine}:M::{escaped[0]}:{escaped[1]}:{interpreter}:{_FLAGS}".encode()


def _inside(link: socket.socket, mount_dir: str, interpreters: dict[str, str]) -> None:
    about = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        wire.send(link, {}, (about,))
        if wire.receive(link) is None:
            return
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        syscalls.mount("binfmt_misc", mount_dir, "binfmt_misc", syscalls.MS_NOSUID | syscalls.MS_NODEV)
        for machine, interpreter in interpreters.items():
            with open(f"{mount_dir}/register", "wb", buffering=0) as file:
                file.write(line_of(machine, interpreter))
    except OSError as error:
        old = error.errno in (errno.EPERM, errno.EINVAL, errno.ENODEV) and error.filename == "mount"
        why = "the kernel has no binfmt_misc for user namespaces (Linux 6.7 has)" if old else str(error.strerror)
        wire.send(link, {"problem": f"{error.filename or 'a system call'}: {why}"})
        return
    wire.send(link, {}, (about,))
    wire.receive(link)


def _expect(link: socket.socket) -> int:
    received = wire.receive(link)
    if received is None:
        raise _refused("the attempt died")
    message, fds = received
    if "problem" in message:
        raise _refused(message["problem"])
    return fds[0]


def _identity(kind: str) -> bytes:
    """Every id that exists here, mapped to itself."""
    with open(f"/proc/self/{kind}", encoding="ascii") as file:
        ranges = [line.split() for line in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in ranges).encode()


def _write_at(directory: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _refused(why: Any) -> AerogelError:
    return AerogelError(f"qemu cannot be registered: {why}", code="sandbox.no-emulation", exit_status=EXIT_HOST)
