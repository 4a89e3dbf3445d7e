"""A health check by curl, wget, nc or test as the words for `aerogel-probe`, which needs no shell.

Only what means the same is translated: a command with anything that is not understood gives nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

__all__ = ["probe_words"]

PROGRAM = "/aerogel-probe"
_LAST = re.compile(r"\s*\|\|\s*(?:exit|return)\s+1\s*;?\s*$|\s*\|\|\s*false\s*$")
_QUIET = re.compile(r"(?:\s*(?:[12&]?>+\s*/dev/null|2>&1))+\s*$")
_SPECIAL = re.compile(r"[|&;<>()$`\\*#~\n]")
_ADDRESS = re.compile(r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:.]+\])")
_URL = re.compile(rf"(?:http://)?({_ADDRESS.pattern}(?::\d+)?(?:[/?][^\s#]*)?)")
_FLAGS = re.compile(r"-[fsSLkIqv]+")
_CURL = ("--fail", "--silent", "--show-error", "--location", "--head", "--insecure", "--fail-with-body")
_WGET = ("--quiet", "--spider", "-q", "-nv", "--no-verbose", "--no-check-certificate", "-O-")


def probe_words(text: str) -> list[str] | None:
    """The words, or None when the line is no check that the probe can make."""
    line = _QUIET.sub("", _LAST.sub("", text.strip()))
    line = _QUIET.sub("", _LAST.sub("", line))
    if _SPECIAL.search(line):
        return None
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    if words[:2] in (["sh", "-c"], ["/bin/sh", "-c"], ["bash", "-c"], ["/bin/bash", "-c"]):
        return probe_words(words[2]) if len(words) == 3 else None
    if not words:
        return None
    made = {"curl": _curl, "wget": _wget, "nc": _nc, "ncat": _nc, "test": _test, "[": _test}
    make: Callable[[Sequence[str]], list[str] | None] | None = made.get(words[0].rpartition("/")[2])
    found = make(words[1:]) if make is not None else None
    return [PROGRAM, *found] if found else None


def _curl(words: Sequence[str]) -> list[str] | None:
    more: list[str] = []
    url = ""
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word in _CURL or _FLAGS.fullmatch(word):
            continue
        if name in ("-m", "--max-time", "--connect-timeout"):
            value = value if equals else next(rest, "")
            if not value.isdigit():
                return None
            more = ["--timeout", value]
        elif word in ("-H", "--header"):
            more += ["--header", next(rest, "")]
        elif word in ("-o", "--output"):
            if next(rest, "") != "/dev/null":
                return None
        elif word.startswith("-") or url:
            return None
        else:
            url = word
    return _http(url, more)


def _wget(words: Sequence[str]) -> list[str] | None:
    more: list[str] = []
    url = ""
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word in _WGET or name in ("--tries", "--output-document") or word in ("-qO-", "-qO"):
            if word in ("-qO", "--output-document", "--tries"):
                next(rest, "")
            continue
        if word in ("-O", "-t"):
            next(rest, "")
        elif name in ("-T", "--timeout"):
            value = value if equals else next(rest, "")
            if not value.isdigit():
                return None
            more = ["--timeout", value]
        elif word.startswith("-") or url:
            return None
        else:
            url = word
    return _http(url, more)


def _http(url: str, more: Sequence[str]) -> list[str] | None:
    found = _URL.fullmatch(url)
    return ["http", found[1], *more] if found is not None else None


def _nc(words: Sequence[str]) -> list[str] | None:
    more: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "-w":
            seconds = next(left, "")
            if not seconds.isdigit():
                return None
            more = ["--timeout", seconds]
        elif re.fullmatch(r"-[zv]+", word):
            continue
        else:
            rest.append(word)
    if len(rest) != 2 or not _ADDRESS.fullmatch(rest[0]) or not rest[1].isdigit():
        return None
    return ["tcp", f"{rest[0]}:{rest[1]}", *more]


def _test(words: Sequence[str]) -> list[str] | None:
    words = [word for word in words if word != "]"]
    if len(words) != 2 or words[0] not in ("-e", "-f") or not words[1].startswith("/"):
        return None
    return ["file", words[1]]
