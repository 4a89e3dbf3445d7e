"""A command whose root proot shows: what is found in the tree beforehand, and how the program is started.

proot translates the paths of system calls with ptrace(2). Its own complaints are no good answers, so what it would
complain about is looked for first. Standard library only: part of the helper. Spec: proot(1), version 5.1.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, NoReturn

from aerogel.errors import AerogelError
from aerogel.sandbox import inroot
from aerogel.sandbox.program import HEAD_BYTES, read_program

__all__ = ["check_directory", "execute", "find", "obstacle"]

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LIKE = {"x86_64": ("x86_64",), "aarch64": ("aarch64",)}


def _bound(path: str, binds: list[list[str]]) -> str:
    """The host's path of what lies in a folder that is shown, else ""."""
    path = os.path.normpath(path)
    for source, target in binds:
        if path == target or path.startswith(target + "/"):
            return source + path[len(target) :]
    return ""


def find(tree: str, directory: str, path: str, binds: list[list[str]]) -> str:
    """The host's path of what a path in the tree leads to; "" when nothing is there."""
    bound = _bound(os.path.join(directory, path), binds)
    if bound:
        return bound if os.path.exists(bound) else ""
    try:
        found = _found(tree, os.path.join(directory, path))
    except AerogelError:
        return ""
    os.close(found.fd)
    return "" if found.missing else tree + found.path


def check_directory(tree: str, path: str, binds: list[list[str]], *, create: bool) -> None:
    """Sees to it that the working directory is there. Raises AerogelError `sandbox.no-directory`."""
    bound = _bound(path, binds)
    if bound and os.path.isdir(bound):
        return
    found = _found(tree, path)
    os.close(found.fd)
    problem = 0
    if not found.is_dir:
        problem = errno.ENOTDIR
    elif found.missing and create:
        os.makedirs(tree + found.full, 0o755)
    elif found.missing:
        problem = errno.ENOENT
    if problem:
        raise AerogelError(f"the working directory `{path}`: {os.strerror(problem)}", code="sandbox.no-directory")


def obstacle(tree: str, place: str) -> OSError | None:
    """Why a file cannot be executed, as execve(2) would say."""
    status = os.stat(place)
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with open(place, "rb") as file:
        program = read_program(file.read(HEAD_BYTES))
    machine = os.uname().machine
    if not program.kind or (program.kind == "elf" and program.machine not in _LIKE.get(machine, (machine,))):
        return OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
    if program.interpreter and not find(tree, "/", program.interpreter, []):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return None


def execute(proot: str, tree: str, request: dict[str, Any], argv: list[str], environment: dict[str, str]) -> NoReturn:
    """Becomes proot, which starts the command. Raises OSError."""
    words = [proot, "-v", "-1", "-r", tree, "-w", request["cwd"], "-b", "/proc", "-b", "/sys"]
    for name in _DEVICES:  # nobody but root can make them
        if stat.S_ISREG(os.stat(f"{tree}/dev/{name}").st_mode):
            words += ["-b", f"/dev/{name}"]
    for source, target in request["binds"]:
        words += ["-b", f"{source}:{target}"]
    os.execve(proot, [*words, *argv], environment)  # noqa: S606 what this module is for


def _found(tree: str, path: str) -> inroot.Found:
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return inroot.find(root, path)
    finally:
        os.close(root)
