"""Control data: paragraphs of `Field: value` lines, and the relation fields in them.

For: control files, apt's `.sources` files, Release files, dependency fields. The parser of whole `Packages`
indexes, where speed counts, is `index.py`.
Spec: deb822(5), Debian Policy 5.1 and 7.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from aerogel.errors import AerogelError

__all__ = ["Relation", "format_relations", "paragraphs", "relations"]


class Relation(msgspec.Struct, frozen=True, gc=False):
    """One alternative: `name:qualifier (operator version) [architectures]`; empty strings for what is not there.

    `architectures` keeps `!` in front of negated names.
    """

    name: str
    qualifier: str = ""
    operator: str = ""
    version: str = ""
    architectures: tuple[str, ...] = ()

    def applies_to(self, architecture: str) -> bool:
        """Whether the `[...]` list, if any, lets the relation count on an architecture."""
        if not self.architectures:
            return True
        if self.architectures[0].startswith("!"):
            return f"!{architecture}" not in self.architectures
        return architecture in self.architectures or "any" in self.architectures

    def __str__(self) -> str:
        text = f"{self.name}:{self.qualifier}" if self.qualifier else self.name
        if self.operator:
            text += f" ({self.operator} {self.version})"
        if self.architectures:
            text += f" [{' '.join(self.architectures)}]"
        return text


_RELATION = re.compile(
    r"""\s*([A-Za-z0-9][A-Za-z0-9+.-]*)          # name
        (?::([A-Za-z0-9][A-Za-z0-9-]*))?\s*      # architecture qualifier
        (?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([0-9A-Za-z.+:~-]+)\s*\))?\s*
        (?:\[\s*([^\]]*?)\s*\])?\s*
        (?:<[^>]*>\s*)*                          # build profiles mean nothing in a binary package
    """,
    re.VERBOSE,
)
_OLD_OPERATORS = {"<": "<=", ">": ">="}


def relations(field: str) -> tuple[tuple[Relation, ...], ...]:
    """Parses `a (>= 1) | b, c:any`: all groups are needed, one of each group's alternatives is enough.

    Grammar: field = group ("," group)*; group = relation ("|" relation)*; empty groups are ignored.

    Raises:
        AerogelError: `debian.relation` with the part that does not parse.
    """
    groups = []
    for part in field.split(","):
        if not part.strip():
            continue
        groups.append(tuple(_relation(alternative, field) for alternative in part.split("|")))
    return tuple(groups)


def _relation(text: str, field: str) -> Relation:
    found = _RELATION.fullmatch(text)
    if found is None:
        raise AerogelError(
            f"`{text.strip()}` is not a package relation",
            code="debian.relation",
            detail=f"in: {field.strip()[:300]}",
            hints=["a relation looks like `name`, `name (>= 1.2)` or `name:any`, alternatives stand between `|`"],
        )
    name, qualifier, operator, version, architectures = found.groups()
    return Relation(
        name,
        qualifier or "",
        _OLD_OPERATORS.get(operator, operator) or "",
        version or "",
        tuple(architectures.split()) if architectures else (),
    )


def format_relations(groups: tuple[tuple[Relation, ...], ...]) -> str:
    """The opposite of `relations`, in the usual spacing."""
    return ", ".join(" | ".join(str(relation) for relation in group) for group in groups)


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Yields each paragraph as a dictionary from lower-case field name to value.

    A value keeps its line breaks; the first blank of continuation lines is cut off, a line of one dot is kept as it
    is. Lines that begin with `#` are comments. What is no field (an apt source line by mistake, say) is an error.

    Raises:
        AerogelError: `debian.control` with the line number.
    """
    fields: dict[str, str] = {}
    name = ""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")  # noqa: PLW2901  the line end is not part of the line
        if line.startswith("#"):
            continue
        if not line.strip(" \t"):
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if not name:
                raise _fault(number, line, "continues no field")
            fields[name] += "\n" + line[1:]
        else:
            field, colon, value = line.partition(":")
            if not colon or not field or " " in field.strip():
                raise _fault(number, line, "is no `Field: value`")
            name = field.strip().lower()
            if name in fields:
                raise _fault(number, line, "repeats a field")
            fields[name] = value.strip(" \t")
    if fields:
        yield fields


def _fault(number: int, line: str, what: str) -> AerogelError:
    return AerogelError(f"line {number} {what}: `{line[:80]}`", code="debian.control")
