"""Tars as build contexts: recognised by their content, unpacked as the user's own files.

Owners, devices and special bits of others mean nothing in a context and are left out; content, modes and links stay.
"""

from __future__ import annotations

import os
from pathlib import Path

from aerogel.errors import AerogelError
from aerogel.files.codec import open_uncompressed, sniff
from aerogel.files.entry import BLK, CHR, DIR, FIFO, LNK, REG, Entry
from aerogel.files.extract import extract

__all__ = ["is_tar", "unpack"]

_BLOCK = 512
_SUM = slice(148, 156)


def is_tar(path: Path) -> bool:
    """Whether a file is a tar, plain or compressed."""
    with path.open("rb") as file:
        head = file.read(_BLOCK)
        family = sniff(head)
        if family in (None, "tar"):
            return _is_header(head)
        file.seek(0)
        try:
            stream = open_uncompressed(file, family)
            head = b""
            while len(head) < _BLOCK and (data := stream.read(_BLOCK - len(head))):
                head += data
        except AerogelError:
            # Damaged: what unpacks it says how.
            return True
        return _is_header(head)


def _is_header(block: bytes) -> bool:
    """A header whose sum is right, or the zeros of an empty tar."""
    if len(block) < _BLOCK:
        return False
    if not any(block):
        return True
    digits = block[_SUM].strip(b" \0")
    try:
        wanted = int(digits, 8)
    except ValueError:
        return False
    return sum(block) - sum(block[_SUM]) + 8 * 32 == wanted


def unpack(path: Path, folder: Path, title: str) -> int | None:
    """Unpacks the tar into the empty folder; gives the time of its newest file, in seconds since 1970.

    Raises `tar.*`, `codec.*`, `extract.*`; `title` is what the message calls the tar.
    """
    newest: list[int] = []
    uid, gid = os.getuid(), os.getgid()

    def change(entry: Entry) -> Entry | None:
        if entry.kind in (CHR, BLK, FIFO):
            return None
        if entry.kind == REG:
            newest.append(entry.mtime)
            if len(newest) > 1:
                newest[:] = [max(newest)]
        readable = 0o700 if entry.kind == DIR else 0o400 if entry.kind in (REG, LNK) else 0
        return entry._replace(uid=uid, gid=gid, mode=entry.mode | readable, xattrs=())

    root_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with path.open("rb") as file:
            family = sniff(file.read(_BLOCK))
            file.seek(0)
            extract(open_uncompressed(file, family or "tar"), root_fd, change=change)
    except AerogelError as error:
        error.message = f"{title} cannot be unpacked: {error.message}"
        error.hints = error.hints or ("it is damaged or cut short: make or send it again",)
        raise
    finally:
        os.close(root_fd)
    return newest[0] if newest else None
