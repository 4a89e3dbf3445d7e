"""`--chmod`: octal, or the symbolic form of chmod(1) with no umask. Standard library only."""

from __future__ import annotations

import re
from typing import NamedTuple

from aerogel.errors import AerogelError

__all__ = ["Chmod", "parse_chmod"]

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]*|[ugo])")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_PERMISSION = {"r": 4, "w": 2, "x": 1}


class Chmod(NamedTuple):
    """A change of permission bits: `mode` sets all of them; else `clauses` are applied in order."""

    mode: int | None
    clauses: tuple[tuple[str, str, str], ...] = ()
    """(who, operator, permissions)"""

    def apply(self, mode: int, *, is_dir: bool) -> int:
        """The new 07777 bits of a file that has `mode`."""
        if self.mode is not None:
            return self.mode
        for who, operator, what in self.clauses:
            mode = _apply(mode, who, operator, what, is_dir=is_dir)
        return mode


def parse_chmod(text: str) -> Chmod:
    """Raises AerogelError `copy.bad-chmod` with what is valid."""
    if re.fullmatch(r"[0-7]+", text) and int(text, 8) <= 0o7777:
        return Chmod(int(text, 8))
    clauses: list[tuple[str, str, str]] = []
    for part in text.split(","):
        found = _CLAUSE.fullmatch(part)
        if found is None:
            raise AerogelError(
                f"`--chmod={text}` is neither octal (0 to 07777) nor symbolic (`u+x`, `go=rX`)",
                code="copy.bad-chmod",
                hints=["for example `--chmod=755` or `--chmod=u=rwX,go=rX`"],
            )
        who = "".join(sorted(set(found[1].replace("a", "ugo")))) or "ugo"
        clauses += [(who, action[1], action[2]) for action in _ACTION.finditer(found[2])]
    return Chmod(None, tuple(clauses))


def _apply(mode: int, who: str, operator: str, what: str, *, is_dir: bool) -> int:
    bits = 0
    special = 0
    if what in _SHIFT and len(what) == 1:
        permission = mode >> _SHIFT[what] & 7
    else:
        permission = sum(_PERMISSION[letter] for letter in set(what) if letter in _PERMISSION)
        if "X" in what and (is_dir or mode & 0o111):
            permission |= 1
        if "s" in what:
            special |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
        if "t" in what:
            special |= 0o1000
    for each in who:
        bits |= permission << _SHIFT[each]
    bits |= special
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    cleared = 0
    for each in who:
        cleared |= 7 << _SHIFT[each]
        cleared |= {"u": 0o4000, "g": 0o2000, "o": 0o1000}[each] if not is_dir else 0
    return mode & ~cleared | bits
