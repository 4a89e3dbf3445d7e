"""Finds a path inside a root file system without ever leaving it, whatever the image's symbolic links say.

Each component is opened by itself and not followed, links are read as text and start again at the root: no kernel
newer than 3.6 is needed, and a program that changes a shared volume meanwhile can at worst choose another place inside.
Standard library only: part of the helper.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from aerogel.errors import AerogelError

__all__ = ["Found", "find", "read_file", "target_error"]

_MAX_LINKS = 40
_MAX_FILE_BYTES = 4 << 20


class Found(NamedTuple):
    """`fd` (O_PATH, the caller closes it) is the deepest part that exists, at the real `path` ("" is the root)."""

    fd: int
    path: str
    missing: tuple[str, ...]
    is_dir: bool

    @property
    def full(self) -> str:
        """The real path, with what is missing."""
        return "/".join((self.path, *self.missing))


def target_error(target: str, why: str) -> AerogelError:
    """What is wrong with a place that something is to be mounted at."""
    return AerogelError(f"nothing can be mounted at `{target}`: {why}", code="sandbox.mount-target")


def find(root_fd: int, target: str) -> Found:
    """Walks `target` from the root. Raises AerogelError `sandbox.mount-target`."""
    pending = target.split("/")[::-1]
    stack = [(os.dup(root_fd), "")]
    links = 0
    missing: tuple[str, ...] = ()
    try:
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(stack) > 1:
                    os.close(stack.pop()[0])
                continue
            parent_fd, parent = stack[-1]
            try:
                fd = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
            except FileNotFoundError:
                missing = tuple(p for p in (part, *pending[::-1]) if p not in ("", "."))
                break
            except OSError as error:
                raise target_error(target, f"`{parent or '/'}` in the image: {error.strerror}") from None
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                stack.append((fd, f"{parent}/{part}"))
                continue
            link = os.readlink("", dir_fd=fd)
            os.close(fd)
            links += 1
            if links > _MAX_LINKS:
                raise target_error(target, "too many symbolic links in the image")
            while link.startswith("/") and len(stack) > 1:
                os.close(stack.pop()[0])
            pending += link.split("/")[::-1]
        if ".." in missing:
            raise target_error(target, "it goes through a directory that is missing")
        fd, path = stack.pop()
        return Found(fd, path, missing, stat.S_ISDIR(os.fstat(fd).st_mode))
    finally:
        for fd, _ in stack:
            os.close(fd)


def read_file(root_fd: int, path: str) -> bytes:
    """The content of a regular file inside the root; empty when there is none or it is too big to be meant."""
    try:
        found = find(root_fd, path)
    except AerogelError:
        return b""
    try:
        about = os.fstat(found.fd)
        if found.missing or not stat.S_ISREG(about.st_mode) or about.st_size > _MAX_FILE_BYTES:
            return b""
        # an O_PATH descriptor is opened for reading by its name in /proc, which no image can change
        with open(f"/proc/self/fd/{found.fd}", "rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(found.fd)
