"""Errors that carry a place and a hint, and the one renderer that turns them into text.

Floor 1: standard library only, imported by everything, imports nothing of aerogel. An error is data: a
message, a stable `code`, an optional `Span` into a source text, hints and a longer detail. Only `cli` prints
what `render` returns.

Exception tree::

    Exception
    └── AerogelError          anything that the user, the host or the network caused
        └── Faults            several independent faults of one input, reported together
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "EXIT_FAILED",
    "EXIT_HOST",
    "EXIT_INTERRUPTED",
    "EXIT_NETWORK",
    "EXIT_OK",
    "EXIT_USAGE",
    "MAX_FAULTS",
    "AerogelError",
    "Diagnostic",
    "Faults",
    "Source",
    "Span",
    "nearest",
    "render",
    "visible",
]

EXIT_OK = 0
EXIT_FAILED = 1
"""The asked-for check or step failed, or the input is wrong."""
EXIT_USAGE = 2
EXIT_HOST = 3
"""The host cannot do it: no user namespaces, disk full, a missing program."""
EXIT_NETWORK = 4
EXIT_INTERRUPTED = 130

MAX_FAULTS = 20
"""How many independent faults of one input are rendered; the rest is counted."""

_TAB = "    "


class Source:
    """A text that was read: its display name and its bytes (UTF-8, not necessarily valid)."""

    __slots__ = ("_starts", "data", "name")

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data
        self._starts: list[int] | None = None

    def line_starts(self) -> list[int]:
        """Byte offset of the first byte of each line; computed once."""
        if self._starts is None:
            starts = [0]
            at = self.data.find(b"\n")
            while at >= 0:
                starts.append(at + 1)
                at = self.data.find(b"\n", at + 1)
            self._starts = starts
        return self._starts

    def line_of(self, offset: int) -> int:
        """Line number (from 1) of a byte offset."""
        starts = self.line_starts()
        low, high = 0, len(starts)
        while high - low > 1:
            middle = (low + high) // 2
            if starts[middle] <= offset:
                low = middle
            else:
                high = middle
        return low + 1

    def line_bytes(self, line: int) -> bytes:
        """The bytes of a line (from 1) without its line end."""
        starts = self.line_starts()
        start = starts[line - 1]
        end = starts[line] - 1 if line < len(starts) else len(self.data)
        return self.data[start:end].rstrip(b"\r")


class Span:
    """Bytes `start` to `end` (exclusive) of a source."""

    __slots__ = ("end", "source", "start")

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source = source
        self.start = start
        self.end = end

    def __repr__(self) -> str:
        return f"Span({self.source.name}:{self.line}:{self.column}, {self.start}-{self.end})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Span)
            and (self.start, self.end) == (other.start, other.end)
            and self.source is other.source
        )

    def __hash__(self) -> int:
        return hash((self.start, self.end))

    @property
    def text(self) -> str:
        return self.source.data[self.start : self.end].decode("utf-8", "replace")

    @property
    def line(self) -> int:
        """Line of the first byte, from 1."""
        return self.source.line_of(self.start)

    @property
    def end_line(self) -> int:
        """Line of the last byte, from 1."""
        return self.source.line_of(max(self.start, self.end - 1))

    @property
    def column(self) -> int:
        """Column of the first byte in characters, from 1."""
        first = self.source.line_starts()[self.line - 1]
        return len(self.source.data[first : self.start].decode("utf-8", "replace")) + 1


class AerogelError(Exception):
    """Something that the user, the host or the network caused; never a bug of aerogel.

    `code` is stable and dotted (`dockerfile.unknown-flag`), tests assert it. `exit_status` is what the command
    line exits with. `temporary` says that trying again may help. `detail` is multi-line text printed below
    (the last lines of a step's output, say).
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        span: Span | None = None,
        hints: Sequence[str] = (),
        detail: str = "",
        exit_status: int = EXIT_FAILED,
        temporary: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.span = span
        self.hints = tuple(hints)
        self.detail = detail
        self.exit_status = exit_status
        self.temporary = temporary
        self.word = ""
        """The word of an instruction that the error is about, for whoever knows where it is written."""


class Faults(AerogelError):
    """Several independent faults of one input; `errors` keeps the order of the source."""

    def __init__(self, errors: Sequence[AerogelError]) -> None:
        first = errors[0]
        super().__init__(
            f"{len(errors)} faults, the first: {first.message}",
            code=first.code,
            span=first.span,
            exit_status=max(error.exit_status for error in errors),
        )
        self.errors = tuple(errors)


class Diagnostic:
    """A remark that stops nothing: a lint finding or a warning, with the same parts as an error."""

    __slots__ = ("code", "hints", "message", "severity", "span", "url")

    def __init__(
        self,
        message: str,
        *,
        code: str,
        severity: str = "warning",
        span: Span | None = None,
        hints: Sequence[str] = (),
        url: str = "",
    ) -> None:
        self.message = message
        self.code = code
        self.severity = severity
        self.span = span
        self.hints = tuple(hints)
        self.url = url


def nearest(word: str, known: Iterable[str], *, limit: int = 2) -> str | None:
    """The known word with the smallest edit distance (case ignored), if it is at most `limit` away."""
    best: str | None = None
    best_distance = limit + 1
    folded = word.lower()
    for candidate in known:
        distance = _distance(folded, candidate.lower(), best_distance)
        if distance < best_distance and distance < max(len(word), 2):
            best, best_distance = candidate, distance
    return best


def _distance(left: str, right: str, bound: int) -> int:
    """Levenshtein distance, or `bound` as soon as it cannot be smaller."""
    if abs(len(left) - len(right)) >= bound:
        return bound
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
        if min(row) >= bound:
            return bound
    return min(row[-1], bound)


def render(problem: AerogelError | Diagnostic, *, color: bool = False) -> str:
    """The house form: what, where with a caret, detail, hints. Ends without a newline.

    `color` adds ANSI colours; the text is the same without them.
    """
    if isinstance(problem, Faults):
        shown = [render(error, color=color) for error in problem.errors[:MAX_FAULTS]]
        if len(problem.errors) > MAX_FAULTS:
            shown.append(f"... and {len(problem.errors) - MAX_FAULTS} more faults")
        return "\n\n".join(shown)
    severity = problem.severity if isinstance(problem, Diagnostic) else "error"
    paint = _Paint(enabled=color)
    lines = [f"{paint.severity(severity)}: {_shortened(problem.message)}"]
    if problem.span is not None:
        lines += _excerpt(problem.span, paint)
    if isinstance(problem, AerogelError) and problem.detail:
        lines += [f"  {_shortened(line)}" for line in problem.detail.rstrip("\n").split("\n")]
    lines += [f"{paint.hint('hint')}: {_shortened(hint)}" for hint in dict.fromkeys(problem.hints)]
    return "\n".join(lines)


_LONGEST = 4000
"""So many characters of a message are shown whole; no sentence of ours is longer, but what it cites may be."""


def _shortened(text: str) -> str:
    half = _LONGEST // 2
    return visible(text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}")


def visible(text: str) -> str:
    """The text with control characters made visible, so that no input can drive the terminal."""
    if text.isprintable():
        return text
    shown = {
        c: f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"
        for c in set(text)
        if not c.isprintable() and c not in "\n\t"
    }
    if len(shown) > _FEW:
        return text.translate({ord(character): name for character, name in shown.items()})
    for character, name in shown.items():
        text = text.replace(character, name)
    return text


_FEW = 40
"""So many characters are replaced faster one after the other."""


def _excerpt(span: Span, paint: _Paint) -> list[str]:
    line, column = span.line, span.column
    raw = span.source.line_bytes(line)
    first = span.source.line_starts()[line - 1]
    before = raw[: span.start - first].decode("utf-8", "replace")
    marked = raw[span.start - first : max(span.end - first, span.start - first)].decode("utf-8", "replace")
    text = raw.decode("utf-8", "replace")
    if len(text) > 200:
        cut = max(0, len(before) - 60)
        text, before = text[cut : cut + 160], before[cut:]
        marked = marked[: max(1, 160 - len(before))]
    gutter = f"{line:>2} | "
    indent = "".join(_TAB if c == "\t" else " " * _width(c) for c in visible(before))
    caret = "^" * max(1, sum(_width(c) for c in visible(marked).replace("\t", _TAB)))
    return [
        f"  --> {span.source.name}:{line}:{column}",
        paint.gutter(gutter) + visible(text).replace("\t", _TAB),
        paint.gutter(" " * (len(gutter) - 2) + "| ") + indent + paint.severity("error", caret),
    ]


def _width(character: str) -> int:
    """Columns of a character in a terminal: 2 for wide East Asian ones, 0 for combining ones."""
    if character < "\u0300":
        return 1
    from unicodedata import combining, east_asian_width

    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


_SEVERITY_COLORS = {"error": "31", "warning": "33", "note": "36"}


class _Paint:
    __slots__ = ("enabled",)

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    def severity(self, severity: str, text: str | None = None) -> str:
        text = severity if text is None else text
        return f"\x1b[1;{_SEVERITY_COLORS.get(severity, '36')}m{text}\x1b[0m" if self.enabled else text

    def hint(self, text: str) -> str:
        return f"\x1b[1;36m{text}\x1b[0m" if self.enabled else text

    def gutter(self, text: str) -> str:
        return f"\x1b[34m{text}\x1b[0m" if self.enabled else text
