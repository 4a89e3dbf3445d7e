"""What makes files of an image that no package has: the makers, and what each may use.

A maker says for a recipe whether it has something to do, which packages its tools come in, and then works on the
layout. `MAKERS` is the one list of them, in the order in which they run: after the files of packages are laid out,
filtered and joined by generated files, before `paths` of the declaration, `/etc/ld.so.cache` and the records in
`status.d`. What decides its result is in the key: the recipe, the maker's name and `version`, the digests of its
tools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aerogel.distroless.bytecode import add_bytecode, compilers, wants_bytecode
from aerogel.distroless.java import SKIP as JAVA_SKIP
from aerogel.distroless.java import add_java, java_tools, wants_java
from aerogel.distroless.keystore import add_keystore, wants_keystore
from aerogel.distroless.locales import TOOLS as LOCALE_TOOLS
from aerogel.distroless.locales import make_locales
from aerogel.distroless.recipe import Recipe
from aerogel.distroless.stripped import strip_symbols, wants_strip
from aerogel.distroless.work import Tools, Work

__all__ = ["MAKERS", "Maker", "wanted_makers"]


class Maker(NamedTuple):
    """One maker of files. `version` changes when the same input would give other bytes."""

    name: str
    version: int
    is_wanted: Callable[[Recipe], bool]
    make: Callable[[Work], None]
    tools: Callable[[Recipe], Tools] = lambda _: ()
    skip: tuple[str, ...] = ()
    """What the tools depend on and do not need for their work here."""
    tied: bool = False
    """Whether tools and what they work on must be of one version."""


def _make_probe(work: Work) -> None:
    from aerogel.distroless.probe import PATH, program

    work.layout.write(PATH, program(work.arch), mode=0o755)


def _python_tools(recipe: Recipe) -> Tools:
    return compilers(recipe.packages)


MAKERS: tuple[Maker, ...] = (
    Maker("probe", 1, lambda recipe: recipe.probe, _make_probe),
    Maker("strip", 2, wants_strip, strip_symbols),
    Maker("keystore", 1, wants_keystore, add_keystore),
    Maker("java", 3, wants_java, add_java, java_tools, JAVA_SKIP, tied=True),
    Maker("locales", 1, lambda recipe: bool(recipe.locales), make_locales, lambda _: LOCALE_TOOLS),
    Maker("python", 1, wants_bytecode, add_bytecode, _python_tools),
)


def wanted_makers(recipe: Recipe) -> tuple[Maker, ...]:
    """The makers that have something to do for a recipe, in order."""
    return tuple(maker for maker in MAKERS if maker.is_wanted(recipe))
