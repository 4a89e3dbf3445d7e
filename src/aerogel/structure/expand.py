"""`$NAME` and `${NAME}` as Go's os.Expand replaces them; what is not set becomes nothing."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["expand"]

_SPECIAL = "*#$@!?-0123456789"


def expand(text: str, values: Mapping[str, str]) -> str:
    """The text with variables replaced. A `$` before anything else stays."""
    pieces: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0 and dollar + 1 < len(text):
        pieces.append(text[at:dollar])
        name, length = _name(text[dollar + 1 :])
        if name:
            pieces.append(values.get(name, ""))
        elif not length:
            pieces.append("$")
        at = dollar + 1 + length
    return "".join([*pieces, text[at:]])


def _name(rest: str) -> tuple[str, int]:
    """A variable's name, and how many characters to go on; no name and some characters is a syntax error, eaten."""
    if rest[0] == "{":
        if len(rest) > 2 and rest[1] in _SPECIAL and rest[2] == "}":
            return rest[1], 3
        end = rest.find("}")
        if end > 1:
            return rest[1:end], end + 1
        return ("", 2) if end == 1 else ("", 1)
    if rest[0] in _SPECIAL:
        return rest[0], 1
    length = 0
    while length < len(rest) and (rest[length] == "_" or (rest[length].isascii() and rest[length].isalnum())):
        length += 1
    return rest[:length], length
