"""From a logical line to keyword, flags and arguments: what BuildKit's own line parser does, and no more.

Each instruction has its way of cutting the rest of the line; whether the pieces make sense is checked in
`aerogel.dockerfile.parse`. Spec: BuildKit, the Dockerfile reference, one section per instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from aerogel.dockerfile.ast import Flag, Heredoc, Pair, Word
from aerogel.dockerfile.jsonarray import JsonTypeError, parse_array
from aerogel.dockerfile.syntax import Line, Reader
from aerogel.dockerfile.words import SPACE, Quoting, process
from aerogel.errors import AerogelError, Span

__all__ = ["INSTRUCTIONS", "HeredocWord", "Split", "parse_heredoc_word", "read_heredocs", "split"]

_GAP = re.compile(r"[\t\v\f\r ]+")
_SOLID = re.compile(r"[^\t\v\f\r ]+")
_ASCII_SPACE = "\t\n\v\f\r "
_HEREDOC = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)\Z")
_MAX_DESCRIPTOR = 2**64 - 1

_FIND_HEREDOCS = Quoting(keep_quotes=True, keep_escapes=True, keep_unset=True, split=True, lossy=True)
_HEREDOC_NAME = Quoting(keep_unset=True, split=True, lossy=True)
_HEREDOC_RAW_NAME = Quoting(keep_quotes=True, keep_unset=True, split=True, lossy=True)


class Split:
    """A logical line, cut up. `start` and `end` are where the arguments begin and end in the line's text.

    `begin` is where the keyword begins. `words` are the arguments of all instructions but ENV and LABEL, which have `pairs`. `child` is the instruction
    inside an ONBUILD.
    """

    __slots__ = (
        "begin",
        "child",
        "end",
        "flags",
        "heredocs",
        "json",
        "keyword",
        "line",
        "name",
        "pairs",
        "start",
        "words",
    )

    def __init__(self, line: Line, begin: int, end: int) -> None:
        self.line = line
        self.begin = begin
        self.keyword = keyword = line.word(begin, end)
        self.name = keyword.text.lower()
        self.flags: tuple[Flag, ...] = ()
        self.start = self.end = len(line.text)
        self.words: list[Word] = []
        self.pairs: list[Pair] = []
        self.json = False
        self.child: Split | None = None
        self.heredocs: list[Heredoc] = []

    @property
    def rest(self) -> Word:
        return self.line.word(self.start, self.end)


class _Lexemes(NamedTuple):
    """The regular expressions that depend on the escape character."""

    flag: re.Pattern[str]
    word: re.Pattern[str]
    special: re.Pattern[str]


@lru_cache(maxsize=2)
def _lexemes(escape: str) -> _Lexemes:
    e = re.escape(escape)
    escaped = rf"{e}(?:.|\Z)"
    flag = (
        rf"(?:[^{_ASCII_SPACE}'\"{e}]++|{escaped}"
        rf"|'(?:[^'{e}]++|{escaped})*+(?:'|\Z)|\"(?:[^\"{e}]++|{escaped})*+(?:\"|\Z))*+"
    )
    word = rf"(?:[^{SPACE}'\"{e}]++|{e}.|'[^']*+(?:'|\Z)|\"(?:[^\"{e}]++|{e}.)*+(?:\"|{e}?\Z))*+"
    return _Lexemes(re.compile(flag, re.DOTALL), re.compile(word, re.DOTALL), re.compile(rf"['\"{e}]"))


def split(line: Line, escape: str, start: int = 0) -> Split:
    """Cut a line from `start` on.

    Raises:
        AerogelError: for what no instruction can be made of.
    """
    text = line.text
    gap = _GAP.search(text, start)
    end = gap.start() if gap else len(text)
    parts = Split(line, start, end)
    at = _split_flags(parts, gap.end(), escape) if gap else end
    solid = len(text.rstrip(SPACE))
    while at < solid and text[at] in SPACE:
        at += 1
    parts.start, parts.end = min(at, solid), solid
    cut = _CUTTERS.get(parts.name)
    if cut is not None and parts.start < parts.end:
        cut(parts, escape)
    return parts


def _split_flags(parts: Split, at: int, escape: str) -> int:
    """Take the `--name=value` words from `at` on; returns where they end."""
    line, text = parts.line, parts.line.text
    flags: list[Flag] = []
    while True:
        while at < len(text) and text[at] in _ASCII_SPACE:
            at += 1
        if not text.startswith("--", at):
            break
        match = _lexemes(escape).flag.match(text, at)
        assert match is not None
        start, at = at, match.end()
        written = match.group()
        word = _unquote(written, escape)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        value_start = start + written.find("=") + 1
        flags.append(Flag(name[2:], Word(value, line.span(value_start, at)) if equals else None, line.span(start, at)))
    parts.flags = tuple(flags)
    return at


def _unquote(written: str, escape: str) -> str:
    if _lexemes(escape).special.search(written) is None:
        return written
    out: list[str] = []
    quote = ""
    at = 0
    while at < len(written):
        character = written[at]
        at += 1
        if character == quote:
            quote = ""
        elif character in "'\"" and not quote:
            quote = character
        elif character == escape:
            out.append(written[at : at + 1])
            at += 1
        else:
            out.append(character)
    return "".join(out)


def _cut_nothing(parts: Split, _escape: str) -> None:
    """The whole rest is one argument."""
    parts.words = [parts.rest]


def _cut_blanks(parts: Split, _escape: str) -> None:
    line = parts.line
    parts.words = [line.word(m.start(), m.end()) for m in _SOLID.finditer(line.text, parts.start, parts.end)]


def _cut_json_or_nothing(parts: Split, escape: str) -> None:
    if not _cut_json(parts, parts.start):
        _cut_nothing(parts, escape)


def _cut_json_or_blanks(parts: Split, escape: str) -> None:
    if not _cut_json(parts, parts.start):
        _cut_blanks(parts, escape)


def _cut_json(parts: Split, start: int) -> bool:
    line = parts.line
    if not line.text.startswith("[", start):
        return False
    try:
        strings = parse_array(line.text, start, parts.end)
    except JsonTypeError as error:
        raise AerogelError(
            "a JSON array of an instruction may hold only strings",
            code="dockerfile.json-not-strings",
            span=line.span(error.start, error.end),
            hints=['put it in double quotes: `["like", "this"]`'],
        ) from None
    if strings is None:
        return False
    parts.words += [Word(string.text, line.span(string.start, string.end)) for string in strings]
    parts.json = True
    return True


def _cut_health(parts: Split, _escape: str) -> None:
    text = parts.line.text
    at = parts.start
    while at < parts.end and text[at] not in _ASCII_SPACE:
        at += 1
    parts.words = [parts.line.word(parts.start, at)]
    while at < parts.end and text[at] in _ASCII_SPACE:
        at += 1
    if at < parts.end and not _cut_json(parts, at):
        parts.words.append(parts.line.word(at, parts.end))


def _cut_words(parts: Split, escape: str) -> None:
    """Words with their quotes; a lone escape character at the very end is dropped."""
    line, text, end = parts.line, parts.line.text, parts.end
    pattern = _lexemes(escape).word
    at = parts.start
    while at < end:
        if text[at] in SPACE:
            at += 1
            continue
        match = pattern.match(text, at, end)
        assert match is not None
        stop = match.end()
        if stop < end and text[stop] == escape:
            if stop > at:
                parts.words.append(line.word(at, stop))
            break
        if stop == end and _ends_in_lone_escape(match.group(), escape):
            stop -= 1
        parts.words.append(line.word(at, stop))
        at = match.end()


def _ends_in_lone_escape(word: str, escape: str) -> bool:
    """Whether double quotes are open at the end and the last character escapes nothing."""
    if not word.endswith(escape):
        return False
    quote = ""
    at = 0
    while at < len(word):
        character = word[at]
        if character == escape and quote != "'":
            if at + 1 == len(word):
                return True
            at += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        at += 1
    return False


def _cut_pairs(parts: Split, escape: str) -> None:
    _cut_words(parts, escape)
    words, parts.words = parts.words, []
    line = parts.line
    keyword = parts.keyword.text.upper()
    if not words:
        return
    if "=" not in words[0].text:
        gap = _GAP.search(line.text, parts.start, parts.end)
        if gap is None:
            raise AerogelError(
                f"`{keyword}` needs a value for `{words[0].text}`",
                code="dockerfile.missing-value",
                span=words[0].span,
                hints=[f"the form is `{keyword} {words[0].text}=value`"],
            )
        key, value = line.word(parts.start, gap.start()), line.word(gap.end(), parts.end)
        parts.pairs = [Pair(key, value, legacy=True)]
        return
    for word in words:
        at = word.text.find("=")
        if at < 0:
            raise AerogelError(
                f"`{word.text}` has no `=`",
                code="dockerfile.missing-value",
                span=word.span,
                hints=[f"the form is `{keyword} name=value ...`; a value with blanks needs quotes"],
            )
        name, value_text = word.text[:at], word.text[at + 1 :]
        middle = word.span.start + len(name.encode("utf-8", "surrogateescape"))
        source = word.span.source
        joined = source.data[middle : middle + 1] != b"="
        parts.pairs.append(
            Pair(
                Word(name, word.span if joined else Span(source, word.span.start, middle)),
                Word(value_text, word.span if joined else Span(source, middle + 1, word.span.end)),
            )
        )


def _cut_child(parts: Split, escape: str) -> None:
    """ONBUILD, but only one level deep: what follows a second ONBUILD is refused anyway."""
    keyword = _SOLID.match(parts.line.text, parts.start, parts.end)
    if keyword and keyword.group().lower() == "onbuild":
        parts.child = Split(parts.line, *keyword.span())
        return
    parts.child = split(parts.line, escape, parts.start)


_CUTTERS: dict[str, Callable[[Split, str], None]] = {
    "add": _cut_json_or_blanks,
    "arg": _cut_words,
    "cmd": _cut_json_or_nothing,
    "copy": _cut_json_or_blanks,
    "entrypoint": _cut_json_or_nothing,
    "env": _cut_pairs,
    "expose": _cut_blanks,
    "from": _cut_blanks,
    "healthcheck": _cut_health,
    "label": _cut_pairs,
    "maintainer": _cut_nothing,
    "onbuild": _cut_child,
    "run": _cut_json_or_nothing,
    "shell": _cut_json_or_nothing,
    "stopsignal": _cut_nothing,
    "user": _cut_nothing,
    "volume": _cut_json_or_blanks,
    "workdir": _cut_nothing,
}

INSTRUCTIONS = tuple(name.upper() for name in _CUTTERS)
"""The keywords, in upper case."""


class HeredocWord(NamedTuple):
    """What `[descriptor]<<[-]WORD` says."""

    name: str
    expand: bool
    strip_tabs: bool
    descriptor: int


def parse_heredoc_word(word: str) -> HeredocWord | None:
    """Read `[descriptor]<<[-]WORD`; None if it is something else.

    Raises:
        AerogelError: for a quote that is not closed or a broken variable in WORD.
    """
    match = _HEREDOC.match(word)
    if match is None or not match.group(3):
        return None
    rest = match.group(3)
    names = process(rest, _nothing, "\\", _HEREDOC_NAME).words
    if len(names) != 1:
        return None
    raw = process(rest, _nothing, "\\", _HEREDOC_RAW_NAME).words
    name = names[0]
    expand = _quotes(name) == _quotes(raw[0]) if raw else True
    descriptor = min(int(match.group(1)[:25] or "0"), _MAX_DESCRIPTOR)
    return HeredocWord(name, expand, match.group(2) == "-", descriptor)


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')


def _nothing(_name: str) -> str | None:
    return None


def read_heredocs(parts: Split, reader: Reader) -> None:
    """Read the bodies of the line's here-documents, if its instruction may have some.

    Raises:
        AerogelError: `dockerfile.unterminated-heredoc`.
    """
    inner = parts.child if parts.name == "onbuild" and parts.child else parts
    line = parts.line
    if inner.name not in ("add", "copy", "run") or inner.json or "<<" not in line.text:
        return
    try:
        words = process(line.text, _nothing, "\\", _FIND_HEREDOCS).words
    except AerogelError:
        return
    at = 0
    for word in words:
        if "<<" not in word:
            continue
        try:
            heredoc = parse_heredoc_word(word)
        except AerogelError as error:
            raise AerogelError(error.message, code=error.code, span=inner.rest.span) from None
        if heredoc is None:
            continue
        found = line.text.find(word, at)
        at = found + len(word) if found >= 0 else at
        span = line.span(found, at) if found >= 0 else inner.rest.span
        inner.heredocs.append(_read_body(heredoc, span, reader))
    line.last = reader.at - 1


def _read_body(word: HeredocWord, span: Span, reader: Reader) -> Heredoc:
    first = reader.at
    body = reader.body(word.name, strip_tabs=word.strip_tabs)
    if body.terminator is None:
        hints = [f"a line that is only `{word.name}` must follow"]
        near = reader.nearest_terminator(word.name, first)
        if near is not None:
            hints.append(f"line {near + 1} is nearly it: nothing may stand before or after the word")
        raise AerogelError(
            f"the here-document `{word.name}` is not ended",
            code="dockerfile.unterminated-heredoc",
            span=span,
            hints=hints,
        )
    return Heredoc(
        name=word.name,
        body=body.text,
        expand=word.expand,
        strip_tabs=word.strip_tabs,
        descriptor=word.descriptor,
        span=span,
        body_span=body.span,
        terminator=body.terminator,
    )
