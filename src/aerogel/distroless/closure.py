"""Whether programs of a composed base find their libraries in it: what `resolve.elf-closure` of a declaration asks for.

Debian's dependencies see to that; this finds what a declaration left out (`skip`, `slices`), and what packages that are
not Debian's do not say. A library counts as there when a file of its name is anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from aerogel.checks.dynamic import Dynamic, read_dynamic
from aerogel.checks.image import is_candidate
from aerogel.checks.sonames import package_of
from aerogel.distroless.layout import Layout
from aerogel.distroless.recipe import RELEASES, Recipe
from aerogel.errors import AerogelError, Diagnostic
from aerogel.events import Sink, Warned
from aerogel.files.entry import DIR

__all__ = ["check_closure", "debian_version", "missing_libraries"]


def missing_libraries(layout: Layout) -> Mapping[str, bytes]:
    """Names of libraries that are nowhere in the tree -> a file that needs them, which no image below has."""
    found: dict[bytes, Dynamic] = {}
    places: set[str] = set()
    for path, item in layout.items.items():
        name = path.rpartition(b"/")[2]
        if b".so" in name and item.entry.kind != DIR:
            places.add(name.decode("utf-8", "replace"))
        if is_candidate(item.entry) and not layout.is_below(path):
            one = read_dynamic(partial(layout.read, item))
            if one is not None:
                found[path] = one
    missing: dict[str, bytes] = {}
    for path, one in sorted(found.items()):
        for soname in one.needed:
            if soname not in places:
                missing.setdefault(soname, path)
    return missing


def debian_version(recipe: Recipe) -> str:
    """The release whose libraries the table is asked for."""
    return next((each.version for each in RELEASES if each.suite == recipe.suite), "13")


def check_closure(layout: Layout, recipe: Recipe, sink: Sink, arch: str = "amd64") -> None:
    """Tells of libraries that are not there, as the recipe wants it; `arch` is Debian's name of the architecture. Raises `base.missing-library`."""
    if recipe.elf_closure == "off":
        return
    release = debian_version(recipe)
    for soname, path in sorted(missing_libraries(layout).items()):
        package = package_of(soname, release, arch)
        shown = "/" + path.decode("utf-8", "backslashreplace")
        message = f"`{shown}` of `{recipe.name}` needs the library `{soname}`, which is not in the base"
        hints = [f"Debian has it in `{package}`: add it to `packages`, or take it off `skip`"] if package else []
        if package and recipe.elf_closure == "warn":
            hints.append("`resolve: {elf-closure: add}` adds it by itself")
        hints.append("`resolve: {elf-closure: off}` does not look for it")
        if recipe.elf_closure == "error":
            raise AerogelError(message, code="base.missing-library", hints=hints)
        sink.emit(Warned(Diagnostic(message, code="base.missing-library", hints=hints)))
