"""A Dockerfile in house form: the same tree, the same comments, tidy lines.

Keywords and `AS` in upper case, no indentation before a keyword, one blank after it, continued arguments indented by
four blanks where that cannot be seen by a command, no blanks at line ends, no empty lines inside an instruction, at
most one between instructions, line feeds only, one at the end. Text that a shell reads, what an ONBUILD puts in the
image, here-documents and comments stay as they are. Works by edits of the source, so that what is not mentioned here does not change.
"""

from __future__ import annotations

import bisect

import msgspec

from aerogel.dockerfile.ast import Dockerfile, ExecForm, From, Heredoc, Instruction, Onbuild, ShellForm
from aerogel.errors import Source, Span

__all__ = ["format_dockerfile", "shape"]

_BOM = b"\xef\xbb\xbf"
_INDENT = b"    "
_PLACES = ("span", "body_span", "terminator", "original", "blank", "source", "keyword", "connective", "syntax", "check")


def format_dockerfile(dockerfile: Dockerfile) -> bytes:
    """The text of the file in house form; parsing it gives the same `shape`."""
    return _Formatter(dockerfile).run()


def shape(value: object) -> object:
    """The tree without its places and without the case of keywords: equal for files that mean the same."""
    if isinstance(value, Span | Source):
        return None
    if isinstance(value, msgspec.Struct):
        fields = [shape(getattr(value, name)) for name in value.__struct_fields__ if name not in _PLACES]
        return (type(value).__name__, *fields)
    if isinstance(value, tuple):
        return tuple(shape(item) for item in value)
    return value


class _Formatter:
    def __init__(self, dockerfile: Dockerfile) -> None:
        self.dockerfile = dockerfile
        self.data = dockerfile.source.data
        self.starts = dockerfile.source.line_starts()
        self.escape = dockerfile.directives.escape.encode()
        self.edits: list[tuple[int, int, bytes]] = []

    def run(self) -> bytes:
        if self.data.startswith(_BOM):
            self.edits.append((0, len(_BOM), b""))
        number = 0
        for instruction in self.dockerfile.instructions():
            first = instruction.span.line - 1
            self.gap(number, first)
            number = self.instruction(instruction, first)
        self.gap(number, len(self.starts), last=True)
        out: list[bytes] = []
        at = 0
        for start, end, text in sorted(self.edits):
            out += (self.data[at:start], text)
            at = end
        out.append(self.data[at:])
        text = b"".join(out)
        return text if text.endswith(b"\n") else text + b"\n"

    def end_of(self, number: int) -> int:
        """Where a line ends, before its line feed."""
        return self.starts[number + 1] - 1 if number + 1 < len(self.starts) else len(self.data)

    def start_of(self, number: int) -> int:
        start = self.starts[number]
        return start + len(_BOM) if start == 0 and self.data.startswith(_BOM) else start

    def gap(self, first: int, end: int, *, last: bool = False) -> None:
        """The lines between two instructions: comments and empty lines."""
        empty: list[int] = []
        for number in range(first, end):
            if number + 1 == len(self.starts) and self.starts[number] == len(self.data):
                break
            if self.data[self.start_of(number) : self.end_of(number)].strip():
                self.drop(empty[1:])
                for kept in (*empty[:1], number):
                    self.trim(kept)
                empty = []
            else:
                empty.append(number)
        dropped = empty if last and first else empty[1:]
        self.drop(dropped)
        for number in empty[: len(empty) - len(dropped)]:
            self.trim(number)

    def drop(self, numbers: list[int]) -> None:
        """Delete whole lines."""
        for number in numbers:
            end = self.end_of(number)
            self.edits.append((self.start_of(number), min(end + 1, len(self.data)), b""))

    def trim(self, number: int) -> None:
        """Delete the blanks at the end of a line."""
        start, end = self.start_of(number), self.end_of(number)
        line = self.data[start:end].rstrip(b"\r")
        tidy = line.rstrip(b" \t")
        # An escape character before a carriage return inside the line does not continue it, and must not begin to.
        kept = start + len(line if tidy.endswith(b"\r") else tidy)
        if kept < end:
            self.edits.append((kept, end, b""))

    def instruction(self, instruction: Instruction, first: int) -> int:
        """Edit an instruction that begins in line `first`; returns the number of the line after it."""
        keyword = instruction.keyword.span
        start = self.start_of(first)
        if start < keyword.start and not self.data[start : keyword.start].strip():
            self.edits.append((start, keyword.start, b""))
        self.keyword(instruction)
        heredocs = _heredocs(instruction)
        last = heredocs[0].body_span.start if heredocs else instruction.span.end
        # The body begins on a line of its own: the instruction's lines end before it.
        end = bisect.bisect_right(self.starts, max(last - 1, 0))
        words = _words(instruction)
        for number in range(first, end):
            line = self.data[self.start_of(number) : self.end_of(number)]
            if number == first or line.lstrip().startswith(b"#"):
                self.trim(number)
            elif not line.strip():
                self.drop([number])
            else:
                if not isinstance(instruction, Onbuild):
                    self.indent(number, words)
                self.trim(number)
        if heredocs:
            terminator = bisect.bisect_right(self.starts, heredocs[-1].terminator.start) - 1
            self.trim(terminator)
            return terminator + 1
        return end

    def keyword(self, instruction: Instruction) -> None:
        span = instruction.keyword.span
        end = span.end
        self.edits.append((span.start, end, instruction.keyword.text.upper().encode()))
        after = end
        while self.data[after : after + 1] in (b" ", b"\t"):
            after += 1
        if after > end and self.data[after : after + 1] not in (b"", b"\r", b"\n", self.escape):
            self.edits.append((end, after, b" "))
        if isinstance(instruction, From) and instruction.connective is not None:
            connective = instruction.connective.span
            if connective.end - connective.start == 2:
                self.edits.append((connective.start, connective.end, b"AS"))

    def indent(self, number: int, words: list[tuple[int, int]]) -> None:
        """Indent a continued line, unless its beginning is inside a word."""
        start, end = self.start_of(number), self.end_of(number)
        text = start + len(self.data[start:end]) - len(self.data[start:end].lstrip(b" \t"))
        if self.data[text : text + 1] == self.escape and not self.data[text + 1 : end].strip():
            return
        index = bisect.bisect_left(words, (text, 0)) - 1
        if index >= 0 and words[index][1] > start:
            return
        if index + 1 >= len(words) or words[index + 1][0] != text:
            return
        if self.data[start:text] != _INDENT:
            self.edits.append((start, text, _INDENT))


def _heredocs(instruction: Instruction) -> tuple[Heredoc, ...]:
    inner = instruction.instruction if isinstance(instruction, Onbuild) else instruction
    found: tuple[Heredoc, ...] = getattr(inner, "heredocs", ())
    return tuple(sorted(found, key=lambda heredoc: heredoc.body_span.start))


def _words(value: object) -> list[tuple[int, int]]:
    """The byte ranges that are one piece, in order: words, flags, commands of a shell."""
    found: list[tuple[int, int]] = []
    _collect(value, found)
    return sorted(found)


def _collect(value: object, found: list[tuple[int, int]]) -> None:
    if isinstance(value, tuple):
        for item in value:
            _collect(item, found)
    elif isinstance(value, ExecForm):
        found += ((word.span.start - 1, word.span.end + 1) for word in value.words)
    elif isinstance(value, msgspec.Struct):
        span: Span | None = getattr(value, "span", None)
        fields = value.__struct_fields__
        if "keyword" not in fields and span is not None:
            found.append((span.start, span.end))
        if not isinstance(value, ShellForm | Heredoc):
            for name in fields:
                if name != "comments":
                    _collect(getattr(value, name), found)
