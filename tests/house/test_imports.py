"""Who may import whom: floors, pure packages, islands of the standard library, no circles.

The picture is `ARCHITECTURE.md`; this is its guard. Imports are read from the source, those inside functions too;
imports for type checking only do not count as running code but must not go up either.
"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

FLOORS = (
    ("decoding", "errors", "flag", "redact", "witness"),
    ("events", "settings"),
    ("net", "oci", "dockerfile", "sandbox", "bake"),
    ("files", "graph", "registry"),
    ("store", "debian", "lint"),
    ("solve", "export", "runtime", "analyze", "structure", "checks"),
    ("distroless",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A package imports lower floors and itself; crossings on one floor are listed below."""

CROSSINGS = {
    ("export", "solve"): "an image is made from what the solver gives for the last stage",
}

PURE = ("oci", "dockerfile", "graph")
"""Open no file, socket or process and read no clock."""

NAMES_THE_HOST = {("oci.platform", "os")}
"""`os.uname` only."""

IMPURE_MODULES = {"os", "subprocess", "socket", "time", "threading", "tempfile", "shutil", "pathlib", "urllib"}

ISLANDS = ("errors", "events", "flag", "redact", "witness", "cli.replay", "sandbox.helper", "files.jobs")
"""Modules that reach nothing but the standard library, however far one follows their imports."""


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name below `aerogel` -> file; packages stand for their `__init__`."""
    found = {}
    for path in sorted((SOURCE / "aerogel").rglob("*.py")):
        parts = path.relative_to(SOURCE / "aerogel").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


@functools.cache
def imports(module: str) -> dict[str, int]:
    """What a module imports -> line; modules of aerogel without the `aerogel.` in front, others as they are."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found.setdefault(_own(name), node.lineno)
    return found


def _own(name: str) -> str:
    if name == "aerogel" or not name.startswith("aerogel."):
        return name
    inner = name.removeprefix("aerogel.")
    return inner if inner in modules() else inner.rpartition(".")[0] or "__init__"


def package(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def floor(module: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if package(module) in names)


def test_every_package_has_a_floor():
    placed = {name for names in FLOORS for name in names}
    assert {package(one) for one in modules()} - {"__init__"} <= placed


def test_no_import_goes_up():
    wrong = []
    for module in modules():
        if module == "__init__":
            continue
        for target, line in imports(module).items():
            if target not in modules() or target == "__init__" or package(target) == package(module):
                continue
            pair = (package(module), package(target))
            if floor(target) >= floor(module) and pair not in CROSSINGS:
                wrong.append(f"src/aerogel/{module.replace('.', '/')}.py:{line}: {pair[0]} may not import {target}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_listed_crossings_are_used():
    used = {(package(one), package(target)) for one in modules() for target in imports(one)}
    assert set(CROSSINGS) <= used


def test_no_circle():
    state: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        if state.get(module) == 2:
            return
        assert module not in path, "import circle: " + " -> ".join([*path[path.index(module) :], module])
        for target in imports(module):
            if target in modules() and target != "__init__":
                visit(target, (*path, module))
        state[module] = 2

    for module in modules():
        visit(module, ())


@pytest.mark.parametrize("name", PURE)
def test_pure_packages_touch_nothing(name):
    wrong = [
        f"{module}:{line}: {target}"
        for module in modules()
        if package(module) == name
        for target, line in imports(module).items()
        if target.split(".", maxsplit=1)[0] in IMPURE_MODULES and (module, target) not in NAMES_THE_HOST
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("island", ISLANDS)
def test_islands_reach_only_the_standard_library(island):
    assert island in modules()
    seen: dict[str, tuple[str, ...]] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in seen:
            return
        seen[module] = path
        for target, line in imports(module).items():
            if target in modules():
                visit(target, (*path, target))
            elif target.split(".", maxsplit=1)[0] not in sys.stdlib_module_names | {"aerogel"}:
                raise AssertionError(f"{' -> '.join(path)} imports {target} (line {line})")

    visit(island, (island,))


OWNERS = {
    "msgspec": None,
    "urllib3": ("net",),
    "ssl": ("net",),
    "socket": ("net", "sandbox"),
    "subprocess": ("sandbox", "net"),
    "rich": ("cli",),
    "argparse": ("cli",),
    "shtab": ("cli",),
    "pysequoia": ("debian",),
    "cryptography": ("oci",),
    "deflate": ("files",),
    "isal": ("files",),
    "zstandard": ("files", "debian", "oci"),
    "tarfile": (),
    "asyncio": (),
    "logging": (),
    "sqlite3": (),
}
"""A library is used in one place, so that it can be replaced there; () means nowhere."""


def test_libraries_stay_in_their_place():
    wrong = []
    for module in modules():
        for target, line in imports(module).items():
            owners = OWNERS.get(target.split(".", maxsplit=1)[0])
            if owners is not None and package(module) not in owners:
                wrong.append(
                    f"src/aerogel/{module.replace('.', '/')}.py:{line}: {target} belongs to {owners or 'nobody'}"
                )
    assert not wrong, "\n" + "\n".join(wrong)
