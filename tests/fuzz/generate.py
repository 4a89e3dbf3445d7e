"""Random Dockerfiles: from a grammar that likes the corners, and by mutation of what it made."""

from __future__ import annotations

import random

KEYWORDS = [
    "FROM",
    "RUN",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "LABEL",
    "CMD",
    "ENTRYPOINT",
    "EXPOSE",
    "VOLUME",
    "USER",
    "WORKDIR",
    "SHELL",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "ONBUILD",
    "MAINTAINER",
]
BITS = [
    "a",
    "b1",
    "foo",
    "/app",
    ".",
    "x=1",
    'k="v',
    'w"',
    "'q",
    "r'",
    '"d\\"e"',
    "\\",
    "\\\\",
    "`",
    "$x",
    "${y:-z}",
    "${a#b}",
    '"',
    "'",
    "=",
    "==",
    "a\\",
    "b",
    "[",
    "]",
    '["a"]',
    '["a",',
    '"b\\u0041"]',
    "[1]",
    "[]",
    '["a",]',
    "['a']",
    "[null]",
    '[{"a":[1]}]',
    '["\\ud800"]',
    "[1e999]",
    "<<",
    "<<EOF",
    "<<-E",
    "3<<X",
    '<<"Q"',
    "<<'R'",
    "<<E",
    "<<$x",
    "<<${v:=1}",
    "--flag",
    "--a=b",
    '--c="d',
    'e"',
    "--e='f",
    "--g=h\\",
    "i",
    "#",
    "#c",
    "AS",
    "as",
    "NONE",
    "CMD",
    "none",
    "cmd",
    "\t",
    "\r",
    "\x0b",
    "\x0c",
    "\xa0",
    "é",
    "\u2003",
    "&&",
    "it's",
    "\ufeff",
    "\x1f",
    "--",
    "-x",
    "k=",
    "=v",
    "80/tcp",
    "$",
    "${",
    "}",
    "${}",
    "${x/a/b}",
    "${x:?}",
]
LINES = (
    "",
    " ",
    "\t",
    "#",
    "# c",
    " # i",
    "#\\",
    "# escape=`",
    "#escape=\\",
    "# ESCAPE = `",
    "# syntax=docker/dockerfile:1",
    "# check=skip=all",
    "# escape=x",
    "# other=1",
    "EOF",
    "E",
    "\tE",
    "X",
    "Q",
    "R",
    "\\",
    "`",
    " \\ ",
    "a\\",
    "&& b \\",
    "FOO x",
    "foo",
    "\ufeff# x",
)
ENDS = ("\n", "\n", "\n", "\n", "\r\n", "\\\n", " \\\n", "\\ \t\n", "`\n", "\\\\\n", "\\\r\n", "\\\n\n", "\\\n# c\n")


def words(rng: random.Random) -> str:
    return "".join(rng.choice(BITS) + rng.choice(("", " ", " ", " ", "  ")) for _ in range(rng.randrange(6)))


def line(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(LINES) + rng.choice(ENDS)
    keyword = rng.choice(KEYWORDS)
    if rng.random() < 0.2:
        keyword = keyword.lower()
    if keyword.upper() == "ONBUILD" and rng.random() < 0.9:
        keyword += " " + rng.choice(KEYWORDS)
    text = rng.choice(("", "", "", " ", "\t")) + keyword + rng.choice((" ", " ", " ", "", "\t", "  "))
    return text + words(rng) + rng.choice(ENDS)


def document(rng: random.Random) -> str:
    text = "".join(line(rng) for _ in range(rng.randrange(1, 6)))
    return text if rng.random() < 0.8 else text.rstrip("\n")


def mutate(rng: random.Random, text: str) -> str:
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.randrange(4))
        kind = rng.randrange(4)
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + rng.choice(BITS) + text[end:]
        elif kind == 2:
            text = text[:at] + text[at:end] * 2 + text[end:]
        else:
            text = text[:at] + rng.choice("\n\\`\"' \t#<=-[$,") + text[at:]
    return text


def documents(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    made: list[str] = []
    while len(made) < count:
        text = document(rng)
        made.append(text)
        made += (mutate(rng, text) for _ in range(2))
    return made[:count]
