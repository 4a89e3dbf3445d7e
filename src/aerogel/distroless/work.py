"""What a maker works with: the layout of an image in the making, its packages, tools, and rooms to run programs in.

Not for: which makers there are (`makers`), or what one makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from aerogel.distroless.layout import Item, Layout
from aerogel.distroless.made import made_once
from aerogel.distroless.recipe import Recipe
from aerogel.distroless.room import Room, opened_room
from aerogel.distroless.unpacked import Unpacked
from aerogel.errors import Diagnostic
from aerogel.oci.platform import Platform
from aerogel.sandbox.emulator import Emulator

if TYPE_CHECKING:
    from aerogel.sandbox.launch import Helper

__all__ = ["Bench", "Side", "Tools", "Work"]

Side = Literal["build", "image"]
"""Whose architecture the programs of a room are for: this machine's, or the image's."""

Tools = tuple[str, ...]
"""Names of Debian packages for the machine that composes; their closure (with dependencies, from the recipe's suites) is
fetched, never installed."""


class Bench(NamedTuple):
    """The means of one composition: `helper` and `scratch` are called when a program must run, not before."""

    helper: Callable[[], Helper]
    scratch: Callable[[], str]
    platform: Platform
    tools: Mapping[str, Sequence[Unpacked]]
    """By maker."""
    stack: ExitStack
    """Closed when the layer is written."""
    cache: Path
    tell: Callable[[str], object]
    """Says what takes a while."""
    warn: Callable[[Diagnostic], object]


class Work:
    """What a maker works on: the recipe, Debian's `arch`, the image's packages, and the layout, which it changes.

    `certificates` are the PEM files of those that TLS trusts, by path; `added` those that an image below did not bring.
    """

    def __init__(
        self,
        recipe: Recipe,
        arch: str,
        packages: Sequence[Unpacked],
        layout: Layout,
        bench: Bench,
        certificates: Mapping[bytes, bytes],
        added: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.recipe = recipe
        self.arch = arch
        self.packages = packages
        self.layout = layout
        self.bench = bench
        self.certificates = certificates
        self.added = certificates if added is None else added

    def tools(self, maker: str) -> Sequence[Unpacked]:
        """The unpacked tool packages of a maker, dependencies first."""
        return self.bench.tools[maker]

    @contextmanager
    def room(self, packages: Sequence[Unpacked], side: Side = "build") -> Iterator[Room]:
        """A root file system made of packages in which programs run; see `Room`."""
        emulated = side == "image" and Emulator().prepare(self.bench.helper, str(self.bench.platform))
        with opened_room(
            self.bench.stack, self.bench.helper(), self.bench.scratch(), packages, emulated=emulated
        ) as room:
            yield room

    def tell(self, text: str) -> None:
        """Says what takes a while."""
        self.bench.tell(text)

    def made(self, name: str, key: Iterable[bytes], make: Callable[[Layout], None]) -> dict[bytes, Item]:
        """What `make` puts into an empty layout, by path, or what it put there before: see `made_once`.

        `key` is all that decides it; `name` says what it is.
        """
        bench = self.bench
        return made_once(bench.cache, (name.encode(), *key), self.layout.epoch, bench.stack, make)
