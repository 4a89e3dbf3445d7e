r"""The pattern language of `.dockerignore` and of `COPY --exclude`.

`*` and `?` stay within a component, `**` crosses any number of them, `[a-z]` and `[^a-z]` are classes, a backslash
takes the next character as it is. A pattern holds for a path and everything below it; of several, the last one that
holds decides; `!` in front makes an exception. Patterns of one sign are merged, literals into sets, so that a long
list costs little. Standard library only. Spec: the Dockerfile reference, ".dockerignore file"; moby/patternmatcher.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from aerogel.errors import AerogelError, Source, Span

__all__ = ["IgnoreMatcher", "PatternMatcher"]

_ESCAPED = frozenset(".+()|{}$^")
_LITERAL = re.compile(r"[^*?\[\]\\]+")
_BLANK = " \t\n\v\f\r\x85\xa0"


class PatternMatcher:
    """Ordered patterns. Raises AerogelError `pattern.bad` for one that is not finished."""

    def __init__(self, patterns: Sequence[str], spans: Sequence[Span | None] | None = None) -> None:
        self.patterns: list[str] = []
        self.numbers: list[int] = []
        self._groups: list[_Group] = []
        self._exceptions: list[list[re.Pattern[str] | None]] = []
        """Of each exception the components, up to a `**` (None), which any depth may follow."""
        self.has_exceptions = False
        for number, text in enumerate(patterns):
            self._add(text, number, spans[number] if spans else None)

    def _add(self, text: str, number: int, span: Span | None) -> None:
        text = text.strip(_BLANK)
        if not text:
            return
        text = posixpath.normpath(text) if text != "!" else text
        is_exception = text.startswith("!")
        body = text[1:] if is_exception else text
        if not body:
            raise AerogelError(
                "`!` alone excepts nothing", code="pattern.bad", span=span, hints=["write a path behind the `!`"]
            )
        self.has_exceptions = self.has_exceptions or is_exception
        if not self._groups or self._groups[-1].is_exception != is_exception:
            self._groups.append(_Group(is_exception=is_exception))
        self._groups[-1].add(body, len(self.patterns), span)
        if is_exception:
            self._exceptions.append(_components(body, span))
        self.patterns.append(text)
        self.numbers.append(number)

    def matches(self, path: bytes) -> bool:
        """Whether the path, or a directory above it, is meant and not excepted."""
        text = path.decode("utf-8", "surrogateescape")
        for group in reversed(self._groups):
            if group.matches(text):
                return not group.is_exception
        return False

    def may_except_below(self, path: bytes) -> bool:
        """Whether an exception could hold for something below an ignored directory; else it need not be looked into."""
        parts = path.decode("utf-8", "surrogateescape").split("/")
        for components in self._exceptions:
            for number, component in enumerate(components):
                if component is None or number == len(parts):
                    return True
                if not component.fullmatch(parts[number]):
                    break
        return False

    def deciding(self, path: bytes) -> int | None:
        """Which of the given patterns (its place in the list) decided about the path; None if none holds."""
        text = path.decode("utf-8", "surrogateescape")
        for group in reversed(self._groups):
            if group.matches(text):
                return self.numbers[group.last(text)]
        return None


class IgnoreMatcher(PatternMatcher):
    """An ignore file: its patterns with the lines that they stand in."""

    def __init__(self, source: Source, patterns: Sequence[str], spans: Sequence[Span]) -> None:
        super().__init__(patterns, spans)
        self.source = source
        self.spans = list(spans)

    @classmethod
    def parse(cls, source: Source) -> IgnoreMatcher:
        """Reads an ignore file: `#` in the first column is a comment, a leading `/` means nothing.

        Raises AerogelError `pattern.bad` with the line.
        """
        patterns: list[str] = []
        spans: list[Span] = []
        at = 3 if source.data.startswith(b"\xef\xbb\xbf") else 0
        for raw in source.data[at:].split(b"\n"):
            start = at
            at += len(raw) + 1
            text = raw.decode("utf-8", "surrogateescape")
            if text.startswith("#"):
                continue
            text = text.strip(_BLANK)
            if not text:
                continue
            sign, body = ("!", text[1:].strip(_BLANK)) if text.startswith("!") else ("", text)
            if body:
                body = posixpath.normpath(body)
                body = "/" + body.lstrip("/") if body.startswith("//") else body
                if len(body) > 1 and body.startswith("/"):
                    body = body[1:]
            patterns.append(sign + body)
            spans.append(Span(source, start, start + len(raw.rstrip(b"\r"))))
        return cls(source, patterns, spans)

    def rule(self, path: bytes) -> Span | None:
        """The line that removes the path, None if it is not removed."""
        number = self.deciding(path)
        if number is None or not self.matches(path):
            return None
        return self.spans[number]


class _Group:
    """Neighbouring patterns of one sign."""

    __slots__ = ("_combined", "_each", "_rest", "is_exception", "literals", "names")

    def __init__(self, *, is_exception: bool) -> None:
        self.is_exception = is_exception
        self.literals: set[str] = set()
        """Whole paths."""
        self.names: set[str] = set()
        """Patterns `**/name`: a component anywhere."""
        self._each: list[tuple[int, str]] = []
        self._rest: list[str] = []
        self._combined: re.Pattern[str] | None = None

    def add(self, body: str, number: int, span: Span | None) -> None:
        expression = _expression(body, span)
        self._each.append((number, expression))
        if _LITERAL.fullmatch(body):
            self.literals.add(body)
        elif body.startswith("**/") and _LITERAL.fullmatch(body[3:]) and "/" not in body[3:]:
            self.names.add(body[3:])
        else:
            self._rest.append(expression)

    def matches(self, path: str) -> bool:
        if self.literals and self._has_literal(path):
            return True
        if self.names and not self.names.isdisjoint(path.split("/")):
            return True
        return self._pattern().match(path) is not None

    def _has_literal(self, path: str) -> bool:
        if path in self.literals:
            return True
        at = path.rfind("/")
        while at > 0:
            if path[:at] in self.literals:
                return True
            at = path.rfind("/", 0, at)
        return False

    def _pattern(self) -> re.Pattern[str]:
        if self._combined is None:
            body = "|".join(self._rest) if self._rest else "(?!)"
            self._combined = re.compile(f"(?:{body})(?:/|\\Z)", re.DOTALL)
        return self._combined

    def last(self, path: str) -> int:
        """The number of the last pattern of the group that holds."""
        for number, expression in reversed(self._each):
            if re.compile(f"(?:{expression})(?:/|\\Z)", re.DOTALL).match(path):
                return number
        raise AssertionError(path)


def _components(body: str, span: Span | None) -> list[re.Pattern[str] | None]:
    found: list[re.Pattern[str] | None] = []
    for part in body.split("/"):
        # A class or an escape could hold a `/`: then anything may follow.
        if "**" in part or "[" in part or "\\" in part:
            return [*found, None]
        found.append(re.compile(_expression(part, span), re.DOTALL))
    return found


def _expression(body: str, span: Span | None) -> str:
    """The pattern as a regular expression, without its end."""
    if body.startswith("**") and _LITERAL.fullmatch(body[2:]) and body[2:3] != "/":
        # The only place where `**` stands for a part of a name.
        return ".*" + re.escape(body[2:])
    out: list[str] = []
    at = 0
    while at < len(body):
        character = body[at]
        at += 1
        if character == "*" and body[at : at + 1] == "*":
            at += 1
            if body[at : at + 1] == "/":
                at += 1
            out.append(".*" if at >= len(body) else "(?:.*/)?")
        elif character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[":
            found, at = _class(body, at, span)
            out.append(found)
        elif character == "\\":
            if at >= len(body):
                raise _bad(body, span)
            out.append(re.escape(body[at]))
            at += 1
        else:
            out.append("\\" + character if character in _ESCAPED else character)
    return "".join(out)


def _class(body: str, at: int, span: Span | None) -> tuple[str, int]:
    """A class of characters, from behind its `[`; and where it ends."""
    negated = body[at : at + 1] == "^"
    at += negated
    members: list[str] = []
    while True:
        if at >= len(body):
            raise _bad(body, span)
        if body[at] == "]" and members:
            break
        low, at = _member(body, at, span)
        high = low
        if body[at : at + 1] == "-":
            high, at = _member(body, at + 1, span)
        if low <= high:
            members.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            members.append("")
    inside = "".join(members)
    if not inside:
        return ("[^/]" if negated else "(?!)"), at + 1
    return (f"[^{inside}]" if negated else f"[{inside}]"), at + 1


def _member(body: str, at: int, span: Span | None) -> tuple[str, int]:
    if at >= len(body) or body[at] in "-]":
        raise _bad(body, span)
    if body[at] == "\\":
        at += 1
        if at >= len(body):
            raise _bad(body, span)
    return body[at], at + 1


def _bad(body: str, span: Span | None) -> AerogelError:
    return AerogelError(
        f"`{body}` is not a pattern: a `[` or `\\` is not finished",
        code="pattern.bad",
        span=span,
        hints=["write `[[]` for a `[` that is part of a name"],
    )
