"""What can be asked of a Dockerfile without building it: its targets, and what one of them takes from outside.

Pure. The names of the JSON forms are BuildKit's of `--call=targets` and `--call=outline` (frontend/subrequests).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from aerogel.dockerfile import ast, mounts
from aerogel.errors import AerogelError, Span
from aerogel.graph.scope import Scope
from aerogel.graph.stages import Plan, StageRef

__all__ = ["Outline", "OutlineArg", "OutlineCache", "OutlineNeed", "Target", "Targets", "outline", "targets"]


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stage as `--target` takes it. `base` is what it starts from, as written; `line` is that of its FROM."""

    name: str = ""
    default: bool = False
    description: str = ""
    base: str = ""
    platform: str = ""
    line: int = 0


class Targets(msgspec.Struct, frozen=True):
    """All stages in the order of the file."""

    targets: tuple[Target, ...]


class OutlineArg(msgspec.Struct, frozen=True, omit_defaults=True):
    """A build argument: the value that it has in this build, what the comment above it says, its line."""

    name: str
    value: str = ""
    description: str = ""
    line: int = 0


class OutlineNeed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secret or ssh agent that a RUN mounts."""

    name: str
    required: bool = False
    line: int = 0


class OutlineCache(msgspec.Struct, frozen=True, omit_defaults=True):
    """A cache that a RUN mounts, by its id."""

    id: str
    line: int = 0


class Outline(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a target takes: of all stages that it needs."""

    name: str = ""
    description: str = ""
    args: tuple[OutlineArg, ...] = ()
    secrets: tuple[OutlineNeed, ...] = ()
    ssh: tuple[OutlineNeed, ...] = ()
    cache: tuple[OutlineCache, ...] = ()


def targets(dockerfile: ast.Dockerfile) -> Targets:
    """The stages; the last one is the default."""
    last = len(dockerfile.stages) - 1
    return Targets(
        tuple(
            Target(
                name=stage.name,
                default=index == last,
                description=stage.description,
                base=stage.base.text,
                platform=stage.platform.text if stage.platform is not None else "",
                line=stage.origin.span.line,
            )
            for index, stage in enumerate(dockerfile.stages)
        )
    )


def outline(plan: Plan, dockerfile: ast.Dockerfile) -> Outline:
    """What the plan's target takes. Raises AerogelError for words that cannot be expanded."""
    args: dict[str, OutlineArg] = {}
    wanted = _used_globals(plan, dockerfile)
    for arg in dockerfile.args:
        for item in arg.items:
            name = item.name.text
            if name in wanted:
                args[name] = _arg(name, plan.globals.values.get(name), item.description, arg.span)
    secrets: dict[str, OutlineNeed] = {}
    ssh: dict[str, OutlineNeed] = {}
    cache: dict[str, OutlineCache] = {}
    scopes: dict[int, Scope] = {}
    for planned in plan.stages:
        base = planned.base
        scope = scopes[base.index].child() if isinstance(base, StageRef) else plan.globals.stage({})
        scopes[planned.index] = scope
        for it in planned.instructions:
            if isinstance(it, ast.Arg):
                for item in it.items:
                    value = scope.declare(scope.expand(item.name), item.value)
                    known = args.get(item.name.text)
                    if known is None or not known.description:
                        about = item.description or (known.description if known else "")
                        args[item.name.text] = _arg(item.name.text, value, about, it.span)
            elif isinstance(it, ast.Env):
                for pair in it.pairs:
                    scope.set(scope.expand(pair.key), scope.expand(pair.value))
            elif isinstance(it, ast.Run):
                for mount in _mounts(it, scope):
                    line = it.span.line
                    if isinstance(mount, mounts.SecretMount):
                        secrets[mount.id] = _need(secrets.get(mount.id), mount.id, line, is_required=mount.required)
                    elif isinstance(mount, mounts.SshMount):
                        ssh[mount.id] = _need(ssh.get(mount.id), mount.id, line, is_required=mount.required)
                    elif isinstance(mount, mounts.CacheMount):
                        cache.setdefault(mount.id, OutlineCache(mount.id, line))
    return Outline(
        name=plan.target.stage.name,
        description=plan.target.stage.description,
        args=tuple(sorted(args.values(), key=lambda each: each.line)),
        secrets=tuple(sorted(secrets.values(), key=lambda each: each.line)),
        ssh=tuple(sorted(ssh.values(), key=lambda each: each.line)),
        cache=tuple(sorted(cache.values(), key=lambda each: each.line)),
    )


def _mounts(it: ast.Run, scope: Scope) -> Iterator[mounts.Mount]:
    for written in it.mounts:
        try:
            yield mounts.resolve(written, scope.expand)
        except AerogelError as error:
            if error.span is None:
                error.span = written.span
            raise


def _arg(name: str, value: str | None, description: str, span: Span) -> OutlineArg:
    return OutlineArg(name=name, value=value or "", description=description, line=span.line)


def _need(known: OutlineNeed | None, name: str, line: int, *, is_required: bool) -> OutlineNeed:
    """One secret that several steps use is required if one of them requires it."""
    if known is None:
        return OutlineNeed(name=name, required=is_required, line=line)
    return OutlineNeed(name=name, required=known.required or is_required, line=known.line)


def _used_globals(plan: Plan, dockerfile: ast.Dockerfile) -> set[str]:
    """The global arguments that the needed FROM lines and ARGs use, directly or by the default of another one."""
    defaults = {item.name.text: item.value.text if item.value else "" for arg in dockerfile.args for item in arg.items}
    texts = [
        word.text
        for planned in plan.stages
        for word in (planned.stage.base, planned.stage.platform)
        if word is not None
    ]
    todo = {
        item.name.text
        for planned in plan.stages
        for it in planned.instructions
        if isinstance(it, ast.Arg)
        for item in it.items
        if item.value is None
    }
    for text in texts:
        todo |= _names(text)
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name in defaults and name not in found:
            found.add(name)
            todo |= _names(defaults[name])
    return found


def _names(text: str) -> set[str]:
    return set(re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", text))
