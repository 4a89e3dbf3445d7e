"""Which stages a build needs, what each one starts from, and what its instructions read from elsewhere.

Pure. Names are resolved as BuildKit does: `FROM` sees earlier stages only, `COPY --from` and `RUN --mount=from=`
see every stage by name and earlier ones by number; a named context wins over a stage of that name and over an
image reference, and `scratch` is neither.

Spec: notes of the Dockerfile reference, FROM and COPY --from.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping

import msgspec

from aerogel.dockerfile import ast
from aerogel.dockerfile.parse import parse
from aerogel.errors import AerogelError, Source, nearest
from aerogel.graph.request import Request
from aerogel.graph.scope import Scope
from aerogel.oci.platform import Platform

__all__ = ["ContextRef", "ImageRef", "Plan", "PlannedStage", "ScratchRef", "SourceRef", "StageRef", "Triggers", "plan"]


class StageRef(msgspec.Struct, frozen=True):
    """Another stage of the same Dockerfile, by index."""

    index: int


class ContextRef(msgspec.Struct, frozen=True):
    """A named context (`--build-context`), by name."""

    name: str


class ImageRef(msgspec.Struct, frozen=True):
    """An image reference as written, after expansion."""

    name: str


class ScratchRef(msgspec.Struct, frozen=True):
    """The empty root file system."""


SourceRef = StageRef | ContextRef | ImageRef | ScratchRef


Triggers = Mapping[tuple[SourceRef, str], tuple[str, ...]]
"""The ONBUILD texts of images and contexts, by reference and platform."""


class PlannedStage(msgspec.Struct, frozen=True):
    """A reachable stage: what it starts from and, for a platform given with `FROM --platform`, which.

    `triggers` are the ONBUILD instructions of its base.
    """

    index: int
    stage: ast.Stage
    base: SourceRef
    platform: str
    triggers: tuple[ast.Instruction, ...] = ()

    @property
    def instructions(self) -> tuple[ast.Instruction, ...]:
        """All that is done in the stage: those of the base's ONBUILD, then its own.

        A named context that has the name of the stage stands for all of it.
        """
        if isinstance(self.base, ContextRef) and self.base.name.partition("::")[0] == self.stage.name:
            return ()
        return self.triggers + self.stage.instructions

    @property
    def name(self) -> str:
        return self.stage.name or f"stage-{self.index}"


class Plan(msgspec.Struct, frozen=True):
    """The reachable stages, dependencies first, and the variables of the part before the first FROM."""

    stages: tuple[PlannedStage, ...]
    target: PlannedStage
    globals: Scope
    names: Mapping[str, int]
    request: Request

    def source(self, word: ast.Word, planned: PlannedStage) -> SourceRef:
        """What the value of `COPY --from` or `from=` of a mount names."""
        return _source(word, planned.index, self.names, self.request.contexts, planned.platform)


def plan(dockerfile: ast.Dockerfile, request: Request, triggers: Triggers | None = None) -> Plan:
    """Resolves the target and everything it needs.

    `triggers` are those of the images that a former plan named: what their instructions read is planned as well.
    Raises AerogelError `graph.no-such-stage`, `graph.cycle`, `graph.blank-base`, `graph.bad-platform`.
    """
    numbers: dict[str, list[int]] = {}
    for index, stage in enumerate(dockerfile.stages):
        if stage.name:
            numbers.setdefault(stage.name, []).append(index)
    names = {name: found[-1] for name, found in numbers.items()}
    target = _target(dockerfile, request.target, names)
    scope = Scope.globals(request, dockerfile, dockerfile.stages[target].name or "default")
    planned: dict[int, PlannedStage] = {}
    needs: dict[int, list[tuple[int, ast.Word]]] = {}
    todo = [target]
    while todo:
        index = todo.pop()
        if index in planned:
            continue
        stage = dockerfile.stages[index]
        platform = _platform(stage, scope, request)
        base = _base(stage, index, scope, request.contexts, numbers, platform)
        own = _triggers(dockerfile, base, platform, triggers or {})
        planned[index] = PlannedStage(index=index, stage=stage, base=base, platform=platform, triggers=own)
        needs[index] = list(_needs(planned[index], names, request.contexts))
        todo += [other for other, _ in needs[index]]
    order = _order(target, needs, dockerfile)
    return Plan(
        stages=tuple(planned[index] for index in order),
        target=planned[target],
        globals=scope,
        names=names,
        request=request,
    )


def _target(dockerfile: ast.Dockerfile, target: str, names: Mapping[str, int]) -> int:
    if not target:
        return len(dockerfile.stages) - 1
    if target.lower() in names:
        return names[target.lower()]
    guess = nearest(target, names)
    known = ", ".join(f"`{name}`" for name in names) or "none has a name"
    raise AerogelError(
        f"no stage is named `{target}`",
        code="graph.no-such-stage",
        hints=[f"did you mean `{guess}`?" if guess else f"stages of `{dockerfile.source.name}`: {known}"],
    )


def _base(
    stage: ast.Stage,
    index: int,
    scope: Scope,
    contexts: frozenset[str],
    numbers: Mapping[str, list[int]],
    platform: str,
) -> SourceRef:
    """What a stage starts from; `numbers` are the places of the stages of each name."""
    name = scope.expand(stage.base)
    if not name:
        raise AerogelError(
            f"the base of this stage is empty: `{stage.base.text}` expands to nothing",
            code="graph.blank-base",
            span=stage.base.span,
            hints=["give the ARG a default before the first FROM, or set it with `--build-arg`"],
        )
    if name == "scratch":
        return ScratchRef()
    if stage.name and (context := _context(stage.name, contexts, platform)):
        return ContextRef(context)
    same = numbers.get(name.lower(), ())
    before = bisect.bisect_left(same, index)
    if before:
        return StageRef(same[before - 1])
    context = _context(name, contexts, platform)
    return ContextRef(context) if context else ImageRef(name)


def _triggers(
    dockerfile: ast.Dockerfile, base: SourceRef, platform: str, given: Triggers
) -> tuple[ast.Instruction, ...]:
    """Those of a stage stand in the file; those of an image are parsed, and their places are in their own text."""
    if isinstance(base, StageRef):
        own = dockerfile.stages[base.index].instructions
        return tuple(it.instruction for it in own if isinstance(it, ast.Onbuild))
    found: list[ast.Instruction] = []
    for text in given.get((base, platform), ()):
        name = base.name if isinstance(base, ImageRef | ContextRef) else "scratch"
        source = Source(f"ONBUILD of {name}", b"FROM scratch\n" + text.encode("utf-8", "surrogateescape"))
        found += parse(source).stages[0].instructions
    return tuple(found)


def _context(name: str, contexts: frozenset[str], platform: str) -> str:
    """The named context that stands for a stage or an image: by its name, or with the tag `latest` spelt out.

    `name::os/architecture` stands for it on that platform only, and comes first.
    """
    if not contexts:
        return ""
    for candidate in (name, name.removesuffix(":latest"), f"{name}:latest"):
        for wanted in (f"{candidate}::{platform}", candidate):
            if wanted in contexts:
                return wanted
    return ""


def _platform(stage: ast.Stage, scope: Scope, request: Request) -> str:
    if stage.platform is None:
        return request.platform
    value = scope.expand(stage.platform)
    if not value:
        raise AerogelError(
            f"the platform of this stage is empty: `{stage.platform.text}` expands to nothing",
            code="graph.bad-platform",
            span=stage.platform.span,
            hints=["write `os/architecture`, such as `linux/amd64`, or a variable such as `$BUILDPLATFORM`"],
        )
    try:
        return str(Platform.parse(value))
    except AerogelError as error:
        error.span = stage.platform.span
        raise


def _sources(instructions: tuple[ast.Instruction, ...]) -> Iterator[ast.Word]:
    """The `--from` and `from=` words of a stage."""
    for instruction in instructions:
        if isinstance(instruction, ast.Copy) and instruction.from_ is not None:
            yield instruction.from_
        elif isinstance(instruction, ast.Run):
            for mount in instruction.mounts:
                for option in mount.options:
                    if option.key == "from" and option.value is not None:
                        yield option.value


def _source(word: ast.Word, index: int, names: Mapping[str, int], contexts: frozenset[str], platform: str) -> SourceRef:
    name = word.text
    lower = name.lower()
    if lower in names:
        context = _context(lower, contexts, platform)
        return ContextRef(context) if context else StageRef(names[lower])
    if name.isdecimal() and int(name) < index:
        return StageRef(int(name))
    if name.isdecimal():
        raise AerogelError(
            f"there is no stage number {name} before this one",
            code="graph.no-such-stage",
            span=word.span,
            hints=[_numbers(index)],
        )
    if lower == "scratch":
        return ScratchRef()
    context = _context(name, contexts, platform)
    return ContextRef(context) if context else ImageRef(name)


def _numbers(index: int) -> str:
    if index < 2:
        return "the only earlier stage has number 0" if index else "this is the first stage"
    return f"earlier stages are numbered 0 to {index - 1}"


def _needs(planned: PlannedStage, names: Mapping[str, int], contexts: frozenset[str]) -> Iterator[tuple[int, ast.Word]]:
    if isinstance(planned.base, StageRef):
        yield planned.base.index, planned.stage.base
    for word in _sources(planned.instructions):
        ref = _source(word, planned.index, names, contexts, planned.platform)
        if isinstance(ref, StageRef):
            yield ref.index, word


def _order(target: int, needs: Mapping[int, list[tuple[int, ast.Word]]], dockerfile: ast.Dockerfile) -> list[int]:
    """Dependencies first; raises `graph.cycle` at the word that closes a circle. Iterative: stages may be many."""
    order: list[int] = []
    state: dict[int, int] = {target: 1}
    path: list[tuple[int, Iterator[tuple[int, ast.Word]]]] = [(target, iter(needs[target]))]
    while path:
        index, rest = path[-1]
        for other, word in rest:
            if state.get(other) == 1:
                circle = [i for i, _ in path][[i for i, _ in path].index(other) :]
                names = [dockerfile.stages[i].name or f"stage {i}" for i in [*circle, other]]
                raise AerogelError(
                    "stages need each other in a circle: " + " -> ".join(f"`{name}`" for name in names),
                    code="graph.cycle",
                    span=word.span,
                    hints=["move what both need into a stage of its own"],
                )
            if other not in state:
                state[other] = 1
                path.append((other, iter(needs[other])))
                break
        else:
            state[index] = 2
            order.append(index)
            path.pop()
    return order
