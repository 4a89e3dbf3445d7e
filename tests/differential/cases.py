"""What a differential case is, and the folders that cases build from.

A context is a mapping of paths to what is made there. Paths may hold any bytes, as `os.fsdecode` gives them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["Case", "Context", "Dir", "File", "Hard", "Link", "Make", "populate"]


class File(NamedTuple):
    """A regular file."""

    content: str | bytes = ""
    mode: int = 0o644


class Dir(NamedTuple):
    """A directory; parents of other things need none."""

    mode: int = 0o755


class Link(NamedTuple):
    """A symbolic link."""

    target: str


class Hard(NamedTuple):
    """A hard link to an earlier path of the context."""

    path: str


Make = Callable[[Path], object]
Context = Mapping[str, File | Dir | Link | Hard | Make | str]


class Case(NamedTuple):
    """One Dockerfile and one context.

    `args` are words for both command lines. With `fails` both must refuse. Differences with a reason stand in
    `explained`.
    """

    name: str
    dockerfile: str
    context: Context = MappingProxyType({})
    args: tuple[str, ...] = ()
    fails: bool = False


def populate(folder: Path, context: Context) -> None:
    """Makes the context in an empty folder; modes of directories are set last."""
    folder.mkdir()
    folder.chmod(0o755)
    modes: list[tuple[Path, int]] = []
    for name, made in context.items():
        path = folder / name
        for parent in reversed(path.relative_to(folder).parents):
            if not (folder / parent).exists():
                (folder / parent).mkdir()
                (folder / parent).chmod(0o755)
        match made:
            case str():
                _write(path, File(made))
            case File():
                _write(path, made)
            case Dir(mode):
                path.mkdir(exist_ok=True)
                modes.append((path, mode))
            case Link(target):
                path.symlink_to(target)
            case Hard(other):
                os.link(folder / other, path)
            case _:
                made(path)
    for path, mode in modes:
        path.chmod(mode)


def _write(path: Path, file: File) -> None:
    path.write_bytes(file.content if isinstance(file.content, bytes) else file.content.encode())
    path.chmod(file.mode)
