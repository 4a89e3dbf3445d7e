"""Rules that hold for each source file by itself."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "src/aerogel").rglob("*.py"))
LONGEST_FILE = 600
LONGEST_FUNCTION = 60

LONG_FILES: dict[str, str] = {}
"""File -> why it is longer."""

LONG_FUNCTIONS: dict[str, str] = {
    "flag.py:__init__": "a parameter for each property",
}
"""`file:function` -> why it is longer."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "src/aerogel"))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


each_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def public_names(module: ast.Module) -> list[str] | None:
    for node in module.body:
        if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return None


def sort_key(name: str) -> tuple[int, str]:
    """The order of ruff's RUF022: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


@each_file
def test_public_names_are_listed(path):
    module = tree(path)
    defined = {
        node.name
        for node in module.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    }
    listed = public_names(module)
    if path.name in ("__init__.py", "__main__.py") and not defined:
        return
    assert listed is not None, "no __all__"
    assert listed == sorted(listed, key=sort_key), "__all__ is not sorted"
    assert len(listed) == len(set(listed))
    every = {one.id for node in module.body for one in ast.walk(node) if isinstance(one, ast.Name)} | {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = every | {node.name for node in module.body if hasattr(node, "name")}
    assert set(listed) <= names, f"not defined: {set(listed) - names}"
    assert defined <= set(listed), f"public but not in __all__: {sorted(defined - set(listed))}"


@each_file
def test_module_says_what_it_is_for(path):
    assert ast.get_docstring(tree(path))


@each_file
def test_length(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST_FILE or name_of(path) in LONG_FILES, f"{lines} lines"
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
        and f"{name_of(path)}:{node.name}" not in LONG_FUNCTIONS
    ]
    assert not long


def attributes(path: Path) -> list[tuple[str, int]]:
    """Dotted uses such as `os.environ`, with their lines."""
    return [(ast.unparse(node), node.lineno) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)]


def test_only_settings_reads_the_environment():
    wrong = [
        f"{name_of(path)}:{line}"
        for path in FILES
        if name_of(path) not in ("settings.py", "cli/replay.py")
        for text, line in attributes(path)
        if text in ("os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv")
    ]
    assert not wrong


def test_only_the_command_line_prints_and_exits():
    wrong = []
    for path in FILES:
        if name_of(path).startswith("cli/") or name_of(path) in ("__main__.py", "sandbox/helper.py"):
            continue
        ends = ("print", "sys.exit", "exit", "breakpoint", "input")
        wrong += [
            f"{name_of(path)}:{node.lineno}: {ast.unparse(node.func)}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ends
        ]
        wrong += [
            f"{name_of(path)}:{line}: {text}" for text, line in attributes(path) if text in ("sys.stdout", "sys.stderr")
        ]
    assert not wrong


STARTERS = {
    "sandbox/launch.py": "starts the helper",
    "net/credential.py": "runs docker-credential programs",
    "net/clients.py": "runs pip and npm",
    "net/git.py": "runs git",
    "sandbox/quick.py": "starts a command in its namespaces",
    "net/podman.py": "runs podman",
    "sandbox/repeat.py": "runs this program once more",
    "sandbox/control.py": "starts the process that holds a container",
}
"""Modules that may start a program; the helper's own children are made by `os.fork` below `sandbox/`."""


def test_processes_start_in_one_place():
    wrong = []
    starts = ("subprocess.Popen", "subprocess.run", "os.fork", "os.system", "os.posix_spawn", "os.execve", "os.execv")
    for path in FILES:
        name = name_of(path)
        for text, line in attributes(path):
            inside = name.startswith("sandbox/") and text.startswith(("os.fork", "os.exec"))
            if text in starts and name not in STARTERS and not inside:
                wrong.append(f"{name}:{line}: {text}")
    assert not wrong


def test_no_mutable_state_in_modules():
    """A module-level list, dict or set is a constant: nothing in the module changes it."""
    wrong = []
    methods = {"append", "add", "update", "pop", "clear", "extend", "insert", "remove", "setdefault", "discard"}
    for path in FILES:
        module = tree(path)
        names = {
            target.id
            for node in module.body
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, (ast.List, ast.Dict, ast.Set))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(module):
            if isinstance(node, ast.Global):
                wrong.append(f"{name_of(path)}:{node.lineno}: global {', '.join(node.names)}")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in methods
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in names
            ):
                wrong.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node.func)}")
    assert not wrong


@each_file
def test_exceptions_are_not_swallowed(path):
    wrong = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(one, ast.Pass) for one in node.body)
    ]
    assert not wrong


@each_file
def test_open_work_has_an_issue(path):
    wrong = [
        number
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\b(?:TODO|FIXME)\b(?!.*#\d)", line)
    ]
    assert not wrong


@each_file
def test_listings_are_closed(path):
    """One that is not read to its end holds a descriptor until the interpreter finds it, and then complains."""
    used = {
        id(call)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.With)
        for item in node.items
        for call in ast.walk(item.context_expr)
    }
    open_ones = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.scandir" and id(node) not in used
    ]
    assert not open_ones, f"`os.scandir` without `with` in lines {open_ones}"
