"""Debian version numbers: order, and whether one satisfies a relation.

For: choosing between candidates of the same name. Not for: rewriting or inventing versions.
Spec: Debian Policy 5.6.12 and dpkg's lib/dpkg/version.c (`verrevcmp`), which is followed where they differ.
"""

from __future__ import annotations

import re

from aerogel.errors import EXIT_FAILED, AerogelError

__all__ = ["RELATIONS", "check", "compare", "key", "satisfies"]

RELATIONS = ("<<", "<=", "=", ">=", ">>")
"""The relations of dependency fields; the old `<` and `>` (they meant `<=` and `>=`) are mapped by the parser."""

Key = tuple[int, tuple[object, ...], tuple[object, ...]]

_PAIR = re.compile(r"([^0-9]*)([0-9]*)")
_VALID = re.compile(r"[0-9]+:[0-9A-Za-z.+:~-]+|[0-9A-Za-z.+~-]+")


def key(version: str) -> Key:
    """A value that orders as dpkg orders the version. Never fails: nonsense gets some stable place."""
    epoch, colon, rest = version.partition(":")
    if not (colon and epoch.isascii() and epoch.isdigit()):
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch[-18:]), _part(upstream), _part(revision)


def compare(left: str, right: str) -> int:
    """-1, 0 or 1, as `dpkg --compare-versions` sees it."""
    a, b = key(left), key(right)
    return (a > b) - (a < b)


def satisfies(version: str, relation: str, wanted: str) -> bool:
    """Whether `version` stands in `relation` (one of `RELATIONS`, or empty: any) to `wanted`."""
    if not relation:
        return True
    order = compare(version, wanted)
    return {
        "<<": order < 0,
        "<=": order <= 0,
        "=": order == 0,
        ">=": order >= 0,
        ">>": order > 0,
    }[relation]


def check(version: str) -> str:
    """Returns the version unchanged.

    Raises:
        AerogelError: `debian.version` when it is empty or holds a character that no version has.
    """
    if not _VALID.fullmatch(version):
        raise AerogelError(
            f"`{version}` is not a Debian version",
            code="debian.version",
            hints=["a version looks like `1:2.36-9+deb12u4`: letters, digits and `. + - ~ :`"],
            exit_status=EXIT_FAILED,
        )
    return version


def _part(text: str) -> tuple[object, ...]:
    """Pairs of (non-digits, number), closed by what an ended string counts as: no text, then zero.

    A number is (length, digits) without leading zeros: the same order as the integer, with no limit to its length.
    """
    flat: list[object] = []
    for letters, digits in _PAIR.findall(text)[:-1] or [("", "")]:
        number = digits.lstrip("0")
        flat += (_weights(letters), len(number), number)
    flat += ((0,), 0, "")
    return tuple(flat)


def _weights(letters: str) -> tuple[int, ...]:
    """`~` before the end, the end before letters, letters before everything else."""
    return (*(-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in letters), 0)
