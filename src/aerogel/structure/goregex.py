r"""Regular expressions of Go as Python's: the same texts match.

For: configurations that were written for container-structure-test. Only whether something matches is asked, so groups
capture nothing and greed does not count. What cannot be kept is refused and not approximated: scripts (`\p{Greek}`) and
`\C`. Python's engine goes back and forth where Go's does not, so a pattern made to take for ever takes for ever here.
Spec: Go's regexp/syntax with the flags of regexp.Compile (Perl).
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata

__all__ = ["RegexFault", "translate"]

_MAX_REPEAT = 1000
_MAX_LENGTH = 1 << 16
_REPEAT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(-[imsU]+)?([:)])")
_GROUP = re.compile(r"\(\?P?<([^>]*)>")
_PERL = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_PERL_NOT = {"D": "\\x00-/:-\\U0010ffff", "W": "\\x00-/:-@\\[-^`{-\\U0010ffff", "S": "\\S\\x0b"}
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\x00-\\x7f",
    "blank": "\\t ",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\t\\n\\x0b\\f\\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_SIMPLE = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}


class RegexFault(ValueError):
    """What is wrong with an expression, in words."""


@functools.lru_cache(maxsize=256)
def translate(text: str) -> re.Pattern[str]:
    """The expression, compiled. Raises `RegexFault`."""
    if len(text) > _MAX_LENGTH:
        raise RegexFault(f"it is longer than {_MAX_LENGTH} characters")
    made = _Translator(text).run()
    try:
        return re.compile(made)
    except (re.error, OverflowError, RecursionError) as error:
        raise RegexFault(str(error)) from None


class _Translator:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._out: list[str] = []
        self._flags = frozenset[str]()
        self._outer: list[frozenset[str]] = []
        """The flags that hold again after each open group."""
        self._is_repeatable = False
        self._starts: list[int] = []
        self._last = 0
        """Where in `_out` the last part begins, and each open group."""
        self._is_repeated = False

    def run(self) -> str:
        while self._at < len(self._text):
            self._one()
        if self._outer:
            raise RegexFault("a `(` has no `)`")
        return "".join(self._out)

    def _rest(self) -> str:
        return self._text[self._at :]

    def _one(self) -> None:
        char = self._text[self._at]
        match char:
            case "\\":
                self._escape()
            case "[":
                self._class()
            case "(":
                self._open()
            case ")":
                if not self._outer:
                    raise RegexFault("a `)` has no `(`")
                self._flags = self._outer.pop()
                self._emit(")", 1)
                self._last = self._starts.pop()
            case "|":
                self._emit("|", 1, is_repeatable=False)
            case ".":
                self._emit("(?s:.)" if "s" in self._flags else "[^\\n]", 1)
            case "^":
                self._emit("(?m:^)" if "m" in self._flags else "(?:\\A)", 1)
            case "$":
                self._emit("(?m:$)" if "m" in self._flags else "(?:\\Z)", 1)
            case "*" | "+" | "?":
                self._repeat(char, 1)
            case "{" if (found := _REPEAT.match(self._text, self._at)) is not None:
                self._repeat(_checked_repeat(found), len(found[0]))
            case _:
                self._literal(char, 1)

    def _emit(self, made: str, length: int, *, is_repeatable: bool = True) -> None:
        self._last = len(self._out)
        self._is_repeated = False
        self._out.append(made)
        self._at += length
        self._is_repeatable = is_repeatable

    def _literal(self, char: str, length: int) -> None:
        made = re.escape(char)
        self._emit(f"(?i:{made})" if "i" in self._flags and char.isalpha() else made, length)

    def _repeat(self, operator: str, length: int) -> None:
        if not self._is_repeatable:
            raise RegexFault(f"there is nothing that `{self._text[self._at : self._at + length]}` can repeat")
        self._at += length
        if self._rest().startswith("?"):
            self._at += 1
        following = self._text[self._at : self._at + 1]
        if following in ("*", "+", "?") or _REPEAT.match(self._text, self._at):
            raise RegexFault(f"a repetition stands behind a repetition: `{operator}{following}`")
        if self._is_repeated:  # what may stand between two repetitions is a change of flags
            self._out[self._last :] = ["(?:", *self._out[self._last :], ")"]
        self._out.append(operator)
        self._is_repeated = True

    # groups

    def _open(self) -> None:
        if not self._rest().startswith("(?"):
            self._enter(self._flags, 1)
            return
        named = _GROUP.match(self._text, self._at)
        if named is not None:
            if not re.fullmatch(r"\w+", named[1], re.ASCII):
                raise RegexFault(f"`{named[1]}` is no name of a group")
            self._enter(self._flags, len(named[0]))
            return
        found = _FLAGS.match(self._text, self._at)
        if found is None:
            raise RegexFault(f"`{self._rest()[:4]}` begins no group that Go knows")
        before = self._flags
        self._flags = (before | frozenset(found[1])) - frozenset(found[2] or "")
        if found[3] == ":":
            self._enter(before, len(found[0]))
        else:
            self._at += len(found[0])

    def _enter(self, after: frozenset[str], length: int) -> None:
        self._outer.append(after)
        self._starts.append(len(self._out))
        self._emit("(?:", length, is_repeatable=False)

    # escapes

    def _escape(self) -> None:
        rest = self._rest()
        if len(rest) < 2:
            raise RegexFault("a backslash stands at the end")
        char = rest[1]
        if char == "Q":
            quoted, _, _ = rest[2:].partition("\\E")
            for each in quoted:
                self._literal(each, 0)
            self._at = min(len(self._text), self._at + 2 + len(quoted) + 2)
        elif char in "AzbB":
            self._emit({"A": "(?:\\A)", "z": "(?:\\Z)", "b": "(?:(?a:\\b))", "B": "(?:(?!(?a:\\b)))"}[char], 2)
        elif char in _PERL or char in _PERL_NOT:
            self._emit(f"[{_PERL.get(char) or _PERL_NOT[char]}]", 2)
        elif char in "pP":
            made, length = self._property(rest)
            self._emit(f"[{made}]", length)
        else:
            literal, length = _character(rest)
            self._literal(literal, length)

    def _property(self, rest: str) -> tuple[str, int]:
        if rest[2:3] == "{":
            name, closed, _ = rest[3:].partition("}")
            length = len(name) + 4
        else:
            name, closed, length = rest[2:3], "}", 3
        is_not = rest[1] == "P"
        if name.startswith("^"):
            name, is_not = name[1:], not is_not
        if not closed or not name:
            raise RegexFault("`\\p` names no class of characters")
        return _category(name, is_not=is_not), length

    # classes

    def _class(self) -> None:
        start, text = self._at, self._text
        at = start + 1
        is_not = text[at : at + 1] == "^"
        at += is_not
        made: list[str] = []
        is_first = True
        while True:
            if at >= len(text):
                raise RegexFault(f"`{text[start : start + 12]}` has no `]`")
            if text[at] == "]" and not is_first:
                break
            is_first = False
            part, at = self._class_part(at)
            made.append(part)
        body = f"[{'^' if is_not else ''}{''.join(made)}]"
        self._emit(f"(?i:{body})" if "i" in self._flags else body, at + 1 - start)

    def _class_part(self, at: int) -> tuple[str, int]:
        rest = self._text[at:]
        if rest.startswith("[:") and ":]" in rest:
            name = rest[2 : rest.index(":]")]
            known = _POSIX.get(name.removeprefix("^"))
            if known is None:
                raise RegexFault(f"`[:{name}:]` is no class of characters")
            return (_inverted(known) if name.startswith("^") else known), at + len(name) + 4
        if rest.startswith("\\") and rest[1:2] in _PERL | _PERL_NOT and rest[1:2]:
            return _PERL.get(rest[1]) or _PERL_NOT[rest[1]], at + 2
        if rest.startswith(("\\p", "\\P")):
            made, length = self._property(rest)
            return made, at + length
        low, length = _character(rest) if rest[0] == "\\" else (rest[0], 1)
        at += length
        rest = self._text[at:]
        if not rest.startswith("-") or rest[1:2] in ("]", ""):
            return _in_class(low), at
        high, length = _character(rest[1:]) if rest[1] == "\\" else (rest[1], 1)
        if high < low:
            raise RegexFault(f"the range `{low}-{high}` runs backwards")
        return f"{_in_class(low)}-{_in_class(high)}", at + 1 + length


def _checked_repeat(found: re.Match[str]) -> str:
    low, high = int(found[1]), int(found[3]) if found[3] else -1
    if low > _MAX_REPEAT or high > _MAX_REPEAT or (found[3] and high < low):
        raise RegexFault(f"`{found[0]}` is no count of repetitions: Go allows {_MAX_REPEAT} at most")
    return found[0]


def _character(rest: str) -> tuple[str, int]:
    """What an escape stands for, and its length in the text."""
    char = rest[1:2]
    if not char:
        raise RegexFault("a backslash stands at the end")
    if char in _SIMPLE:
        return _SIMPLE[char], 2
    found = re.match(r"\\x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))", rest)
    if found is not None:
        number = int(found[1] or found[2], 16)
        if number > sys.maxunicode:
            raise RegexFault(f"`{found[0]}` is no character")
        return chr(number), len(found[0])
    found = re.match(r"\\(0[0-7]{0,2}|[1-7][0-7]{1,2})", rest)
    if found is not None:
        return chr(int(found[1], 8)), len(found[0])
    if char.isascii() and not char.isalnum():
        return char, 2
    raise RegexFault(f"`\\{char}` is no escape that Go knows")


def _in_class(char: str) -> str:
    return f"\\U{ord(char):08x}" if not char.isalnum() else char


def _inverted(body: str) -> str:
    """The complement of a class, as a class body."""
    wanted = re.compile(f"[{body}]")
    return _ranges([number for number in range(256) if not wanted.match(chr(number))]) + "\\u0100-\\U0010ffff"


def _ranges(numbers: list[int]) -> str:
    made: list[str] = []
    start = previous = -2
    for number in [*numbers, -2]:
        if number != previous + 1:
            if start >= 0:
                made.append(f"\\U{start:08x}-\\U{previous:08x}")
            start = number
        previous = number
    return "".join(made)


@functools.lru_cache(maxsize=16)
def _category(name: str, *, is_not: bool) -> str:
    """The characters of a general category such as `L` or `Nd`, or those that are not of it."""
    categories = {unicodedata.category(chr(number)) for number in range(0x3000)}
    if name != "Any" and not any(one.startswith(name) for one in categories):
        raise RegexFault(f"`\\p{{{name}}}` is not known here: general categories such as `\\pL` and `\\p{{Nd}}` are")
    return _ranges(
        [
            number
            for number in range(sys.maxunicode + 1)
            if (name == "Any" or unicodedata.category(chr(number)).startswith(name)) != is_not
        ]
    )
