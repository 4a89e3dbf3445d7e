"""From a `Copy` operation to the items that its layer holds, whatever the trees are."""

from __future__ import annotations

from aerogel.files.copy import CopyItem, CopyOptions, parse_chmod, parse_owner, plan_copy
from aerogel.files.tree import Tree
from aerogel.graph.ops import Copy

__all__ = ["select"]


def select(op: Copy, source: Tree, target: Tree, *, epoch_s: int = 0, for_key: bool = False) -> list[CopyItem]:
    """What the operation copies from `source` into `target`; inline files are the caller's.

    With `for_key` only the selection counts: it goes to the root, owner and mode as in the source.
    Raises AerogelError `copy.*`.
    """
    options = CopyOptions(
        chown=parse_owner(op.chown, target) if op.chown and not for_key else None,
        chmod=parse_chmod(op.chmod) if op.chmod and not for_key else None,
        keep_owner=op.keep_owner,
        link=op.link,
        parents=op.parents,
        exclude=op.exclude,
        unpack=op.unpack and not for_key,
        epoch=epoch_s,
    )
    patterns = [each.path for each in op.sources if each.inline is None]
    return plan_copy(source, patterns, "/" if for_key else op.dest, target, options)
