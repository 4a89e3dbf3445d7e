"""Whether the rules of `slices.packages` are about packages that an image has: one about another package says nothing.

Rules of built-in declarations are not asked: who extends one may leave its packages out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aerogel.distroless.catalogue import declarations
from aerogel.distroless.extend import Family
from aerogel.distroless.recipe import Recipe
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic, nearest

__all__ = ["idle_slices"]

_DIGITS = re.compile("[0-9]+")


def idle_slices(family: Family, recipe: Recipe, present: Iterable[str], *, is_locked: bool = False) -> list[Diagnostic]:
    """Warnings for the rules of a declaration about packages that are not among `present`.

    Raises `base.slice` for a name that is nearly one of them, unless a lock has said what is in the image. A package
    may be missing for a good reason, on one architecture or in one variant, and so may another version of it.
    """
    names, own = set(present), _own(family)
    found = []
    for name in sorted(own & recipe.slices.keys() - names):
        near = nearest(name, sorted(names))
        message = f"`slices.packages` names `{name}`, which is not in the image"
        hints = [f"did you mean `{near}`?"] if near else ["`aerogel base show --packages` lists what is"]
        if near and not is_locked and _DIGITS.sub("", near) != _DIGITS.sub("", name):
            raise AerogelError(message, code="base.slice", hints=hints, exit_status=EXIT_USAGE)
        hints.append("what counts for a variant or a release only stands in its part")
        found.append(Diagnostic(f"{message}: the rule does nothing", code="base.slice", hints=hints))
    return found


def _own(family: Family) -> set[str]:
    """The packages of rules that no built-in declaration has; what lies under an image is like one."""
    known = declarations().values()
    chain = family.chain[1:] if family.image else family.chain
    parts = [
        part
        for one in chain
        if not any(one is each for each in known)
        for part in (
            one,
            *(one.releases or {}).values(),
            *(one.profiles or {}).values(),
            *(one.variants or {}).values(),
        )
    ]
    return {name for part in parts if part.slices is not None for name in part.slices.packages or ()}
