"""Programs without their symbol tables, which are for debuggers: a fifth of Node.js.

Debian's packages come stripped; what comes from elsewhere is stripped here if its entry says `strip-symbols`. The
tool is the binutils of the image's architecture, as every machine has it for cross compilation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aerogel.distroless.layout import Item, Layout
from aerogel.distroless.made import contents_digest, packages_digest
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES, TRIPLETS
from aerogel.files.entry import REG

if TYPE_CHECKING:
    from aerogel.distroless.recipe import Recipe
    from aerogel.distroless.work import Work

__all__ = ["strip_symbols", "strip_tools", "wants_strip"]

_ELF = b"\x7fELF"


def wants_strip(recipe: Recipe) -> bool:
    """Whether any entry of `packages` says so."""
    return any(each.strip_symbols for each in recipe.archives)


def strip_tools(recipe: Recipe) -> tuple[str, ...]:
    """The packages with the tool for each platform of a base."""
    found = (TRIPLETS[DEBIAN_ARCHITECTURES[each]] for each in recipe.platforms)
    return tuple(sorted(f"binutils-{triplet.replace('_', '-')}" for triplet in found))


def strip_symbols(work: Work) -> None:
    """Strips every ELF file in the directories of the entries that say so. Raises `distroless.tool`."""
    folders = [(each.to or "").strip("/").encode() + b"/" for each in work.recipe.archives if each.strip_symbols]
    layout = work.layout
    programs = {
        path: item
        for path, item in layout.items.items()
        if path.startswith(tuple(folders)) and item.entry.kind == REG and layout.read(item, 0, len(_ELF)) == _ELF
    }
    if not programs:
        return
    tools = work.tools("strip", "build")

    def make(out: Layout) -> None:
        with work.room(tools) as room:
            for path, item in programs.items():
                room.layout.items[b"in/" + path] = Item(item.entry._replace(path=b"in/" + path), item.content)
            names = [f"/in/{path.decode('utf-8', 'surrogateescape')}" for path in sorted(programs)]
            room.run([f"/usr/bin/{TRIPLETS[work.arch]}-strip", "--strip-unneeded", "--preserve-dates", *names])
            room.take(out, b"in", b"in")

    work.tell("leaving symbols out")
    made = work.made("strip", (packages_digest(tools), contents_digest(programs)), make)
    for path, before in programs.items():
        item = made[b"in/" + path]
        layout.items[path] = Item(before.entry._replace(size=item.entry.size), item.content, before.owner)
