"""`resolve.elf-closure: add`: the packages that have the libraries which programs of a base lack.

Debian's dependencies bring libraries by themselves; what they do not know of are programs from elsewhere (`url`, `npm`,
local .deb files, `paths`), what makers make, and what `skip` left out. The image is put together as it will be (makers
keep what they made, so that is done once), what is missing is looked up in the table of Debian's libraries for the
architecture, and the choice is made again, until nothing is missing or nobody has it. It is part of the choice of
packages, so locks hold it. Not for: telling of what stays missing (`closure`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from aerogel.checks.sonames import package_of
from aerogel.debian.resolve import Chosen
from aerogel.distroless.base import Selection, fetched_externals, make_bench, select, selection_key, suites
from aerogel.distroless.closure import debian_version, missing_libraries
from aerogel.distroless.compose import compose
from aerogel.distroless.pool import Origin
from aerogel.distroless.unpacked import unpack
from aerogel.events import Sink

if TYPE_CHECKING:
    from aerogel.sandbox.launch import Helper

__all__ = ["Means", "with_libraries"]

_MAX_ROUNDS = 20


class Means(NamedTuple):
    """With what an image is put together, as for `compose_base`."""

    helper: Callable[[], Helper]
    scratch: Callable[[], str]
    sink: Sink
    read: Callable[[str], bytes]


def with_libraries(
    selection: Selection, archive: Origin, cache: Path, means: Means, *, using: Sequence[str] = (), step: int = 0
) -> Selection:
    """The selection with what its programs lack, if its recipe says `add`; fetches packages to look into them.

    `using` are the suites that `select` was given. Raises what `select`, `Archive` and `compose` raise.
    """
    recipe = selection.recipe
    if recipe.elf_closure != "add" or recipe.kind == "buildroot":
        return selection
    found, causes, seen = selection, dict[str, tuple[str, ...]](), set[str]()
    for _ in range(_MAX_ROUNDS):
        new = {name: why for name, why in _lacking(found, archive, cache, means, step).items() if name not in seen}
        seen |= new.keys()
        there = archive.indexes(using or recipe.suites or suites(recipe.suite), recipe.components, selection.arch)
        new = {name: why for name, why in new.items() if any(index.named(name) for index in there)}
        if not new:
            return found
        causes |= new
        more = msgspec.structs.replace(recipe, packages=(*recipe.packages, *sorted(causes)))
        again = select(more, selection.platform, archive, using=using, underlay=selection.underlay)
        chosen = tuple(_explained(each, causes) for each in again.chosen)
        key = selection_key(recipe, selection.arch, chosen, again.tools, selection.underlay)
        found = msgspec.structs.replace(again, recipe=recipe, chosen=chosen, key=key)
    return found


def _lacking(selection: Selection, archive: Origin, cache: Path, means: Means, step: int) -> dict[str, tuple[str, ...]]:
    """Packages that are not chosen and have a library which is missing -> the chain that leads to it."""
    recipe = selection.recipe
    chains = {each.package.name: each.why for each in selection.chosen}
    debs = archive.fetch_all(selection.packages, step=step)
    found: dict[str, tuple[str, ...]] = {}
    with unpack(selection.packages, debs, cache) as unpacked, ExitStack() as stack:
        taken = fetched_externals(recipe, selection.arch, archive)
        bench = make_bench(selection, archive, cache, stack, means.helper, means.scratch, means.sink, step)
        layout = compose(recipe, unpacked, selection.arch, bench, means.read, taken, selection.underlay).layout
        for soname, file in sorted(missing_libraries(layout).items()):
            name = package_of(soname, debian_version(recipe), selection.arch)
            if name and name not in chains and name not in recipe.skip:
                owner = layout.items[file].owner
                found.setdefault(name, chains.get(owner) or ("/" + file.decode("utf-8", "backslashreplace"),))
    return found


def _explained(each: Chosen, causes: dict[str, tuple[str, ...]]) -> Chosen:
    """With the file, or the package, that lacked the library in front of the chain."""
    first = causes.get(each.why[0])
    return each if first is None else Chosen(each.package, (*first, *each.why))
