r"""The pattern language of `.dockerignore` and of `COPY --exclude`.

`*` and `?` stay within a component, `**` crosses any number of them, `[a-z]` and `[^a-z]` are classes, a backslash
takes the next character as it is. A pattern holds for a path and everything below it; of several, the last one that
holds decides; `!` in front makes an exception. Patterns are sorted by what they could match at all, and what holds for
a directory or a name is remembered, so that a long list costs little. Standard library only. Spec: the Dockerfile
reference, ".dockerignore file"; moby/patternmatcher.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from aerogel.errors import AerogelError, Source, Span

__all__ = ["IgnoreMatcher", "PatternMatcher"]

_ESCAPED = frozenset(".+()|{}$^")
_LITERAL = re.compile(r"[^*?\[\]\\]+")
_GLOB = re.compile(r"[^\[\]\\/]+")
_STAR, _DIRECTORIES, _ANYTHING = "[^/]*", "(?:.*/)?", ".*"
_JUMPS = (_DIRECTORIES, _ANYTHING)
_BREAKS = (_STAR, "/", *_JUMPS)
_LOOPS = (_STAR, *_JUMPS)
_REMEMBERED = 10_000
"""How many directories and names are remembered with what holds for them."""
_BLANK = " \t\n\v\f\r\x85\xa0"


class PatternMatcher:
    """Ordered patterns. Raises AerogelError `pattern.bad` for one that is not finished."""

    def __init__(self, patterns: Sequence[str], spans: Sequence[Span | None] | None = None) -> None:
        self.patterns: list[str] = []
        self.numbers: list[int] = []
        self.has_exceptions = False
        self._is_exception: list[bool] = []
        self._exceptions: list[list[re.Pattern[str] | None]] = []
        """Of each exception the components, up to a `**` (None), which any depth may follow."""
        self._literals: dict[str, int] = {}
        """Whole paths; the number is that of the last such pattern, as in the next one."""
        self._names: dict[str, int] = {}
        """Patterns `**/name`: a component anywhere."""
        self._components = _Union()
        """Patterns `**/glob`: a component anywhere."""
        self._top = _Union()
        """Patterns without a slash."""
        self._below: dict[str, _Union] = {}
        """Patterns by the name of their first directory."""
        self._others = _Union()
        self._of_component: dict[str, int] = {}
        self._of_directory: dict[str, int] = {}
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
        expression = _expression(body, span)
        self._place(body, expression, len(self.patterns))
        if is_exception:
            self.has_exceptions = True
            self._exceptions.append(_components(body, span))
        self.patterns.append(text)
        self.numbers.append(number)
        self._is_exception.append(is_exception)

    def _place(self, body: str, expression: str | _Machine, place: int) -> None:
        """Where a pattern is looked for; those that need not be tried for every path are the fast ones."""
        name = body[3:] if body.startswith("**/") else ""
        first, slash, _ = body.partition("/")
        if _LITERAL.fullmatch(body):
            self._literals[body] = place
        elif name and _LITERAL.fullmatch(name) and "/" not in name:
            self._names[name] = place
        elif name and _GLOB.fullmatch(name) and "**" not in name:
            self._components.add(_expression(name, None), place)
        elif _GLOB.fullmatch(body) and "**" not in body:
            self._top.add(expression, place)
        elif slash and _LITERAL.fullmatch(first):
            self._below.setdefault(first, _Union()).add(expression, place)
        else:
            self._others.add(expression, place)

    def matches(self, path: bytes) -> bool:
        """Whether the path, or a directory above it, is meant and not excepted."""
        place = self._deciding(path.decode("utf-8", "surrogateescape"))
        return place >= 0 and not self._is_exception[place]

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
        place = self._deciding(path.decode("utf-8", "surrogateescape"))
        return self.numbers[place] if place >= 0 else None

    def _deciding(self, path: str) -> int:
        """The place of the last pattern that holds for the path or a directory above it; -1 if none does."""
        at = path.rfind("/")
        if at < 0:
            return self._own(path, path, "")
        return max(self._own(path, path[at + 1 :], path[: path.find("/")]), self._directory(path[:at]))

    def _directory(self, path: str) -> int:
        """As `_deciding`, remembered. Iterative: paths may be deep."""
        known = self._of_directory
        found = known.get(path)
        if found is not None:
            return found
        if len(known) > _REMEMBERED:
            known.clear()
        parts = path.split("/")
        depth = len(parts)
        last = -1
        while depth > 1:
            depth -= 1
            above = known.get("/".join(parts[:depth]))
            if above is not None:
                last = above
                break
        else:
            depth = 0
        current = "/".join(parts[:depth])
        for number in range(depth, len(parts)):
            current = f"{current}/{parts[number]}" if number else parts[0]
            last = max(last, self._own(current, parts[number], parts[0] if number else ""))
            known[current] = last
        return last

    def _own(self, path: str, name: str, first: str) -> int:
        """The last pattern that holds for this very path; `first` is its first directory, empty at the top."""
        place = self._of_component.get(name)
        if place is None:
            if len(self._of_component) > _REMEMBERED:
                self._of_component.clear()
            place = max(self._names.get(name, -1), self._components.last(name))
            self._of_component[name] = place
        place = max(place, self._literals.get(path, -1), self._others.last(path))
        if not first:
            return max(place, self._top.last(path))
        below = self._below.get(first)
        return place if below is None else max(place, below.last(path))


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


class _Union:
    """Patterns in one regular expression, the last first, so that what matches is the last that holds."""

    __slots__ = ("_each", "_machines", "_regex")

    def __init__(self) -> None:
        self._each: list[tuple[int, str]] = []
        self._machines: list[tuple[int, _Machine]] = []
        self._regex: re.Pattern[str] | None = None

    def add(self, expression: str | _Machine, place: int) -> None:
        if isinstance(expression, _Machine):
            self._machines.append((place, expression))
            return
        self._each.append((place, expression))
        self._regex = None

    def last(self, text: str) -> int:
        """The place of the last pattern that is the whole text, or -1."""
        place = self._last_expression(text) if self._each else -1
        for other, machine in reversed(self._machines):
            if other < place:
                break
            if machine.matches(text):
                return other
        return place

    def _last_expression(self, text: str) -> int:
        if self._regex is None:
            body = "|".join(f"({expression})" for _, expression in reversed(self._each))
            self._regex = re.compile(f"(?:{body})\\Z", re.DOTALL)
        found = self._regex.match(text)
        return -1 if found is None or found.lastindex is None else self._each[-found.lastindex][0]


class _Machine:
    """A pattern as a set of states in one integer: slower than a regular expression, but never more than linear.

    State i means that the pieces before i are matched; `inside` has the bits of the `**/` that have begun.
    """

    __slots__ = ("_any", "_directories", "_loops", "_masks", "_pieces", "_star")

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces
        self._star, self._directories, self._any = (
            sum(1 << at for at, piece in enumerate(pieces) if piece == kind)
            for kind in (_STAR, _DIRECTORIES, _ANYTHING)
        )
        self._loops = self._star | self._directories | self._any
        self._masks: dict[str, int] = {}

    def matches(self, text: str) -> bool:
        states, inside = self._skipped(1), 0
        for character in text:
            inside |= states & self._directories
            mask = self._mask(character)
            stay = states & (self._any if character == "/" else self._any | self._star)
            states = self._skipped((states & mask) << 1 | stay | (inside << 1 if character == "/" else 0))
            if not states and not inside:
                return False
        return bool(states >> len(self._pieces) & 1)

    def _skipped(self, states: int) -> int:
        """With the states behind pieces that may be nothing."""
        while (more := states | (states & self._loops) << 1) != states:
            states = more
        return states

    def _mask(self, character: str) -> int:
        mask = self._masks.get(character)
        if mask is None:
            mask = sum(
                1 << at
                for at, piece in enumerate(self._pieces)
                if piece not in _LOOPS and re.fullmatch(piece, character, re.DOTALL)
            )
            self._masks[character] = mask
        return mask


def _components(body: str, span: Span | None) -> list[re.Pattern[str] | None]:
    found: list[re.Pattern[str] | None] = []
    for part in body.split("/"):
        # A class or an escape could hold a `/`: then anything may follow.
        if "**" in part or "[" in part or "\\" in part:
            return [*found, None]
        found.append(re.compile("".join(_committed(_pieces(part, span))), re.DOTALL))
    return found


def _expression(body: str, span: Span | None) -> str | _Machine:
    """The pattern as a regular expression without its end, or as what is not slow where that would be."""
    if body.startswith("**") and _LITERAL.fullmatch(body[2:]) and body[2:3] != "/":
        # The only place where `**` stands for a part of a name.
        return ".*" + re.escape(body[2:])
    pieces = _pieces(body, span)
    has_classes = "[" in body
    is_odd = any(piece == _DIRECTORIES and at and pieces[at - 1] != "/" for at, piece in enumerate(pieces))
    if (has_classes or is_odd) and sum(piece in _LOOPS for piece in pieces) > 2:
        return _Machine(pieces)
    return "".join(pieces if has_classes else _committed(pieces))


def _pieces(body: str, span: Span | None) -> list[str]:
    """The pattern as regular expressions of one character, `/` and `_LOOPS`."""
    out: list[str] = []
    at = 0
    while at < len(body):
        character = body[at]
        at += 1
        if character == "*" and body[at : at + 1] == "*":
            at += 1
            if body[at : at + 1] == "/":
                at += 1
            if out[-1:] == [_DIRECTORIES]:
                out.pop()  # twice any number of directories is any number
            out.append(_ANYTHING if at >= len(body) else _DIRECTORIES)
        elif character == "*":
            out.append(_STAR)
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
    return out


def _committed(pieces: list[str]) -> list[str]:
    """The pieces so that no number of stars makes matching slow.

    What stands between a `*` and the next one in the same component may be taken at the first place where it fits:
    the next `*` makes up for it. The same holds for whole components between one `**/` and the next. Not so with
    classes, which may match a slash.
    """
    out: list[str] = []
    at = 0
    while at < len(pieces):
        piece = pieces[at]
        breaks = _BREAKS if piece == _STAR else _JUMPS
        end = next((other for other in range(at + 1, len(pieces)) if pieces[other] in breaks), len(pieces))
        inside = pieces[at + 1 : end]
        if piece == _STAR and inside and end < len(pieces) and pieces[end] == _STAR:
            out += ("(?>[^/]*?", *inside, ")")
            at = end
        elif piece == _DIRECTORIES and end < len(pieces) and inside[-1:] == ["/"]:
            out += ("(?>(?:.*?/)??", *_committed(inside), ")")
            at = end
        else:
            out.append(piece)
            at += 1
    return out


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
