"""Variables in compose files: `${NAME:-word}` and its kin, and `.env` files.

Spec: compose specification interpolation.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aerogel.errors import EXIT_USAGE, AerogelError, Span

__all__ = ["interpolate", "parse_dotenv"]

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)|\{(?P<braced>[_a-zA-Z][_a-zA-Z0-9]*)(?:(?P<sign>:?[-+?])(?P<word>(?:[^{}]|\{[^}]*\})*))?\}|(?P<bad>))"
)
_LINE = re.compile(
    r"^\s*(?:export\s+)?(?P<name>[\w.]+)\s*[=:]\s*(?P<value>'[^']*'|\"(?:[^\"\\]|\\.)*\"|[^#\n]*?)\s*(?:\s#.*)?$"
)


def parse_dotenv(text: str, lookup: Callable[[str], str | None]) -> dict[str, str]:
    """The variables of an `.env` file; values in double quotes and bare ones may use others."""
    found: dict[str, str] = {}

    def known(name: str) -> str | None:
        return found.get(name, lookup(name))

    for line in text.splitlines():
        match = _LINE.match(line)
        if line.lstrip().startswith("#") or match is None:
            continue
        value = match["value"].strip()
        if value[:1] == "'" and value[-1:] == "'":
            found[match["name"]] = value[1:-1]
            continue
        if value[:1] == '"' and value[-1:] == '"':
            value = value[1:-1].replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
        found[match["name"]] = interpolate(value, known, None)
    return found


def interpolate(text: str, lookup: Callable[[str], str | None], span: Span | None) -> str:
    """`$NAME`, `${NAME:-word}` and its kin; `$$` is one `$`. Raises `bake.compose-variable`."""

    def one(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name = match["name"] or match["braced"]
        if name is None:
            raise _fault(f"`{text}` has a `$` without a variable", span, "write `$$` for one `$`")
        value, sign = lookup(name), match["sign"] or ""
        is_there = value is not None and (value != "" or not sign.startswith(":"))
        word = match["word"] or ""
        if sign.endswith("-"):
            return value or "" if is_there else interpolate(word, lookup, span)
        if sign.endswith("+"):
            return interpolate(word, lookup, span) if is_there else ""
        if sign.endswith("?") and not is_there:
            message = f"the variable `{name}` is not set: {word or 'it is needed'}"
            raise _fault(message, span, "set it in the environment, in `.env` or with `--var`")
        return value or ""

    return _VARIABLE.sub(one, text)


def _fault(message: str, span: Span | None, hint: str) -> AerogelError:
    return AerogelError(message, code="bake.compose-variable", span=span, exit_status=EXIT_USAGE, hints=[hint])
