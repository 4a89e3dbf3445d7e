"""The time of everything that a build makes: SOURCE_DATE_EPOCH in all its forms.

A number of seconds since 1970; `context`, a named context or the name of a stage, which stand for the time of that
source: of the commit, of the last modification behind the URL, of the newest file in the tar. A folder of the host
has no time that means anything, so it leaves the argument unset; its git repository has one, which is the date of
images without the argument. Given by `--build-arg`, the environment, or the
default of an ARG before the first FROM, in this order.

Spec: BuildKit's docs/build-repro.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from aerogel.commands.contexts import MAIN, Contexts
from aerogel.dockerfile import ast
from aerogel.errors import EXIT_USAGE, AerogelError, Span, nearest
from aerogel.graph.ops import Git, Http
from aerogel.graph.request import Request
from aerogel.graph.stages import ScratchRef, SourceRef, plan
from aerogel.graph.steps import BaseImage, lower
from aerogel.solve.remotes import Remotes
from aerogel.solve.times import COPIED_S

__all__ = ["ARG", "DEFAULT_EPOCH_S", "resolve_epoch"]

ARG = "SOURCE_DATE_EPOCH"

_MAX_EPOCH_S = 253402300799

DEFAULT_EPOCH_S = COPIED_S
"""1980-01-01T00:00:00Z: the date of images from a context without a repository."""


def resolve_epoch(
    dockerfile: ast.Dockerfile, request: Request, setting: int | None, contexts: Contexts, remotes: Remotes
) -> tuple[int, bool, Mapping[str, str]]:
    """The seconds since 1970, whether the argument says so, and the build arguments with it as a number, or empty when
    it stays unset.

    Without the argument the date is that of the newest commit of the context's repository, or else a fixed one; steps
    are told neither, so they need not run again for a new commit.

    Raises `build.bad-epoch`, and what reading the source raises.
    """
    given = dict(request.build_args)
    if setting is not None:
        given.setdefault(ARG, str(setting))
    span: Span | None = None
    text = given.get(ARG)
    if text is None:
        text, span = _default(dockerfile, msgspec.structs.replace(request, build_args=given))
    if not text:
        return _default_date(contexts), False, given
    if text.isascii() and text.isdecimal():
        if int(text) > _MAX_EPOCH_S:
            raise AerogelError(
                f"`{ARG}={text}` is after the year 9999",
                code="build.bad-epoch",
                span=span,
                exit_status=EXIT_USAGE,
                hints=["give seconds, not milliseconds, since 1970"],
            )
        return int(text), True, given
    found = _time_s(text, span, dockerfile, request, contexts, remotes)
    given[ARG] = "" if found is None else str(found)
    return _default_date(contexts) if found is None else found, found is not None, given


def _default_date(contexts: Contexts) -> int:
    found = contexts.commit_time_s()
    return DEFAULT_EPOCH_S if found is None else found


def _default(dockerfile: ast.Dockerfile, request: Request) -> tuple[str, Span | None]:
    """The default of a global ARG and its place."""
    words = [item.value for arg in dockerfile.args for item in arg.items if item.name.text == ARG and item.value]
    if not words:
        return "", None
    return plan(dockerfile, request).globals.values.get(ARG, ""), words[-1].span


def _time_s(
    name: str,
    span: Span | None,
    dockerfile: ast.Dockerfile,
    request: Request,
    contexts: Contexts,
    remotes: Remotes,
) -> int | None:
    if name == MAIN:
        return contexts.time_s(MAIN)
    if name.lower() in contexts.names:
        return contexts.time_s(name.lower())
    for stage in dockerfile.stages:
        if stage.name == name.lower():
            return _stage_time_s(stage, dockerfile, request, contexts, remotes)
    known = [MAIN, *sorted(contexts.names), *(stage.name for stage in dockerfile.stages if stage.name)]
    guess = nearest(name, known)
    raise AerogelError(
        f"`{ARG}={name}` is not a number of seconds since 1970",
        code="build.bad-epoch",
        span=span,
        exit_status=EXIT_USAGE,
        hints=[
            f"did you mean `{guess}`?"
            if guess
            else f"for example the time of the last commit: `{ARG}=$(git log -1 --format=%ct)`, or `{ARG}=context`"
        ],
    )


def _stage_time_s(
    stage: ast.Stage, dockerfile: ast.Dockerfile, request: Request, contexts: Contexts, remotes: Remotes
) -> int | None:
    """The time of the one remote source of a stage that holds nothing else."""
    odd = [it for it in stage.instructions if not isinstance(it, ast.Arg | ast.Add)]
    adds = [it for it in stage.instructions if isinstance(it, ast.Add)]
    if odd or len(adds) != 1:
        raise _no_source(stage, odd[0].span if odd else stage.origin.span)
    arguments = {key: value for key, value in request.build_args.items() if key != ARG}
    its = msgspec.structs.replace(request, target=stage.name, build_args=arguments)
    planned = plan(dockerfile, its)
    if not isinstance(planned.target.base, ScratchRef):
        raise _no_source(stage, stage.base.span)
    remote = [side.op for side in lower(planned, _nothing).target.node.inputs[1:] if isinstance(side.op, Http | Git)]
    if len(remote) != 1 or len(adds[0].sources) + len(adds[0].heredocs) != 1:
        raise _no_source(stage, adds[0].span)
    try:
        time_s = remotes.time_s(remote[0])
        if time_s is None and isinstance(remote[0], Http):
            time_s = contexts.newest_in(remotes.fetched(remote[0]).path)
    except AerogelError as error:
        if error.span is None:
            error.span = adds[0].span
        raise
    return time_s


def _nothing(ref: SourceRef, platform: str, span: Span) -> BaseImage:
    raise AssertionError(f"a stage from scratch asked for {ref!r} ({platform}) at {span.line}")


def _no_source(stage: ast.Stage, span: Span) -> AerogelError:
    return AerogelError(
        f"stage `{stage.name}` cannot give `{ARG}`",
        code="build.bad-epoch",
        span=span,
        hints=["it must be `FROM scratch` and one ADD of one URL or git repository, beside ARG"],
    )
