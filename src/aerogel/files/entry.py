"""One file of a tree as a value: what a tar header says, in one canonical form.

Every part of `files` speaks in these: tar streams, indexes, trees, copies and diffs. It holds no content and
knows no host path. Standard library only, because it is used inside the sandbox helper.
Spec: OCI image-spec v1.1 layer.md#file-attributes.
"""

from __future__ import annotations

from typing import NamedTuple

from aerogel.errors import AerogelError

__all__ = [
    "BLK",
    "CHR",
    "DIR",
    "FIFO",
    "KIND_NAMES",
    "LNK",
    "OPAQUE",
    "REG",
    "SYM",
    "WHITEOUT",
    "Entry",
    "clean_path",
    "directory",
    "parents",
    "shown",
    "sort_key",
]

REG = 0x30
LNK = 0x31
"""A hard link; `link` is the path of its target."""
SYM = 0x32
CHR = 0x33
BLK = 0x34
DIR = 0x35
FIFO = 0x36

KIND_NAMES = {
    REG: "file",
    LNK: "hard link",
    SYM: "symbolic link",
    CHR: "character device",
    BLK: "block device",
    DIR: "directory",
    FIFO: "fifo",
}

WHITEOUT = b".wh."
"""Prefix of the last component of a whiteout. Spec: layer.md#whiteouts."""
OPAQUE = b".wh..wh..opq"
"""Name of the marker that hides everything lower layers have in its directory. Spec: layer.md#opaque-whiteout."""


class Entry(NamedTuple):
    """A file, directory, link or device at a path of a tree; the tree's root is `b""`."""

    path: bytes
    """Relative; no leading and no trailing `/`, no `.`, `..` or empty component."""
    kind: int
    """The tar type flag: `REG` to `FIFO`."""
    mode: int
    """The 0o7777 part."""
    uid: int = 0
    gid: int = 0
    size: int = 0
    """Bytes of content; 0 unless `REG`."""
    mtime: int = 0
    """Seconds since 1970; may be negative."""
    link: bytes = b""
    """Target of a symbolic link as it stands; of a hard link the target's `path`."""
    rdev: tuple[int, int] = (0, 0)
    """Major and minor number of a device."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    """Sorted by name."""


def sort_key(entry: Entry) -> bytes:
    """Orders by path components, parents first: equal to `path.split(b"/")`, but three times faster."""
    return entry.path.replace(b"/", b"\0")


def directory(path: bytes, *, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int = 0) -> Entry:
    """A directory entry."""
    return Entry(path, DIR, mode, uid, gid, 0, mtime)


def parents(path: bytes) -> list[bytes]:
    """The directories above a path, outermost first, without the root and without itself."""
    found = []
    at = path.find(b"/")
    while at >= 0:
        found.append(path[:at])
        at = path.find(b"/", at + 1)
    return found


def clean_path(name: bytes) -> bytes:
    """The canonical form of a name out of an archive: no leading `/`, no `./`, no doubled or trailing `/`.

    Raises AerogelError `tar.path` if a component is `..` (what it means would depend on symbolic links).
    """
    if b"//" not in name and b"./" not in name and name[:1] != b"/" and name[-1:] not in (b"/", b"."):
        return name
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise AerogelError(
            f"path `{shown(name)}` in an archive has a `..` component",
            code="tar.path",
            hints=["the archive is damaged or hostile: such a path could leave the directory it is unpacked in"],
        )
    return b"/".join(parts)


def shown(path: bytes) -> str:
    """A path for a message: readable whatever its bytes, cut when very long."""
    text = path.decode("utf-8", "backslashreplace")
    return text if len(text) <= 300 else f"{text[:200]}...{text[-60:]} ({len(path)} bytes)"
