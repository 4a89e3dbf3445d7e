"""Whether an image can start what its ENTRYPOINT, CMD and HEALTHCHECK name: the commonest mistake with small images.

Found from the indexes of layers and the first bytes of the program, when they are at hand. Only what the Dockerfile
itself says is judged: an image may inherit a CMD that nobody uses.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from aerogel.commands.health_words import probe_words
from aerogel.dockerfile import ast
from aerogel.errors import AerogelError, Diagnostic, Span, nearest
from aerogel.export.image import Finished
from aerogel.files.entry import DIR, REG
from aerogel.files.tree import LayerTree
from aerogel.graph.stages import Plan, PlannedStage, StageRef
from aerogel.oci.digest import Digest
from aerogel.oci.types import ContainerConfig
from aerogel.sandbox.program import HEAD_BYTES, Program, read_program
from aerogel.sandbox.spec import DEFAULT_PATH
from aerogel.solve.materials import Materials
from aerogel.solve.peek import has_indexes, peek

__all__ = ["instructions_of", "missing_programs", "start_fault", "started_paths"]

_PLAIN = re.compile(r"[\w@%+=:,./ -]+")
"""A shell command line that is nothing but words."""

_Starting = ast.Cmd | ast.Entrypoint | ast.Healthcheck


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "arm": "arm", "riscv64": "riscv64", "s390x": "s390x"}
"""What images call the machines for which a wrong program is told; ppc64le comes in two byte orders."""

_SHELLS = ("sh", "bash", "dash", "ash")
_FLAG = re.compile(r"--[a-z-]+=\S+")
_PYTHON = re.compile(r"python[0-9.]*")
_RUNTIME = re.compile(r"python[0-9.]*|node|java|ruby[0-9.]*|perl|php[0-9.]*")
"""Programs that take the name of another one as their first argument."""


class _Image(NamedTuple):
    """A finished image, to be asked for its programs."""

    config: ContainerConfig
    architecture: str
    tree: LayerTree
    materials: Materials
    layers: Sequence[Digest]

    def head(self, place: bytes) -> bytes:
        """The first bytes of a file; nothing when they are not at hand."""
        origin = self.tree.origin(place)
        if origin is None or origin.entry.kind != REG:
            return b""
        wanted = min(origin.entry.size, HEAD_BYTES)
        return peek(self.materials, self.layers[origin.layer], origin.offset, wanted)


def missing_programs(plan: Plan, finished: Finished, materials: Materials) -> list[Diagnostic]:
    """A remark for each program that the image names and does not have, or cannot run."""
    layers = finished.layers
    if not has_indexes(materials, layers):
        return []
    last: dict[type, _Starting] = {}
    for each in instructions_of(plan):
        if isinstance(each, _Starting):
            last[type(each)] = each
    config = finished.config.config
    judged = [last.get(ast.Entrypoint if config.entrypoint else ast.Cmd), last.get(ast.Healthcheck)]
    given = last.get(ast.Cmd) if config.entrypoint and config.cmd else None
    if not any(judged) and given is None:
        return []
    image = _Image(config, finished.config.architecture, materials.tree(layers), materials, layers)
    found = [_judged(each, image) for each in judged if each is not None]
    if isinstance(given, ast.Cmd):
        found.append(_as_arguments(given, image))
    return [remark for remark in found if remark is not None]


def start_fault(
    config: ContainerConfig, architecture: str, layers: Sequence[Digest], materials: Materials
) -> tuple[str, ...] | None:
    """Why the program that a container of this config starts will not, and hints; None when nothing is known."""
    words = config.entrypoint or config.cmd
    if not words:
        return "the image names no command", "put one after the image's name, or give the image a CMD"
    image = _Image(config, architecture, materials.tree(layers), materials, layers)
    return _fault("ENTRYPOINT" if config.entrypoint else "CMD", words[0], image)


def instructions_of(plan: Plan) -> tuple[ast.Instruction, ...]:
    """The instructions of the target and of the stages that it starts from, in order."""
    stages = {stage.index: stage for stage in plan.stages}
    found: tuple[ast.Instruction, ...] = ()
    current: PlannedStage | None = plan.target
    while current is not None:
        found = (*current.instructions, *found)
        current = stages.get(current.base.index) if isinstance(current.base, StageRef) else None
    return found


def started_paths(config: ContainerConfig, tree: LayerTree) -> frozenset[bytes]:
    """The program that a container starts, as a path of the tree; where there are several of its name, all."""
    words = config.entrypoint or config.cmd
    if not words:
        return frozenset()
    paths = [words[0]] if "/" in words[0] else [f"{folder}/{words[0]}" for folder in _folders(config)]
    found = set()
    for path in paths:
        whole = path if path.startswith("/") else f"{config.working_dir}/{path}"
        try:
            found.add(tree.resolve(whole.encode("utf-8", "surrogateescape").strip(b"/")))
        except AerogelError:  # a circle of links
            continue
    return frozenset(found)


def _judged(instruction: _Starting, image: _Image) -> Diagnostic | None:
    command = instruction.command
    name = {ast.Cmd: "CMD", ast.Entrypoint: "ENTRYPOINT", ast.Healthcheck: "HEALTHCHECK"}[type(instruction)]
    if isinstance(command, ast.ShellForm):
        shell = image.config.shell[0] if image.config.shell else "/bin/sh"
        if not command.text.strip() or _found(shell, image)[0] != "missing":
            return None
        message = f"{name} in this form needs the shell `{shell}`, which is not in the image"
        return _remark(message, command.span, _without_shell(name, command.text, _flags(instruction), image))
    if command is None or not command.words:
        return None
    program = command.words[0]
    fault = _fault(name, program.text, image)
    if fault and name == "HEALTHCHECK" and (words := probe_words(shlex.join(w.text for w in command.words))):
        return _remark(
            f"{fault[0]}, so {name} cannot start it", program.span, _by_probe(words, _flags(instruction), image)
        )
    return _remark(f"{fault[0]}, so {name} cannot start it", program.span, fault[1:]) if fault else None


def _as_arguments(instruction: ast.Cmd, image: _Image) -> Diagnostic | None:
    """What is wrong with a CMD that an ENTRYPOINT gets, often one of the base that its author does not know of."""
    command, first = instruction.command, image.config.entrypoint[0]
    if isinstance(command, ast.ShellForm):
        shell = image.config.shell[0] if image.config.shell else "/bin/sh"
        if not command.text.strip() or _found(shell, image)[0] != "missing":
            return None
        message = f"CMD in this form gives `{shell}` to `{first}` of ENTRYPOINT, and `{shell}` is not in the image"
        words = shlex.split(command.text) if _PLAIN.fullmatch(command.text) else []
        rest = _behind_entrypoint(words, image)
        return _remark(message, command.span, [_exec_form("CMD", words if rest is None else rest)])
    words = [word.text for word in command.words] if command is not None else []
    rest = _behind_entrypoint(words, image)
    if command is None or rest is None:
        return None
    shown = ", ".join(f'"{word}"' for word in rest)
    message = f"ENTRYPOINT starts `{first}` already, which takes `{words[0]}` of CMD for what it is to run"
    return _remark(message, command.words[0].span, [f"write `CMD [{shown}]`"])


def _behind_entrypoint(words: Sequence[str], image: _Image) -> list[str] | None:
    """The words of a CMD without the runtime that ENTRYPOINT starts; None when they do not begin with it."""
    first, *options = image.config.entrypoint
    name = first.rpartition("/")[2]
    if not words or not _RUNTIME.fullmatch(name) or not all(each.startswith("-") for each in options):
        return None
    state, place = _found(words[0], image)
    if state == "" and ("", place) != _found(first, image):
        return None
    if state != "" and words[0].rpartition("/")[2] != name:
        return None
    rest = list(words[1:])
    while rest and rest[0] in options:
        del rest[0]
    return rest


def _fault(name: str, program: str, image: _Image) -> tuple[str, ...] | None:
    """Why a program will not start, and hints; None when nothing is known against it."""
    state, place = _found(program, image)
    match state:
        case "missing":
            return f"`{program}` is not in the image", _instead(program, image)
        case "directory":
            return (f"`{program}` is a directory",)
        case "not-executable":
            hint = f'copy it with `COPY --chmod=755`, or name its interpreter: `{name} ["python3", "{program}"]`'
            return f"`{program}` is not executable", hint
    read = read_program(image.head(place))
    if read.kind == "elf":
        return _elf_fault(program, read, image)
    return _script_fault(name, program, read, image) if read.kind == "script" and read.interpreter else None


def _elf_fault(program: str, read: Program, image: _Image) -> tuple[str, ...] | None:
    machine = _MACHINES.get(read.machine)
    others = {"amd64": "386", "arm64": "arm"}
    known = image.architecture in _MACHINES.values() and machine is not None
    if known and machine not in (image.architecture, others.get(image.architecture)):
        hint = "build it for the platform of the image: after `ARG TARGETARCH` its stage knows `$TARGETARCH`"
        return f"`{program}` is built for {machine} and the image for {image.architecture}", hint
    if not read.interpreter.startswith("/") or _found(read.interpreter, image)[0] != "missing":
        return None
    static = "link it statically: `-static` for C and C++, `CGO_ENABLED=0` for Go, a musl target for Rust"
    base = "or start the last stage from `gcr.io/distroless/base`; C++ and Rust need `gcr.io/distroless/cc`"
    if "/ld-musl" in read.interpreter:
        base = "or build it in a stage from `debian`, and start the last stage from `gcr.io/distroless/base`"
    return f"`{program}` is linked dynamically and its loader `{read.interpreter}` is not in the image", static, base


def _script_fault(name: str, program: str, read: Program, image: _Image) -> tuple[str, ...] | None:
    wanted = read.interpreter
    if wanted.endswith("\r"):
        return f"the first line of `{program}` ends in a carriage return", "write it with Unix line ends"
    state = _found(wanted, image)[0]
    if state == "" and wanted.endswith("/env") and (word := _of_env(read.argument)):
        wanted = word
        state = _found(word, image)[0]
    if state != "missing":
        return None
    message = f"`{program}` is a script for `{wanted}`, which is not in the image"
    real = _of_env(read.argument) if wanted.endswith("/env") else wanted
    base = real.rpartition("/")[2]
    if base and _found(base, image)[0] == "":
        return message, f'name the interpreter: `{name} ["{base}", "{program}"]`'
    if base in _SHELLS:
        return message, "start the last stage from an image with a shell, such as `debian`, or start a program instead"
    if _PYTHON.fullmatch(base):
        return message, "start the last stage from `gcr.io/distroless/python3`"
    return message, f"start the last stage from an image with `{base or wanted}`"


def _of_env(argument: str) -> str:
    """The program that `#!/usr/bin/env` starts."""
    words = [word for word in argument.strip().removeprefix("-S").split() if "=" not in word]
    return "" if not words or words[0].startswith("-") else words[0]


def _without_shell(name: str, text: str, flags: str, image: _Image) -> list[str]:
    """What helps a command in shell form."""
    if name == "HEALTHCHECK" and (words := probe_words(text)) is not None:
        return _by_probe(words, flags, image)
    words = shlex.split(text) if _PLAIN.fullmatch(text) else []
    fault = _fault(name, words[0], image) if words else None
    if fault is not None:
        return [f"it would not start without a shell either: {fault[0]}", *fault[1:]]
    hints = [_exec_form(name, words)]
    if name != "ENTRYPOINT" or image.config.cmd:
        hints.append("or start from an image with a shell, such as `debian`")
    return hints


def _flags(instruction: _Starting) -> str:
    """The flags of a HEALTHCHECK as they are written, each with a blank before it."""
    return "".join(f" {flag}" for flag in _FLAG.findall(instruction.span.text.partition("CMD")[0]))


def _by_probe(words: Sequence[str], flags: str, image: _Image) -> list[str]:
    """The same check by the probe, which needs neither a shell nor another program."""
    shown = ", ".join(f'"{word}"' for word in words)
    hints = [f"write `HEALTHCHECK{flags} CMD [{shown}]`"]
    if _found(words[0], image)[0]:
        hints.append(f"and, in this stage, `COPY --from=aerogel/probe {words[0]} {words[0]}`")
    return hints


def _remark(message: str, span: Span, hints: Sequence[str]) -> Diagnostic:
    return Diagnostic(message, code="build.no-program", span=span, hints=hints)


def _exec_form(name: str, words: Sequence[str]) -> str:
    shown = ", ".join(f'"{word}"' for word in words) or '"program", "argument"'
    return f"write it so that it needs no shell: `{name}{' CMD' if name == 'HEALTHCHECK' else ''} [{shown}]`"


def _folders(config: ContainerConfig) -> list[str]:
    path = dict(pair.partition("=")[::2] for pair in config.env).get("PATH", DEFAULT_PATH)
    return [folder for folder in path.split(":") if folder.startswith("/")]


def _place(path: str, image: _Image) -> bytes:
    whole = path if path.startswith("/") else f"{image.config.working_dir}/{path}"
    return image.tree.resolve(
        "/".join(part for part in whole.split("/") if part != ".").encode("utf-8", "surrogateescape").strip(b"/")
    )


def _found(program: str, image: _Image) -> tuple[str, bytes]:
    """`missing`, `directory`, `not-executable`, or empty when it may start; and then its place in the tree."""
    paths = [program] if "/" in program else [f"{folder}/{program}" for folder in _folders(image.config)]
    worst = "missing"
    for path in paths:
        try:
            place = _place(path, image)
        except AerogelError:
            continue
        entry = image.tree.lookup(place)
        if entry is None:
            continue
        if entry.kind == DIR:
            worst = "directory" if "/" in program else worst
        elif entry.mode & 0o111:
            return "", place
        else:
            worst = "not-executable"
    return worst, b""


def _instead(program: str, image: _Image) -> str:
    """What was most likely meant."""
    base = program.rpartition("/")[2]
    folders = [program.rpartition("/")[0] or "/", *_folders(image.config)] if "/" in program else _folders(image.config)
    names: dict[str, str] = {}
    for folder in folders:
        try:
            inside = image.tree.children(_place(folder, image))
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
