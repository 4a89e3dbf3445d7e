"""Whether an image can start what its ENTRYPOINT, CMD and HEALTHCHECK name: the commonest mistake with small images.

Found from the indexes of layers, without reading content. Only what the Dockerfile itself says is judged: an image may
inherit a CMD that nobody uses.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from aerogel.dockerfile import ast
from aerogel.errors import AerogelError, Diagnostic, Span, nearest
from aerogel.files.entry import DIR
from aerogel.files.tree import Tree
from aerogel.graph.stages import Plan, PlannedStage, StageRef
from aerogel.oci.types import ContainerConfig
from aerogel.sandbox.spec import DEFAULT_PATH

__all__ = ["instructions_of", "missing_programs"]

_PLAIN = re.compile(r"[\w@%+=:,./ -]+")
"""A shell command line that is nothing but words."""

_Starting = ast.Cmd | ast.Entrypoint | ast.Healthcheck


def instructions_of(plan: Plan) -> tuple[ast.Instruction, ...]:
    """The instructions of the target and of the stages that it starts from, in order."""
    stages = {stage.index: stage for stage in plan.stages}
    found: tuple[ast.Instruction, ...] = ()
    current: PlannedStage | None = plan.target
    while current is not None:
        found = (*current.instructions, *found)
        current = stages.get(current.base.index) if isinstance(current.base, StageRef) else None
    return found


def missing_programs(config: ContainerConfig, tree: Tree, instructions: Sequence[ast.Instruction]) -> list[Diagnostic]:
    """A remark for each program that the image names and does not have."""
    last: dict[type, _Starting] = {}
    for each in instructions:
        if isinstance(each, _Starting):
            last[type(each)] = each
    judged = [last.get(ast.Entrypoint if config.entrypoint else ast.Cmd), last.get(ast.Healthcheck)]
    found = (_judged(each, config, tree) for each in judged if each is not None)
    return [remark for remark in found if remark is not None]


def _judged(instruction: _Starting, config: ContainerConfig, tree: Tree) -> Diagnostic | None:
    command = instruction.command
    name = {ast.Cmd: "CMD", ast.Entrypoint: "ENTRYPOINT", ast.Healthcheck: "HEALTHCHECK"}[type(instruction)]
    if isinstance(command, ast.ShellForm):
        shell = config.shell[0] if config.shell else "/bin/sh"
        if not command.text.strip() or _state(shell, config, tree) != "missing":
            return None
        hints = [_exec_form(name, command.text)]
        if not isinstance(instruction, ast.Entrypoint) or config.cmd:
            hints.append("or start from an image with a shell, such as `debian`")
        message = f"{name} in this form needs the shell `{shell}`, which is not in the image"
        return _remark(message, command.span, hints)
    if command is None or not command.words:
        return None
    program = command.words[0]
    match _state(program.text, config, tree):
        case "missing":
            return _remark(
                f"`{program.text}` is not in the image, so {name} cannot start it",
                program.span,
                [_instead(program.text, config, tree)],
            )
        case "directory":
            return _remark(f"`{program.text}` is a directory, so {name} cannot start it", program.span, [])
        case "not-executable":
            hint = f'copy it with `COPY --chmod=755`, or name its interpreter: `{name} ["python3", "{program.text}"]`'
            return _remark(f"`{program.text}` is not executable, so {name} cannot start it", program.span, [hint])
    return None


def _remark(message: str, span: Span, hints: Sequence[str]) -> Diagnostic:
    return Diagnostic(message, code="build.no-program", span=span, hints=hints)


def _exec_form(name: str, text: str) -> str:
    words = shlex.split(text) if _PLAIN.fullmatch(text) else []
    shown = ", ".join(f'"{word}"' for word in words) or '"program", "argument"'
    return f"write it so that it needs no shell: `{name}{' CMD' if name == 'HEALTHCHECK' else ''} [{shown}]`"


def _folders(config: ContainerConfig) -> list[str]:
    path = dict(pair.partition("=")[::2] for pair in config.env).get("PATH", DEFAULT_PATH)
    return [folder for folder in path.split(":") if folder.startswith("/")]


def _place(path: str, config: ContainerConfig, tree: Tree) -> bytes:
    whole = path if path.startswith("/") else f"{config.working_dir}/{path}"
    return tree.resolve(
        "/".join(part for part in whole.split("/") if part != ".").encode("utf-8", "surrogateescape").strip(b"/")
    )


def _state(program: str, config: ContainerConfig, tree: Tree) -> str:
    """`missing`, `directory`, `not-executable`, or empty when it may start."""
    paths = [program] if "/" in program else [f"{folder}/{program}" for folder in _folders(config)]
    worst = "missing"
    for path in paths:
        try:
            entry = tree.lookup(_place(path, config, tree))
        except AerogelError:
            continue
        if entry is None:
            continue
        if entry.kind == DIR:
            worst = "directory" if "/" in program else worst
        elif entry.mode & 0o111:
            return ""
        else:
            worst = "not-executable"
    return worst


def _instead(program: str, config: ContainerConfig, tree: Tree) -> str:
    """What was most likely meant."""
    base = program.rpartition("/")[2]
    folders = [program.rpartition("/")[0] or "/", *_folders(config)] if "/" in program else _folders(config)
    names: dict[str, str] = {}
    for folder in folders:
        try:
            inside = tree.children(_place(folder, config, tree))
        except AerogelError:
            continue
        for each in inside:
            name = each.decode("utf-8", "replace")
            names.setdefault(name, f"{folder.rstrip('/')}/{name}" if "/" in program else name)
    near = base if base in names else nearest(base, names)
    if near is not None:
        return f"did you mean `{names[near]}`?"
    return (
        f"copy it into the last stage, for example `COPY --from=STAGE {program if '/' in program else '/' + program} /`"
    )
