"""The sandbox's own file job: removes a tree whose owners only the helper may touch. Standard library only."""

from __future__ import annotations

import contextlib
import os
from typing import Any

__all__ = ["discard"]


def discard(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Removes the directory `path` with all below it, following no link; a missing one is no error."""
    del fds
    with contextlib.suppress(FileNotFoundError):
        _remove_tree(args["path"])
    return {}


def _remove_tree(path: str) -> None:
    with os.scandir(path) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(path)
