r"""The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`.

`?` is one character, `*` any number of them (neither is a line feed), `\?`, `\*`, `\\`, `\}` and `\/` are the
characters themselves, and brackets have no meaning. A pattern is run as a set of states in one integer, so that the
work is linear in the value whatever the pattern is. Not the globs of COPY or of `.dockerignore`.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Pattern", "PatternError", "replace", "trim_prefix", "trim_suffix"]


class PatternError(ValueError):
    """A backslash before a character that needs none."""


class Pattern(NamedTuple):
    """A compiled pattern.

    State i means that i single characters of the pattern are matched. `masks[c]` has bit i set if character i is
    `c`; `anything` has bit i set if character i is `?`; `loops` has bit i set if a `*` stands before character i.
    """

    masks: dict[str, int]
    anything: int
    loops: int
    length: int

    @classmethod
    def parse(cls, text: str, *, backwards: bool = False) -> Pattern:
        """Compile a pattern, or its mirror image.

        Raises:
            PatternError: for an escape of any other character.
        """
        singles: list[str | None] = []
        stars: set[int] = set()
        at = 0
        while at < len(text):
            character = text[at]
            at += 1
            if character == "*":
                stars.add(len(singles))
            elif character == "?":
                singles.append(None)
            elif character != "\\":
                singles.append(character)
            else:
                escaped = text[at : at + 1]
                if not escaped or escaped not in "*?\\}/":
                    raise PatternError(f"`\\{escaped}` is no escape of a pattern")
                singles.append(escaped)
                at += 1
        length = len(singles)
        if backwards:
            singles.reverse()
            stars = {length - star for star in stars}
        masks: dict[str, int] = {}
        anything = 0
        for i, single in enumerate(singles):
            if single is None:
                anything |= 1 << i
            else:
                masks[single] = masks.get(single, 0) | 1 << i
        return cls(masks, anything, sum(1 << star for star in stars), length)

    def step(self, states: int, character: str) -> int:
        if character == "\n":
            return (states & self.masks.get(character, 0)) << 1
        return (states & (self.masks.get(character, 0) | self.anything)) << 1 | states & self.loops

    def end(self, value: str, start: int, *, longest: bool) -> int:
        """Where the shortest or the longest match that begins at `start` ends, or -1."""
        accept = 1 << self.length
        states = 1
        found = -1
        at = start
        while states:
            if states & accept:
                found = at
                if not longest:
                    break
            if at == len(value):
                break
            states = self.step(states, value[at])
            at += 1
        return found


def trim_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """The value without its shortest or longest beginning that matches."""
    end = Pattern.parse(pattern).end(value, 0, longest=longest)
    return value if end < 0 else value[end:]


def trim_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """The value without its shortest or longest end that matches."""
    end = Pattern.parse(pattern, backwards=True).end(value[::-1], 0, longest=longest)
    return value if end < 0 else value[: len(value) - end]


def replace(value: str, pattern: str, replacement: str, *, every: bool, limit: int = 1 << 20) -> str | None:
    """The value with the first match, or `every` match, replaced; matches are leftmost and as long as possible.

    None if the replacements are longer than `limit`, all together.

    With `every`, and only then, `$0` in the replacement is the match, `$$` a dollar sign and any other `$name` is
    nothing: that is how BuildKit's regular expressions behave.
    """
    if pattern and not every and not any(c in pattern for c in "*?\\"):
        return value.replace(pattern, replacement, 1)
    forwards = Pattern.parse(pattern)
    starts = _starts(value, Pattern.parse(pattern, backwards=True))
    if not every:
        if not starts:
            return value
        start = starts[0]
        return value[:start] + replacement + value[forwards.end(value, start, longest=True) :]
    template = _template(replacement)
    bare = "".join(template)
    parts: list[str] = []
    last_end = 0
    after_match = False
    next_start = 0
    for start in starts:
        if start < next_start:
            continue
        end = forwards.end(value, start, longest=True)
        parts.append(value[last_end:start])
        if end > last_end or not after_match:
            limit -= len(bare) + (len(template) - 1) * (end - start)
            if limit < 0:
                return None
            parts.append(bare if start == end else value[start:end].join(template))
        last_end, after_match = end, True
        next_start = max(end, start + 1)
    parts.append(value[last_end:])
    return "".join(parts)


def _starts(value: str, mirrored: Pattern) -> list[int]:
    """All positions where some match begins, in order."""
    accept = 1 << mirrored.length
    states = 1
    starts = [len(value)] if states & accept else []
    for at in range(len(value) - 1, -1, -1):
        states = mirrored.step(states, value[at]) | 1
        if states & accept:
            starts.append(at)
    starts.reverse()
    return starts


def _template(text: str) -> list[str]:
    """What stands between the places of a replacement where the match goes."""
    found: list[str] = []
    parts: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        at = dollar + 1
        if text.startswith("$", at):
            parts.append("$")
            at += 1
            continue
        braced = text.startswith("{", at)
        end = start = at + braced
        while end < len(text) and (text[end].isalpha() or text[end].isdecimal() or text[end] == "_"):
            end += 1
        if end == start or (braced and not text.startswith("}", end)):
            parts.append("$")
            continue
        if text[start:end].strip("0") == "":
            found.append("".join(parts))
            parts.clear()
        at = end + braced
    parts.append(text[at:])
    return [*found, "".join(parts)]
