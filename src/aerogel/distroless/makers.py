"""What makes files of an image that no package has: the makers, and what each may use.

A maker says for a recipe whether it has something to do, which packages its tools come in, and then works on the
layout. `MAKERS` is the one list of them, in the order in which they run: after the files of packages are laid out,
filtered and joined by generated files, before `paths` of the declaration, `/etc/ld.so.cache` and the records in
`status.d`. What decides its result is in the key: the recipe, the maker's name and `version`, the digests of its
tools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from aerogel.distroless.layout import Layout
from aerogel.distroless.recipe import Recipe
from aerogel.distroless.room import Room, opened_room
from aerogel.distroless.unpacked import Unpacked
from aerogel.oci.platform import Platform
from aerogel.sandbox.emulator import Emulator

if TYPE_CHECKING:
    from aerogel.sandbox.launch import Helper

__all__ = ["MAKERS", "Bench", "Maker", "Side", "Tools", "Work", "wanted_makers"]

Side = Literal["build", "image"]
"""Whose architecture tools are for: this machine's, or the image's."""

Tools = Mapping[Side, tuple[str, ...]]
"""Names of Debian packages; their closure (with dependencies, from the recipe's suites) is fetched, never installed."""


class Bench(NamedTuple):
    """The means of one composition: `helper` and `scratch` are called when a program must run, not before."""

    helper: Callable[[], Helper]
    scratch: Callable[[], str]
    platform: Platform
    tools: Mapping[tuple[str, Side], Sequence[Unpacked]]
    """By maker and side."""
    stack: ExitStack
    """Closed when the layer is written."""


class Work:
    """What a maker works on: the recipe, Debian's `arch`, the image's packages, and the layout, which it changes."""

    def __init__(self, recipe: Recipe, arch: str, packages: Sequence[Unpacked], layout: Layout, bench: Bench) -> None:
        self.recipe = recipe
        self.arch = arch
        self.packages = packages
        self.layout = layout
        self.bench = bench

    def tools(self, maker: str, side: Side) -> Sequence[Unpacked]:
        """The unpacked tool packages of a maker, dependencies first."""
        return self.bench.tools[maker, side]

    @contextmanager
    def room(self, packages: Sequence[Unpacked], side: Side = "build") -> Iterator[Room]:
        """A root file system made of packages in which programs run; see `Room`."""
        emulated = side == "image" and Emulator().prepare(self.bench.helper, str(self.bench.platform))
        with opened_room(
            self.bench.stack, self.bench.helper(), self.bench.scratch(), packages, emulated=emulated
        ) as room:
            yield room


class Maker(NamedTuple):
    """One maker of files. `version` changes when the same input would give other bytes."""

    name: str
    version: int
    is_wanted: Callable[[Recipe], bool]
    make: Callable[[Work], None]
    tools: Callable[[Recipe], Tools] = lambda _: {}


def _make_probe(work: Work) -> None:
    from aerogel.distroless.probe import PATH, program

    work.layout.write(PATH, program(work.arch), mode=0o755)


MAKERS: tuple[Maker, ...] = (Maker("probe", 1, lambda recipe: recipe.probe, _make_probe),)


def wanted_makers(recipe: Recipe) -> tuple[Maker, ...]:
    """The makers that have something to do for a recipe, in order."""
    return tuple(maker for maker in MAKERS if maker.is_wanted(recipe))
