"""Our line parser beside BuildKit's own (the PyPI package `dockerfile`, which wraps BuildKit v0.12.5).

Both trees are turned into the same plain tuples. What is newer than v0.12.5, or where it is plainly broken, is told
apart in `known_difference`.
"""

from __future__ import annotations

import json
import re

import dockerfile

from aerogel.dockerfile.split import INSTRUCTIONS, Split, read_heredocs, split
from aerogel.dockerfile.syntax import Reader
from aerogel.errors import AerogelError, Source

Tree = list[tuple[object, ...]]


def ours(text: str) -> Tree | None:
    """The tree of our line parser, or None if it refuses."""
    source = Source("Dockerfile", text.encode())
    faults: list[AerogelError] = []
    tree: Tree = []
    try:
        reader = Reader(source, faults)
        while (line := reader.next()) is not None:
            parts = split(line, reader.directives.escape)
            if parts.child and parts.child.name == "onbuild":
                raise Newer
            if _text_after_array(parts) or _newer_flag(parts):
                raise Newer
            read_heredocs(parts, reader)
            tree.append(plain(parts))
    except AerogelError:
        return None
    return None if faults or not tree else tree


def plain(parts: Split) -> tuple[object, ...]:
    inner = parts.child or parts
    values: list[str] = [word.text for word in inner.words]
    for pair in inner.pairs:
        values += [pair.key.text, pair.value.text]
    return (
        upper(parts.keyword.text),
        upper(parts.child.keyword.text) if parts.child else None,
        inner.json,
        parts.line.first + 1,
        parts.line.last + 1,
        tuple(f"--{flag.name}" + (f"={flag.value.text}" if flag.value else "") for flag in parts.flags),
        tuple(values) if known(inner.keyword.text, child=parts.child is not None) else (),
        tuple((h.name, h.descriptor, h.body) for h in parts.heredocs),
    )


def theirs(text: str) -> Tree | None:
    """The tree of BuildKit, or None if it refuses."""
    try:
        commands = dockerfile.parse_string(text)
    except dockerfile.GoParseError:
        return None
    return [
        (
            upper(c.cmd),
            upper(c.sub_cmd) if c.sub_cmd else None,
            c.json,
            c.start_line,
            c.end_line,
            c.flags,
            c.value if known(c.sub_cmd or c.cmd, child=bool(c.sub_cmd)) else (),
            tuple((h.name, h.file_descriptor, h.content) for h in c.heredocs),
        )
        for c in commands
    ]


def upper(keyword: str | None) -> str:
    return (keyword or "").upper()


def known(keyword: str | None, *, child: bool) -> bool:
    """Whether the arguments can be compared: the package gives an empty word for what it does not know."""
    return upper(keyword) in INSTRUCTIONS and not (child and upper(keyword) == "ONBUILD")


def known_difference(text: str) -> str | None:
    """Why this input may come out differently, or None.

    v0.12.5 is older than these rules of the frontend: a bare `--` ends the flags, blanks may stand between `<<` and
    the word, most modifiers of variables, the directive `check`, all kinds of blanks before a directive,
    another escape character than the backslash in flags.
    """
    if re.search(r"--[\"'\\`]*(?:\s|$)", text):
        return "bare --"
    if re.search(r"<<-?[\"'\\`]*\s", text):
        return "blank after <<"
    if re.search(r"(?i)#[\s]*check|#[ \t\r\f]*[\v\x85\xa0\u2003]", text):
        return "directives"
    if re.search(r"(?i)#\s*escape\s*=\s*`", text) and re.search(r"--\S*[\"'\\]", text):
        return "escapes in flags"
    if "<<" in text and re.search(r"\$\{[^}]*[:#%/]", text):
        return "modifiers"
    return None


def _text_after_array(parts: Split) -> bool:
    """Whether the arguments begin with an array that v0.12.5 takes although text follows it."""
    inner = parts.child or parts
    text = inner.rest.text
    if inner.name == "healthcheck":
        text = text.partition(inner.words[0].text)[2].strip() if inner.words else ""
    if inner.json or not text.startswith("["):
        return False
    try:
        json.JSONDecoder().raw_decode(text)
    except ValueError:
        return False
    return True


def _newer_flag(parts: Split) -> bool:
    """Whether v0.12.5 garbles a flag, because it has letters outside ASCII."""
    split = (parts, parts.child) if parts.child else (parts,)
    written = [flag.span.text for part in split for flag in part.flags]
    return any(not text.isascii() for text in written)


class Newer(Exception):
    """The input shows a rule that v0.12.5 does not know."""
