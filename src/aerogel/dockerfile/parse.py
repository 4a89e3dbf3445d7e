"""From a source to a `Dockerfile`, or to all its faults at once.

The grammar of lines is in `syntax` and `split`, that of instructions in `instructions`. Here stands what concerns
the file: directives, stages, and what may come before the first FROM.

Spec: BuildKit's frontend 1.26 with its labs features.
"""

from __future__ import annotations

from aerogel.dockerfile.ast import Arg, Dockerfile, From, Instruction, Stage
from aerogel.dockerfile.instructions import Context, build, describe
from aerogel.dockerfile.split import Split, read_heredocs, split
from aerogel.dockerfile.syntax import Line, Reader, is_utf16
from aerogel.errors import AerogelError, Faults, Source, Span

__all__ = ["parse"]


def parse(source: Source) -> Dockerfile:
    """Parse a Dockerfile.

    Raises:
        Faults: with every independent fault, in the order of the source; each has a code that begins with
            `dockerfile.` and a span.
    """
    faults: list[AerogelError] = []
    try:
        result = _parse(source, faults)
    except AerogelError as error:
        raise Faults([*faults, error]) from None
    if faults:
        raise Faults(sorted(faults, key=lambda fault: fault.span.start if fault.span else 0))
    return result


def _parse(source: Source, faults: list[AerogelError]) -> Dockerfile:
    if not source.data.strip():
        raise AerogelError(
            "the Dockerfile is empty",
            code="dockerfile.empty",
            span=Span(source, 0, 0),
            hints=["a stage begins with `FROM image`"],
        )
    zero = source.data.find(b"\0")
    if zero >= 0 and not is_utf16(source.data):
        raise AerogelError(
            "a NUL byte cannot be in a Dockerfile",
            code="dockerfile.nul",
            span=Span(source, zero, zero + 1),
            hints=["is this a binary file, or one in UTF-16? A Dockerfile is UTF-8 text"],
        )
    reader = Reader(source, faults)
    args: list[Arg] = []
    stages: list[_OpenStage] = []
    reported = broken = False
    count = 0
    while (line := reader.next()) is not None:
        count += 1
        instruction, name = _instruction(line, reader, faults)
        broken = broken or (name == "from" and instruction is None)
        if isinstance(instruction, From):
            stages.append(_OpenStage(instruction))
        elif instruction is None:
            continue
        elif stages:
            stages[-1].add(instruction)
        elif isinstance(instruction, Arg):
            args.append(instruction)
        elif not reported and not broken:
            reported = True
            faults.append(
                AerogelError(
                    f"{name.upper()} stands before the first FROM",
                    code="dockerfile.before-from",
                    span=instruction.keyword.span,
                    hints=["only ARG may come before the first FROM"],
                )
            )
    if not stages and not faults:
        faults.append(_without_stages(source, count))
    return Dockerfile(source, reader.directives, tuple(args), tuple(stage.close() for stage in stages))


class _OpenStage:
    """A stage that still takes instructions."""

    __slots__ = ("instructions", "origin")

    def __init__(self, origin: From) -> None:
        self.origin = origin
        self.instructions: list[Instruction] = []

    def add(self, instruction: Instruction) -> None:
        self.instructions.append(instruction)

    def close(self) -> Stage:
        origin = self.origin
        name = origin.name.text.lower() if origin.name else ""
        last = self.instructions[-1] if self.instructions else origin
        return Stage(
            name=name,
            base=origin.base,
            platform=origin.platform,
            instructions=tuple(self.instructions),
            span=Span(origin.span.source, origin.span.start, last.span.end),
            description=describe(origin.comments, name),
            origin=origin,
        )


def _instruction(line: Line, reader: Reader, faults: list[AerogelError]) -> tuple[Instruction | None, str]:
    """The instruction of a line, and its keyword in lower case."""
    escape = reader.directives.escape
    try:
        parts = split(line, escape)
        read_heredocs(parts, reader)
    except AerogelError as error:
        faults.append(error)
        return None, line.text.partition(" ")[0].lower()
    return build(parts, _span(parts, reader), Context(faults, escape)), parts.name


def _span(parts: Split, reader: Reader) -> Span:
    inner = parts.child or parts
    if inner.heredocs:
        return Span(reader.source, parts.keyword.span.start, inner.heredocs[-1].terminator.end)
    whole = parts.line.span(0, len(parts.line.text))
    return Span(reader.source, parts.keyword.span.start, whole.end)


def _without_stages(source: Source, count: int) -> AerogelError:
    if count == 0:
        message, code = "the Dockerfile has only comments", "dockerfile.empty"
    else:
        message, code = "the Dockerfile has no FROM", "dockerfile.no-stages"
    return AerogelError(message, code=code, span=Span(source, 0, 0), hints=["a stage begins with `FROM image`"])
