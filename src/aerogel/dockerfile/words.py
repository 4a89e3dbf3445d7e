"""Quotes, escapes and variables of a word: `$name`, `${name}` and every modifier.

Pure functions of the text and of a `lookup` that gives the value of a variable, or None. The grammar, where `E` is
the escape character and words nest in modifiers::

    word     := ( plain | E any | "'" ... "'" | '"' ( plain | E ["$E] | variable )* '"' | variable )*
    variable := "$" name | "${" name "}" | "${" name [":"] ("-" | "+" | "?") word "}"
              | "${" name ("#" | "##" | "%" | "%%") word "}" | "${" name ("/" | "//") word "/" word "}"

It works with a stack of its own, so that no nesting is too deep. Which words of which instruction are expanded is
not known here. Spec: BuildKit, the Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from aerogel.dockerfile.ast import Heredoc, Word
from aerogel.dockerfile.pattern import PatternError, replace, trim_prefix, trim_suffix
from aerogel.errors import AerogelError, Span

__all__ = ["GROWTH", "SPACE", "Expansion", "Lookup", "Quoting", "expand", "expand_heredoc", "expand_words", "process"]

Lookup = Callable[[str], str | None]

SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""What separates words: Unicode's White_Space."""

GROWTH = 1 << 20
"""How many characters variables may add to a word: nested replacements would fill any memory."""

_SPECIAL_NAMES = "@*#?-$!"
_BLANKS = re.compile(f"[{SPACE}]+")


class Expansion(NamedTuple):
    """What came out: the text, and the words it splits into (only if asked for).

    `used` and `unset` are the names of the variables that had a value and that had none, in the order of use.
    """

    text: str
    words: tuple[str, ...]
    used: tuple[str, ...]
    unset: tuple[str, ...]


class Quoting(NamedTuple):
    """How quotes, escapes and unset variables are treated; the default is that of an instruction's words."""

    quotes: bool = True
    """Quotes have a meaning."""
    keep_quotes: bool = False
    keep_escapes: bool = False
    keep_unset: bool = False
    """A variable without a value stays as written."""
    split: bool = False
    """Fill `Expansion.words`."""
    lossy: bool = False
    """What stands in a word before a modifier is not in `words`, as in BuildKit's search for here-documents."""


DEFAULT = Quoting()


def expand(word: Word, lookup: Lookup, escape: str = "\\") -> str:
    """The word without quotes and escapes, its variables replaced.

    Raises:
        AerogelError: `dockerfile.bad-substitution`, `dockerfile.unclosed-quote`, `dockerfile.too-long`, or
            `dockerfile.required-variable` for `${name:?message}`, with the place in the word.
    """
    return process(word.text, lookup, escape, span=word.span).text


def expand_words(word: Word, lookup: Lookup, escape: str = "\\") -> list[str]:
    """As `expand`, then split at blanks that are not quoted and that may come from variables (EXPOSE)."""
    return list(process(word.text, lookup, escape, Quoting(split=True), span=word.span).words)


def expand_heredoc(heredoc: Heredoc, lookup: Lookup) -> Expansion:
    """The content of a COPY or ADD here-document: variables and escapes, but quotes are ordinary characters.

    The escape character is always the backslash. A heredoc with a quoted word is not expanded.
    """
    if not heredoc.expand:
        return Expansion(heredoc.text, (), (), ())
    return process(heredoc.text, lookup, "\\", Quoting(quotes=False), span=heredoc.body_span)


def process(
    text: str, lookup: Lookup, escape: str = "\\", quoting: Quoting = DEFAULT, *, span: Span | None = None
) -> Expansion:
    """Expand a text; `span` is where it stands, for errors.

    Raises:
        AerogelError: as `expand`.
    """
    if not quoting.split and "$" not in text and "'" not in text and '"' not in text and escape not in text:
        return Expansion(text.removeprefix("\ufeff"), (), (), ())
    return _Expander(text.removeprefix("\ufeff"), lookup, escape, quoting, span).run()


class _Frame:
    """A word (it ends at `stop`; the outermost one at the end of the text) or the inside of double quotes."""

    __slots__ = ("double", "modifier", "name", "null_is_unset", "parts", "pattern", "raw", "start", "stop")

    def __init__(self, stop: str, start: int, *, raw: bool, double: bool = False) -> None:
        self.stop = stop
        self.start = start
        self.raw = raw
        self.double = double
        self.parts: list[str] = []
        self.name = ""
        self.modifier = ""
        self.null_is_unset = False
        self.pattern: str | None = None


class _Expander:
    def __init__(self, text: str, lookup: Lookup, escape: str, quoting: Quoting, span: Span | None) -> None:
        self.text = text
        self.lookup = lookup
        self.escape = escape
        self.quoting = quoting
        self.span = span
        self.at = 0
        self.frames = [_Frame("", 0, raw=quoting.keep_escapes)]
        self.room = GROWTH + 2 * len(text)
        self.words: list[str] = []
        self.word: list[str] = []
        self.used: dict[str, None] = {}
        self.unset: dict[str, None] = {}
        quotes = "'\"" if quoting.quotes else ""
        self.plain = re.compile(f"[^$<{re.escape(escape + quotes)}/}}]+")
        self.plain_double = re.compile(f'[^$"{re.escape(escape)}]+')

    def run(self) -> Expansion:
        text, end = self.text, len(self.text)
        while self.at < end:
            frame = self.frames[-1]
            character = text[self.at]
            if character == frame.stop:
                self.at += 1
                self.close(frame)
            elif character == "$":
                self.variable()
            elif frame.double:
                self.in_double_quotes(frame, character)
            else:
                self.in_word(frame, character)
        frame = self.frames[-1]
        if frame.double:
            self.unclosed('"', frame.start)
        if frame.stop:
            self.fail(f"`${{` is not closed: `{frame.stop}` is missing", frame.start, end)
        self.end_word()
        return Expansion("".join(frame.parts), tuple(self.words), tuple(self.used), tuple(self.unset))

    def in_double_quotes(self, frame: _Frame, character: str) -> None:
        if character != self.escape:
            match = self.plain_double.match(self.text, self.at)
            assert match is not None
            frame.parts.append(match.group())
            self.at = match.end()
            return
        if frame.raw:
            frame.parts.append(character)
        self.at += 1
        following = self.text[self.at : self.at + 1]
        if following and (following in '"$' or following == self.escape):
            frame.parts.append(following)
            self.at += 1
        elif following:
            frame.parts.append(character)

    def in_word(self, frame: _Frame, character: str) -> None:
        text = self.text
        if character == self.escape:
            if frame.raw:
                self.add(frame, character)
            self.add(frame, text[self.at + 1 : self.at + 2])
            self.at += 2
        elif character == "'" and self.quoting.quotes:
            end = text.find("'", self.at + 1)
            if end < 0:
                self.unclosed("'", self.at)
            keep = self.quoting.keep_quotes
            self.add(frame, text[self.at : end + 1] if keep else text[self.at + 1 : end])
            self.at = end + 1
        elif character == '"' and self.quoting.quotes:
            self.frames.append(_Frame('"', self.at, raw=frame.raw, double=True))
            self.at += 1
        elif character == "<":
            end = self.at + 1
            if text.startswith("<", end):
                end += 1
                while text[end : end + 1] in ("\t", "\r", " "):
                    end += 1
            self.add(frame, text[self.at : end])
            self.at = end
        else:
            match = self.plain.match(text, self.at)
            end = match.end() if match else self.at + 1
            self.add_split(frame, text[self.at : end])
            self.at = end

    def add(self, frame: _Frame, text: str) -> None:
        """Text whose blanks do not separate words."""
        frame.parts.append(text)
        if len(self.frames) == 1:
            self.word.append(text)

    def add_split(self, frame: _Frame, text: str) -> None:
        """Text whose blanks separate words."""
        frame.parts.append(text)
        if len(self.frames) > 1 or not self.quoting.split:
            return
        start = 0
        for blank in _BLANKS.finditer(text):
            self.word.append(text[start : blank.start()])
            self.end_word()
            start = blank.end()
        self.word.append(text[start:])

    def end_word(self) -> None:
        word = "".join(self.word)
        if word and self.quoting.split:
            self.words.append(word)
        self.word.clear()

    def close(self, frame: _Frame) -> None:
        """The innermost frame ends here: its text, or what its modifier makes of it, goes to the one around."""
        self.frames.pop()
        text = "".join(frame.parts)
        outer = self.frames[-1] if self.frames else frame
        if frame.double:
            self.add(outer, f'"{text}"' if self.quoting.keep_quotes else text)
        elif frame.stop == "/":
            self.open(frame.name, frame.modifier, frame.start, stop="}", raw=True, pattern=text)
        else:
            self.add_split(outer, self.fitting(self.modified(frame, text), frame.start))

    def open(
        self,
        name: str,
        modifier: str,
        start: int,
        *,
        stop: str,
        raw: bool,
        null_is_unset: bool = False,
        pattern: str | None = None,
    ) -> None:
        """Begin the word of a modifier; `start` is where its `${` stands."""
        frame = _Frame(stop, start, raw=raw)
        frame.name, frame.modifier, frame.null_is_unset, frame.pattern = name, modifier, null_is_unset, pattern
        self.frames.append(frame)
        if self.quoting.lossy:
            self.word.clear()

    def variable(self) -> None:
        """From a `$` on."""
        text, start = self.text, self.at
        if not text.startswith("{", start + 1):
            self.at = start + 1
            name = self.read_name()
            found = self.simple(name, f"${name}") if name else "$"
            self.add_split(self.frames[-1], self.fitting(found, start))
            return
        self.at = start + 2
        if text[self.at : self.at + 1] in ("{", "}", ":"):
            self.fail("`${` needs a name", start, self.at + 1, hints=["a dollar sign itself is `\\$`"])
        name = self.read_name()
        modifier = text[self.at : self.at + 1]
        self.at += 1
        if modifier == "}":
            self.add_split(self.frames[-1], self.fitting(self.simple(name, f"${{{name}}}"), start))
        elif modifier == "/":
            every = text.startswith("/", self.at)
            self.at += every
            self.open(name, "//" if every else "/", start, stop="/", raw=True)
        elif modifier and modifier in ":+-?#%":
            null_is_unset = modifier == ":"
            if null_is_unset:
                modifier = text[self.at : self.at + 1]
                self.at += 1
                if not modifier or modifier in "#%":
                    self.unsupported(":" + modifier, start)
            self.open(name, modifier, start, stop="}", raw=modifier in "#%", null_is_unset=null_is_unset)
        elif modifier:
            self.unsupported(modifier, start)
        else:
            self.fail("`${` is not closed: `}` is missing", start, len(text))

    def read_name(self) -> str:
        text, start = self.text, self.at
        first = text[start : start + 1]
        at = start
        if first.isdecimal():
            while text[at : at + 1].isdecimal():
                at += 1
        elif first and first in _SPECIAL_NAMES:
            at += 1
        else:
            while (c := text[at : at + 1]) and (c.isalpha() or c.isdecimal() or c == "_"):
                at += 1
        self.at = at
        return text[start:at]

    def value(self, name: str) -> str | None:
        value = self.lookup(name)
        (self.unset if value is None else self.used)[name] = None
        return value

    def simple(self, name: str, written: str) -> str:
        value = self.value(name)
        if value is None:
            return written if self.quoting.keep_unset else ""
        return value

    def modified(self, frame: _Frame, word: str) -> str | None:
        name, modifier = frame.name, frame.modifier
        value = self.value(name)
        colon = ":" if frame.null_is_unset else ""
        if value is None and self.quoting.keep_unset:
            if frame.pattern is not None:
                return f"${{{name}/{frame.pattern}/{word}}}"
            return f"${{{name}{colon}{modifier}{word}}}"
        missing = value is None or (frame.null_is_unset and not value)
        if modifier == "-":
            return word if missing or value is None else value
        if modifier == "+":
            return "" if missing else word
        if modifier == "?":
            if value is not None and not missing:
                return value
            state = "unset" if value is None else "empty"
            message = f"`{name}`: {word}" if word else f"`{name}` is not allowed to be {state}"
            self.fail(message, frame.start, self.at, code="dockerfile.required-variable")
        try:
            return self.matched(frame, value or "", word)
        except PatternError as error:
            self.fail(f"{error}", frame.start, self.at, hints=["escapes are `\\*`, `\\?`, `\\\\`, `\\}` and `\\/`"])

    def matched(self, frame: _Frame, value: str, word: str) -> str | None:
        modifier = frame.modifier
        if frame.pattern is not None:
            return replace(value, frame.pattern, word, every=modifier == "//", limit=self.room)
        if modifier not in "#%":
            self.unsupported(":" + modifier, frame.start)
        longest = word.startswith(modifier)
        pattern = word[1:] if longest else word
        if modifier == "#":
            return trim_prefix(value, pattern, longest=longest)
        return trim_suffix(value, pattern, longest=longest)

    def fitting(self, text: str | None, start: int) -> str:
        """The text, if there is room for it; None stands for one that was too long to be made."""
        self.room -= 0 if text is None else len(text)
        if text is None or self.room < 0:
            self.fail(
                f"the variables make more than {GROWTH} characters of this word",
                start,
                self.at,
                code="dockerfile.too-long",
                hints=["set the variable to something shorter, or put the text in a file"],
            )
        return text

    def unsupported(self, modifier: str, start: int) -> NoReturn:
        self.fail(
            f"`{modifier}` is no modifier of a variable",
            start,
            self.at,
            hints=["modifiers are `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` and `//`"],
        )

    def unclosed(self, quote: str, start: int) -> NoReturn:
        name = "double" if quote == '"' else "single"
        self.fail(f"the {name} quote is not closed", start, len(self.text), code="dockerfile.unclosed-quote")

    def fail(
        self,
        message: str,
        start: int,
        end: int,
        *,
        code: str = "dockerfile.bad-substitution",
        hints: list[str] | None = None,
    ) -> NoReturn:
        """Raise, pointing into the word if it stands in the source as it is, else at the whole word."""
        span = self.span
        if span is not None and span.source.data[span.start : span.end] == self.text.encode("utf-8", "surrogateescape"):
            first = span.start + len(self.text[:start].encode("utf-8", "surrogateescape"))
            span = Span(span.source, first, first + len(self.text[start:end].encode("utf-8", "surrogateescape")))
        raise AerogelError(message, code=code, span=span, hints=hints or ())
