"""From bytes to logical lines: byte order mark, line ends, comments, directives, continuations, here-documents.

What a line means is not known here (`aerogel.dockerfile.split`). Positions are kept: a logical line knows for each of
its characters the byte of the source.

Spec: BuildKit, the Dockerfile reference, "Format", "Parser directives", "Escape" and "Here-documents".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

from aerogel.dockerfile.ast import Comment, Directive, Directives, Word
from aerogel.dockerfile.words import SPACE
from aerogel.errors import AerogelError, Source, Span, nearest

__all__ = ["MAX_LINE_BYTES", "Body", "Line", "Reader", "detect_syntax", "is_utf16", "match_directive"]

MAX_LINE_BYTES = 65_535
"""The longest physical line that BuildKit reads, without its line feed."""

_BOM = b"\xef\xbb\xbf"
_DIRECTIVE = re.compile(rf"[{SPACE}]*([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=")
_DIRECTIVE_BLANKS = "\t\n\f\r "
_DIRECTIVE_NAMES = ("syntax", "escape", "check")
_NOT_BLANK = re.compile(f"[^{SPACE}]")


class Line:
    """A logical line: continuations joined, comments inside it gone, blanks at both ends gone.

    `blank` is the first empty line inside it. `first` and `last` are the numbers of its physical lines, from 0.
    """

    __slots__ = ("_memo", "_offsets", "_starts", "ascii", "blank", "comments", "first", "last", "source", "text")

    def __init__(self, source: Source, text: str, offsets: list[int], starts: list[int]) -> None:
        self.source = source
        self.text = text
        self.ascii = text.isascii()
        self._offsets = offsets
        self._starts = starts
        self._memo = (0, starts[0])
        self.first = self.last = 0
        self.comments: tuple[Comment, ...] = ()
        self.blank: Span | None = None

    def byte(self, at: int) -> int:
        """The byte offset in the source of character `at`."""
        offsets = self._offsets
        piece = bisect_right(offsets, at) - 1 if len(offsets) > 1 else 0
        start = offsets[piece]
        if self.ascii:
            return self._starts[piece] + at - start
        known, known_byte = self._memo
        if not start <= known <= at:
            known, known_byte = start, self._starts[piece]
        byte = known_byte + _size(self.text[known:at])
        self._memo = (at, byte)
        return byte

    def span(self, start: int, end: int) -> Span:
        """Where the characters `start` to `end` (exclusive) stand."""
        first = self.byte(start)
        if end <= start:
            return Span(self.source, first, first)
        last = self.byte(end - 1)
        return Span(self.source, first, last + (1 if self.ascii else _size(self.text[end - 1])))

    def word(self, start: int, end: int) -> Word:
        return Word(self.text[start:end], self.span(start, end))


class Body(NamedTuple):
    """The lines of a here-document; `terminator` is None if there is none up to the end of the file."""

    text: str
    span: Span
    terminator: Span | None


class Reader:
    """Reads a source line by line; `directives` is complete once the first logical line was read.

    Raises:
        AerogelError: for a source that cannot be read as lines at all; faults of directives go to `faults`.
    """

    def __init__(self, source: Source, faults: list[AerogelError]) -> None:
        self.source = source
        self.faults = faults
        self.directives = Directives()
        self.at = 0
        data = source.data
        self._bom = len(_BOM) if data.startswith(_BOM) else 0
        self._lines = _decode(source, self._bom).split("\n")
        self._ends_open = bool(self._lines[-1])
        if not self._ends_open:
            self._lines.pop()
        self._ascii = data.isascii()
        self._starts = source.line_starts()
        self._in_directives = True
        self._comments: list[Comment] = []
        self._set_escape("\\")
        self._check_lengths()

    def _check_lengths(self) -> None:
        limit = MAX_LINE_BYTES if self._ascii else MAX_LINE_BYTES // 4
        if all(len(line) <= limit for line in self._lines):
            return
        for number, start in enumerate(self._starts):
            end = self._starts[number + 1] - 1 if number + 1 < len(self._starts) else len(self.source.data)
            if end - start > MAX_LINE_BYTES:
                message = f"the line has {end - start} bytes, at most {MAX_LINE_BYTES} are allowed"
                raise AerogelError(
                    message,
                    code="dockerfile.line-too-long",
                    span=Span(self.source, start, start + 1),
                    hints=["continue it on the next line with the escape character, or COPY a file instead"],
                )

    def _set_escape(self, escape: str) -> None:
        e = re.escape(escape)
        self._continuation = re.compile(rf"(?:(?<=[^{e}])|\A){e}[ \t]*\Z")
        self._escape = escape

    def start_of(self, number: int) -> int:
        """Byte offset of physical line `number` (from 0), after a byte order mark."""
        return self._starts[number] + (self._bom if number == 0 else 0)

    def end_of(self, number: int) -> int:
        """Byte offset of the end of physical line `number`, before its line end."""
        line = self._lines[number]
        start = self.start_of(number)
        stripped = line.rstrip("\r")
        return start + (len(stripped) if self._ascii else _size(stripped))

    def next(self) -> Line | None:
        """The next logical line that is not empty, or None at the end."""
        lines = self._lines
        while self.at < len(lines):
            number = self.at
            self.at += 1
            raw = lines[number].rstrip("\r")
            text = raw.lstrip(SPACE)
            if text.startswith("#"):
                self._comment(number, raw, len(raw) - len(text))
                continue
            self._in_directives = False
            if text:
                return self._logical(number, raw, len(raw) - len(text))
        return None

    def _logical(self, number: int, raw: str, indent: int) -> Line:
        pieces: list[str] = []
        offsets: list[int] = []
        starts: list[int] = []
        blank: Span | None = None
        length = 0
        first = number
        text = raw[indent:]
        lines, last = self._lines, len(self._lines)
        while True:
            at = self.start_of(number) + (indent if self._ascii else _size(raw[:indent]))
            match = self._continuation.search(text) if self._escape in text else None
            if match:
                text = text[: match.start()]
            if text:
                offsets.append(length)
                starts.append(at)
                pieces.append(text)
                length += len(text)
            if match is None:
                break
            text = ""
            while self.at < last:
                number = self.at
                self.at += 1
                raw, indent = lines[number].rstrip("\r"), 0
                solid = _NOT_BLANK.search(raw)
                if solid is None:
                    blank = blank or Span(self.source, self.start_of(number), self.start_of(number) + 1)
                elif solid.group() != "#":
                    text = raw
                    break
            if not text:
                break
        line = self._trimmed("".join(pieces), offsets or [0], starts or [self.start_of(first)])
        line.first, line.last = first, self.at - 1
        line.comments, line.blank = tuple(self._comments), blank
        self._comments = []
        if not self._ascii:
            self._check_utf8(line)
        return line

    def _trimmed(self, text: str, offsets: list[int], starts: list[int]) -> Line:
        solid = text.rstrip(SPACE)
        left = len(solid) - len(solid.lstrip(SPACE))
        line = Line(self.source, solid, offsets, starts)
        if left:
            first = line.byte(left) if left < len(solid) else starts[0]
            piece = bisect_right(offsets, left) - 1
            line = Line(
                self.source,
                solid[left:],
                [0, *(offset - left for offset in offsets[piece + 1 :])],
                [first, *starts[piece + 1 :]],
            )
        return line

    def _check_utf8(self, line: Line) -> None:
        match = _UNDECODABLE.search(line.text)
        if match:
            span = line.span(match.start(), match.end())
            message = "the text is not UTF-8"
            self.faults.append(AerogelError(message, code="dockerfile.not-utf8", span=span))

    def _comment(self, number: int, raw: str, indent: int) -> None:
        start = self.start_of(number) + (indent if self._ascii else _size(raw[:indent]))
        span = Span(self.source, start, self.end_of(number))
        if self._in_directives and self._directive(raw[indent + 1 :], span):
            return
        # BuildKit cuts the first character of the line, not the `#`: an indented comment keeps its `#`.
        text = raw[1:].strip(SPACE)
        if text:
            self._comments.append(Comment(text, span))
        else:
            self._comments.clear()

    def _directive(self, text: str, span: Span) -> bool:
        """Take a directive; anything else ends the search for directives."""
        found = match_directive(text)
        if found is None:
            self._in_directives = False
            return False
        name, value_at, value_text = found
        value_start = span.start + 1 + _size(text[:value_at])
        value = Word(value_text, Span(self.source, value_start, value_start + _size(value_text)))
        directive = Directive(name, value, span)
        known = self.directives
        if any(earlier.name == name for earlier in known.all):
            message = f"the directive `{name}` is given twice"
            self.faults.append(AerogelError(message, code="dockerfile.duplicate-directive", span=span))
            return True
        escape = known.escape
        if name == "escape":
            if value.text in ("\\", "`"):
                escape = value.text
                self._set_escape(escape)
            else:
                message = f"the escape character can be `\\` or a backtick, not `{value.text}`"
                self.faults.append(AerogelError(message, code="dockerfile.bad-escape", span=value.span))
        self.directives = Directives(
            escape=escape,
            syntax=directive if name == "syntax" else known.syntax,
            check=directive if name == "check" else known.check,
            all=(*known.all, directive),
        )
        return True

    def body(self, name: str, *, strip_tabs: bool) -> Body:
        """The lines from here to the one that is `name`, with their line ends."""
        lines = self._lines
        first = self.at
        start = self._starts[first] if first < len(lines) else len(self.source.data)
        while self.at < len(lines):
            number = self.at
            self.at += 1
            candidate = lines[number].rstrip("\r")
            if strip_tabs:
                candidate = candidate.lstrip("\t")
            if candidate == name:
                text = "".join(line + "\n" for line in lines[first:number])
                terminator = Span(self.source, self.start_of(number), self.end_of(number))
                return Body(text, Span(self.source, start, self._starts[number]), terminator)
        text = "\n".join(lines[first:]) + ("" if self._ends_open else "\n")
        return Body(text, Span(self.source, start, len(self.source.data)), None)

    def nearest_terminator(self, name: str, first: int) -> int | None:
        """The number (from 0) of a line after `first` that is nearly the terminator `name`."""
        for number in range(first, len(self._lines)):
            line = self._lines[number]
            if line.strip() == name or (len(line) <= len(name) + 2 and nearest(line.strip(), [name], limit=1)):
                return number
        return None


_UNDECODABLE = re.compile("[\udc80-\udcff]+")


def match_directive(text: str) -> tuple[str, int, str] | None:
    """Name, offset of the value and value of a directive, from the text after the comment sign."""
    match = _DIRECTIVE.match(text)
    if match is None or match.group(1).lower() not in _DIRECTIVE_NAMES or match.end() == len(text):
        return None
    end = len(text.rstrip(_DIRECTIVE_BLANKS))
    if end <= match.end():
        return match.group(1).lower(), len(text) - 1, text[-1]
    value = text[match.end() : end].lstrip(_DIRECTIVE_BLANKS)
    return match.group(1).lower(), end - len(value), value


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def is_utf16(data: bytes) -> bool:
    """Whether the text is in UTF-16, as some Windows programs write it."""
    return data[:2] in (b"\xff\xfe", b"\xfe\xff") or (data[1:2] == b"\0" and data[3:4] == b"\0")


def _decode(source: Source, start: int) -> str:
    data = source.data
    if is_utf16(data):
        message = "the file is in UTF-16, a Dockerfile is UTF-8"
        raise AerogelError(message, code="dockerfile.not-utf8", span=Span(source, 0, 2))
    return data[start:].decode("utf-8", "surrogateescape")


def detect_syntax(data: bytes) -> str | None:
    """The value of the `syntax` directive in any of its forms: `# syntax=`, `// syntax=` or a JSON object.

    A first line that begins with `#!` is passed over.
    """
    data = data.removeprefix(_BOM)
    if data.startswith(b"#!"):
        data = data.partition(b"\n")[2]
    text = data.decode("utf-8", "replace")
    for prefix in ("#", "//"):
        for line in text.split("\n"):
            if not line.startswith(prefix):
                break
            found = match_directive(line.removeprefix(prefix).rstrip("\r"))
            if found is None:
                break
            if found[0] == "syntax":
                return found[2]
    if text.lstrip().startswith("{"):
        import json

        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        syntax = value.get("syntax") if isinstance(value, dict) else None
        return syntax if isinstance(syntax, str) else None
    return None
