"""Moving a lock on by security fixes only: which packages move, and which must move with them.

A package moves if its source has something newer in the security archive. What stays was chosen with other versions of
its neighbours, so all relations are looked at again, as dpkg would on installation: one that no longer holds moves the
package that states it, or the one that it asks for. Relations of packages in a lock are read from the packages.
Spec: Debian Policy 7.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from aerogel.debian import version as versions
from aerogel.debian.control import Relation, format_relations, paragraphs, relations
from aerogel.debian.package import Package
from aerogel.debian.resolve import Chosen
from aerogel.distroless.base import Selection, selection_key
from aerogel.distroless.pool import Origin
from aerogel.distroless.unpacked import unpack
from aerogel.errors import AerogelError, Diagnostic
from aerogel.events import Sink, Warned

__all__ = ["Unmet", "security_only", "unmet"]

_SECURITY = "-security"
_FIELDS = ("depends", "pre_depends", "conflicts", "breaks", "provides")


class Unmet(NamedTuple):
    """A relation that does not hold: `package` states it about the packages `names`."""

    package: str
    text: str
    names: tuple[str, ...]


def unmet(packages: Mapping[str, Package], skip: Collection[str], arch: str) -> list[Unmet]:
    """What does not hold among packages, by name; names in `skip` count as present."""
    given: dict[str, list[tuple[str, str]]] = {}
    for one in packages.values():
        given.setdefault(one.name, []).append((one.name, one.version))
        for relation in (each for group in relations(one.provides) for each in group):
            given.setdefault(relation.name, []).append((one.name, relation.version))

    def meeting(relation: Relation) -> list[str]:
        if not relation.applies_to(arch):
            return []
        return [
            name
            for name, version in given.get(relation.name, ())
            if not relation.operator or (version and versions.satisfies(version, relation.operator, relation.version))
        ]

    found = []
    for _, one in sorted(packages.items()):
        for group in (*relations(one.pre_depends), *relations(one.depends)):
            counts = [each for each in group if each.applies_to(arch)]
            if counts and not any(each.name in skip or meeting(each) for each in counts):
                names = tuple(each.name for each in counts)
                found.append(Unmet(one.name, f"needs `{format_relations((group,))}`", names))
        for field in (one.conflicts, one.breaks):
            for relation in (each for group in relations(field) for each in group):
                others = tuple(name for name in meeting(relation) if name != one.name)
                if others:
                    found.append(Unmet(one.name, f"does not go with `{relation}`", others))
    return found


def security_only(
    selection: Selection, before: Selection, archive: Origin, cache: Path, sink: Sink, *, held: Collection[str] = ()
) -> Selection:
    """The packages of `before`, moved on to those of `selection` where security wants it, or a relation.

    Those of sources in `held` do not move for security. A warning tells of each package that moves because another one does. Raises `base.together` when no version goes
    with the others, and what fetching raises.
    """
    old = {each.package.name: each for each in _described(before, archive, cache)}
    new = {each.package.name: each for each in selection.chosen}
    fixed = {
        each.package.source
        for name, each in new.items()
        if each.package.suite.endswith(_SECURITY) and name in old and old[name].package.sha256 != each.package.sha256
        if each.package.source not in held
    }
    mixed = dict(old)
    mixed |= {
        name: each
        for name, each in new.items()
        if each.package.source in fixed or (_is_asked(each, new) and name not in old)
    }
    _together(mixed, new, selection, sink)
    mixed = _reached(mixed, new, selection)
    ordered = [*(name for name in mixed if name not in new), *(name for name in new if name in mixed)]
    chosen = tuple(mixed[name] for name in ordered)
    key = selection_key(selection.recipe, selection.arch, chosen, selection.tools, selection.underlay)
    return msgspec.structs.replace(selection, chosen=chosen, key=key)


def _together(mixed: dict[str, Chosen], new: Mapping[str, Chosen], selection: Selection, sink: Sink) -> None:
    """Moves packages until all relations hold."""
    skip, underlay = selection.recipe.skip, selection.underlay
    installed = {each.name: each for each in underlay.packages(selection.arch)} if underlay is not None else {}
    while True:
        packages = installed | {name: each.package for name, each in mixed.items()}
        faults = [
            one
            for one in unmet(packages, skip, selection.arch)
            if one.package in mixed or not mixed.keys().isdisjoint(one.names)
        ]
        if not faults:
            return
        fault = faults[0]
        for name in (fault.package, *fault.names):
            after = new.get(name)
            if after is not None and (name not in mixed or mixed[name].package.sha256 != after.package.sha256):
                _tell(fault, mixed.get(name), after, packages[fault.package], sink)
                mixed |= {
                    each.package.name: each
                    for each in new.values()
                    if each.package.source == after.package.source and (each is after or each.package.name in mixed)
                }
                break
        else:
            for name in (fault.package, *fault.names):
                if name in mixed and name not in new:  # today's choice does without it
                    del mixed[name]
                    break
            else:
                raise AerogelError(
                    f"`{packages[fault.package]}` {fault.text}, which no version of today offers",
                    code="base.together",
                    hints=["update without `--security-only`"],
                )


def _tell(fault: Unmet, before: Chosen | None, after: Chosen, states: Package, sink: Sink) -> None:
    name, version = after.package.name, after.package.version
    what = (
        f"`{name}` moves too, from {before.package.version} to {version}" if before else f"`{name}` {version} is added"
    )
    message = f"{what}: `{states.name}` {states.version} {fault.text}"
    sink.emit(Warned(Diagnostic(message, code="base.together")))


def _is_asked(each: Chosen, known: Mapping[str, Chosen]) -> bool:
    """Whether a package is there for itself, or for a file, and not because another package needs it."""
    return len(each.why) < 2 or each.why[-2] not in known


def _reached(mixed: Mapping[str, Chosen], new: Mapping[str, Chosen], selection: Selection) -> dict[str, Chosen]:
    """Without what nothing asks for any more."""
    providers: dict[str, list[str]] = {}
    for name, each in mixed.items():
        for provided in (name, *(one.name for group in relations(each.package.provides) for one in group)):
            providers.setdefault(provided, []).append(name)
    found: set[str] = set()
    queue = [name for name, each in new.items() if name in mixed and _is_asked(each, new)]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.add(name)
        one = mixed[name].package
        fields = [one.pre_depends, one.depends, *([one.recommends] if selection.recipe.recommends else [])]
        for relation in (each for field in fields for group in relations(field) for each in group):
            queue += providers.get(relation.name, ())
    return {name: each for name, each in mixed.items() if name in found}


def _described(before: Selection, archive: Origin, cache: Path) -> Iterable[Chosen]:
    """The packages of a lock with their relations."""
    packages: Sequence[Package] = before.packages
    debs = archive.fetch_all(packages)
    found = []
    with unpack(packages, debs, cache) as unpacked:
        for each, one in zip(before.chosen, unpacked, strict=True):
            fields = next(paragraphs(one.control["control"].decode("utf-8", "replace")))
            stated = {name: fields.get(name.replace("_", "-"), "") for name in (*_FIELDS, "recommends")}
            found.append(Chosen(msgspec.structs.replace(each.package, **stated), each.why))
    return found
