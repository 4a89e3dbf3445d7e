"""From a `Copy` operation to the items that its layer holds, whatever the trees are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from aerogel.errors import AerogelError
from aerogel.files.chmod import parse_chmod
from aerogel.files.copy import CopyError, CopyItem, CopyOptions, plan_copy
from aerogel.files.owner import parse_owner
from aerogel.files.tree import Tree
from aerogel.graph.ops import Copy

__all__ = ["options_of", "select"]


def options_of(op: Copy, target: Tree, epoch_s: int | None) -> CopyOptions:
    """The operation's options with names turned to numbers by the target's accounts. Raises AerogelError `copy.*`."""
    with _about(op.chown):
        chown = parse_owner(op.chown, target) if op.chown else None
    with _about(op.chmod):
        chmod = parse_chmod(op.chmod) if op.chmod else None
    return CopyOptions(
        chown=chown,
        chmod=chmod,
        keep_owner=op.keep_owner,
        parents=op.parents,
        exclude=op.exclude,
        epoch=epoch_s,
    )


def select(
    op: Copy, number: int, source: Tree, target: Tree, options: CopyOptions, *, dest: str = ""
) -> Collection[CopyItem]:
    """What the operation copies from `source`, its input `number`, into `target`. Raises `copy.*`."""
    patterns = [each.path for each in op.sources if each.input == number and each.inline is None]
    return plan_copy(source, patterns, dest or op.dest, target, options)


@contextmanager
def _about(word: str) -> Iterator[None]:
    """Errors in the block name the word of the instruction that they are about."""
    try:
        yield
    except AerogelError as error:
        raise CopyError.about(word, error) from error
