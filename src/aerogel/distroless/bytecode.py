"""Python's standard library compiled while the image is made, since Debian's packages compile it in a script.

Without it each start of a program compiles what it imports again, and cannot keep it: the image is not writable. The
files are of the kind that is never checked against the source (PEP 552, unchecked hash), so no time matters. They are
the same for every architecture, hence made by a Python of the host's own and of the image's version.

Bytecode depends on more than the source: on which strings the interpreter shares at that moment (marshal's references
follow the counts of objects). So each file is compiled in a child of one process that has compiled nothing, with a
fixed hash seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from aerogel.distroless.layout import Item, Layout
from aerogel.distroless.made import contents_digest, packages_digest
from aerogel.errors import AerogelError
from aerogel.files.entry import LNK, REG, directory

if TYPE_CHECKING:
    from aerogel.distroless.recipe import Recipe
    from aerogel.distroless.work import Work

__all__ = ["add_bytecode", "compilers", "wants_bytecode"]

_INTERPRETER = re.compile(r"python3\.[0-9]+-minimal")
_PACKAGE = re.compile(r"python3(?:\.[0-9]+)?(?:-minimal)?")

_SCRIPT = b"""\
import marshal, os, sys
from importlib.util import MAGIC_NUMBER, source_hash

UNCHECKED = (1).to_bytes(4, "little")

def compile_one(source, target, shown):
    with open(source, "rb") as file:
        data = file.read()
    try:
        code = compile(data, shown, "exec", dont_inherit=True, optimize=0)
    except SyntaxError:
        return  # of another version, or meant to be wrong: importing it fails all the same
    with open(target, "wb") as file:
        file.write(MAGIC_NUMBER + UNCHECKED + source_hash(data) + marshal.dumps(code))

def wait():
    pid, status = os.wait()
    if status:
        sys.exit(f"a compiler ended with status {status}")

tag = sys.implementation.cache_tag
found = []
for folder, folders, names in os.walk("/in"):
    folders.sort()
    found += [(folder, name) for name in sorted(names)]
running = 0
for folder, name in found:
    place = f"/out{folder[3:]}/__pycache__"
    os.makedirs(place, exist_ok=True)
    arguments = f"{folder}/{name}", f"{place}/{name[:-3]}.{tag}.pyc", f"{folder[3:]}/{name}"
    if running == 2:
        wait()
        running -= 1
    if os.fork() == 0:
        try:
            compile_one(*arguments)
        except BaseException as error:
            print(arguments[0], repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    running += 1
while running:
    wait()
    running -= 1
"""


def wants_bytecode(recipe: Recipe) -> bool:
    """Whether the declaration asks for it."""
    return recipe.python is not None and recipe.python.bytecode == "unchecked-hash"


def compilers(packages: Iterable[str]) -> tuple[str, ...]:
    """The packages whose Python compiles for that of an image which asks for `packages`: the same ones.

    Raises `distroless.no-python`.
    """
    found = tuple(sorted(name for name in packages if _PACKAGE.fullmatch(name)))
    if not found:
        raise AerogelError(
            "`python.bytecode` is asked for, but `packages` names no Python",
            code="distroless.no-python",
            hints=["add a package such as `python3.13-minimal`, or leave `python` out"],
        )
    return found


def add_bytecode(work: Work) -> None:
    """Adds a compiled file beside every module of the standard library, or in its place if `sourceless`."""
    layout = work.layout
    sources = _sources(layout)
    tools = work.tools("python")
    names = [each.package.name for each in tools if _INTERPRETER.fullmatch(each.package.name)]

    def make(out: Layout) -> None:
        with work.room(tools) as room:
            room.layout.items.update(_inputs(sources))
            room.layout.write(b"compile.py", _SCRIPT)
            room.layout.add_directory(directory(b"out"))
            for name in names:
                room.run([f"/usr/bin/{name.removesuffix('-minimal')}", "-I", "-S", "-B", "/compile.py"])
            room.take(out, b"out", b"out")

    made = work.made("bytecode", (packages_digest(tools), contents_digest(sources), _SCRIPT), make)
    python = work.recipe.python
    for path, item in made.items():
        place = path.removeprefix(b"out").lstrip(b"/")
        if python is not None and python.sourceless:
            place = _beside(place)
        if place:
            layout.items.setdefault(place, Item(item.entry._replace(path=place), item.content))
    if python is not None and python.sourceless:
        for path in sources:
            if path + b"c" in layout.items:
                del layout.items[path]


def _beside(path: bytes) -> bytes:
    """Where a compiled file is found without its source: `a/m.pyc` for `a/__pycache__/m.cpython-313.pyc`."""
    folder, _, name = path.rpartition(b"/")
    above, _, last = folder.rpartition(b"/")
    return above + b"/" + name.partition(b".")[0] + b".pyc" if last == b"__pycache__" and name else b""


def _sources(layout: Layout) -> dict[bytes, Item]:
    """The modules by path; some are links (`sitecustomize.py` to /etc) to what is compiled in their place."""
    found = {}
    for path in layout.items:
        if path.startswith(b"usr/lib/python3") and path.endswith(b".py") and not layout.is_below(path):
            item = layout.resolve(path)
            if item is not None and item.entry.kind in (REG, LNK):
                found[path] = item
    return found


def _inputs(sources: Mapping[bytes, Item]) -> dict[bytes, Item]:
    found = {}
    for source, item in sources.items():
        path = b"in/" + source
        found[path] = Item(item.entry._replace(path=path, kind=REG, link=b""), item.content)
    return found
