"""What can be asked of a Dockerfile without building it: its targets, and what one of them takes from outside.

Pure. The JSON forms are BuildKit's of `--call=targets` and `--call=outline` (frontend/subrequests), places too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

from aerogel.dockerfile import ast, mounts
from aerogel.errors import AerogelError, Span
from aerogel.graph.scope import Scope
from aerogel.graph.stages import Plan, SourceRef, StageRef

__all__ = [
    "Location",
    "Outline",
    "OutlineArg",
    "OutlineCache",
    "OutlineNeed",
    "Position",
    "Range",
    "Target",
    "Targets",
    "outline",
    "targets",
]


class Position(msgspec.Struct, frozen=True):
    """A line, counted from 1."""

    line: int


class Range(msgspec.Struct, frozen=True):
    """From the first line to the last."""

    start: Position
    end: Position


class Location(msgspec.Struct, frozen=True):
    """Where an instruction stands."""

    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, span: Span) -> Location:
        return cls((Range(Position(span.line), Position(span.end_line)),))

    @property
    def line(self) -> int:
        """The first line."""
        return self.ranges[0].start.line


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stage as `--target` takes it. `base` is what it starts from, as written; `location` is that of its FROM."""

    name: str = ""
    default: bool = False
    description: str = ""
    base: str = ""
    platform: str = ""
    location: Location | None = None


class Targets(msgspec.Struct, frozen=True):
    """All stages in the order of the file; `sources` has its text."""

    targets: tuple[Target, ...]
    sources: tuple[bytes, ...]


class OutlineArg(msgspec.Struct, frozen=True, omit_defaults=True):
    """A build argument: the value that it has in this build, what the comment above it says."""

    name: str
    description: str = ""
    value: str = ""
    location: Location | None = None


class OutlineNeed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secret or ssh agent that a RUN mounts."""

    name: str
    required: bool = False
    location: Location | None = None


class OutlineCache(msgspec.Struct, frozen=True, omit_defaults=True):
    """A cache that a RUN mounts, by its id."""

    id: str = msgspec.field(name="ID")
    location: Location | None = None


class Outline(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a target takes: of all stages that it needs; `sources` has the text of the file."""

    name: str = ""
    description: str = ""
    args: tuple[OutlineArg, ...] = ()
    secrets: tuple[OutlineNeed, ...] = ()
    ssh: tuple[OutlineNeed, ...] = ()
    cache: tuple[OutlineCache, ...] = ()
    sources: tuple[bytes, ...] = ()


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
                location=Location.of(stage.origin.span),
            )
            for index, stage in enumerate(dockerfile.stages)
        ),
        (dockerfile.source.data,),
    )


def _no_environment(ref: SourceRef, platform: str) -> Mapping[str, str]:
    del ref, platform
    return {}


def outline(
    plan: Plan,
    dockerfile: ast.Dockerfile,
    environment: Callable[[SourceRef, str], Mapping[str, str]] = _no_environment,
) -> Outline:
    """What the plan's target takes. `environment` is that of images by reference and platform, as far as it is known.

    Raises AerogelError for words that cannot be expanded.
    """
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
        if isinstance(base, StageRef):
            scope = scopes[base.index].child()
        else:
            scope = plan.globals.stage(environment(base, planned.platform))
        scopes[planned.index] = scope
        for it in planned.instructions:
            # What the base brings along stands nowhere in this file.
            span = it.span if it.span.source is dockerfile.source else planned.stage.origin.span
            if isinstance(it, ast.Arg):
                for item in it.items:
                    value = scope.declare(item.name.text, item.value)
                    known = args.get(item.name.text)
                    if known is None or not known.description:
                        about = item.description or (known.description if known else "")
                        args[item.name.text] = _arg(item.name.text, value, about, span)
            elif isinstance(it, ast.Env):
                for pair in it.pairs:
                    scope.set(scope.expand(pair.key), scope.expand(pair.value))
            elif isinstance(it, ast.Run):
                for mount in _mounts(it, scope):
                    place = Location.of(span)
                    if isinstance(mount, mounts.SecretMount):
                        secrets[mount.id] = _need(secrets.get(mount.id), mount.id, place, is_required=mount.required)
                    elif isinstance(mount, mounts.SshMount):
                        ssh[mount.id] = _need(ssh.get(mount.id), mount.id, place, is_required=mount.required)
                    elif isinstance(mount, mounts.CacheMount):
                        cache.setdefault(mount.id, OutlineCache(mount.id, place))
    return Outline(
        name=plan.target.stage.name,
        description=plan.target.stage.description,
        args=tuple(sorted(args.values(), key=_line)),
        secrets=tuple(sorted(secrets.values(), key=_line)),
        ssh=tuple(sorted(ssh.values(), key=_line)),
        cache=tuple(sorted(cache.values(), key=_line)),
        sources=(dockerfile.source.data,),
    )


def _line(each: OutlineArg | OutlineNeed | OutlineCache) -> int:
    return each.location.line if each.location is not None else 0


def _mounts(it: ast.Run, scope: Scope) -> Iterator[mounts.Mount]:
    for written in it.mounts:
        try:
            yield mounts.resolve(written, scope.expand)
        except AerogelError as error:
            if error.span is None:
                error.span = written.span
            raise


def _arg(name: str, value: str | None, description: str, span: Span) -> OutlineArg:
    return OutlineArg(name=name, value=value or "", description=description, location=Location.of(span))


def _need(known: OutlineNeed | None, name: str, place: Location, *, is_required: bool) -> OutlineNeed:
    """One secret that several steps use is required if one of them requires it."""
    if known is None:
        return OutlineNeed(name=name, required=is_required, location=place)
    return OutlineNeed(name=name, required=known.required or is_required, location=known.location)


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
