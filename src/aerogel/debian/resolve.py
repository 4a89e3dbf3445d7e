"""Which packages a list of names needs: the closure of Depends and Pre-Depends over several suites.

For: images, where a package set is made from nothing: no upgrade, no removal, one version per name. The choice is
made as apt makes it for an empty system (the highest version of a name, the first alternative that can be had, what
is chosen already before anything new), without looking back, so the same indexes always give the same answer. Not
for: Recommends unless asked for.
Spec: Debian Policy 3.8, 7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from aerogel.debian import version as versions
from aerogel.debian.control import Relation, relations
from aerogel.debian.package import Package
from aerogel.errors import AerogelError, nearest

__all__ = ["Chosen", "Packages", "essential_names", "resolve"]


class Packages(Protocol):
    """What is looked at: `index.PackageIndex`, or anything like it."""

    suite: str

    def named(self, name: str, /) -> Sequence[Package]: ...
    def providers(self, name: str, /) -> Sequence[Package]: ...
    def essential(self) -> Sequence[Package]: ...
    def names(self) -> Iterable[str]: ...


class Chosen(msgspec.Struct, frozen=True):
    """A package of the answer. `why` is the chain of names that led to it, from what was asked for to itself."""

    package: Package
    why: tuple[str, ...]


def resolve(
    names: Sequence[str],
    indexes: Sequence[Packages],
    *,
    arch: str,
    essential: bool = False,
    recommends: bool = False,
    skip: Collection[str] = (),
    installed: Sequence[Package] = (),
) -> list[Chosen]:
    """The packages for `names`, dependencies before what needs them, the same order for the same set.

    A name may be a relation: `libpq5 (>= 17)`, `a | b`, or a name that only others provide. `essential` adds every
    essential package. Names in `skip` count as present wherever they are needed and are never added. Cycles (libc6
    and libgcc-s1) are cut at the name that sorts first. Recommends that cannot be had are left out.

    `installed` are there already: they are no part of the answer, keep their versions, and their own needs are nobody's
    business here.

    Raises:
        AerogelError: `debian.unsatisfiable` with the chain of needs, `debian.conflict`, `debian.relation`.
    """
    universe = _Universe(indexes, arch)
    wanted = [*(essential_names(indexes) if essential else ()), *names]
    solver = _Solver(universe, frozenset(skip), installed, recommends=recommends)
    solver.ask(wanted)
    solver.close()
    solver.check_conflicts()
    return solver.ordered()


def essential_names(indexes: Sequence[Packages]) -> list[str]:
    """The names of the essential packages, sorted."""
    return sorted({package.name for index in indexes for package in index.essential()})


class _Universe:
    """All candidates of one architecture, the best version of a name first."""

    def __init__(self, indexes: Sequence[Packages], arch: str) -> None:
        self._indexes = indexes
        self._arch = arch
        self._candidates: dict[str, tuple[Package, ...]] = {}
        self._providers: dict[str, tuple[tuple[Package, str], ...]] = {}
        self.where = f"{', '.join(dict.fromkeys(index.suite for index in indexes))} ({arch})"

    def candidates(self, name: str) -> tuple[Package, ...]:
        """The packages of a name, highest version first; of equal versions the first index's."""
        found = self._candidates.get(name)
        if found is None:
            packages = [package for index in self._indexes for package in index.named(name)]
            packages = [package for package in packages if package.architecture in ("all", self._arch)]
            packages.sort(key=lambda package: versions.key(package.version), reverse=True)
            found = self._candidates[name] = tuple(packages)
        return found

    def providers(self, name: str) -> tuple[tuple[Package, str], ...]:
        """Packages whose best version provides the name, with the version provided; a fixed order."""
        found = self._providers.get(name)
        if found is None:
            names = sorted({package.name for index in self._indexes for package in index.providers(name)})
            pairs = []
            for provider in names:
                best = self.candidates(provider)[:1]
                pairs += [(package, given) for package in best for given in _provided(package, name)]
            pairs.sort(key=lambda pair: (_PRIORITIES.get(pair[0].priority, 9), pair[0].name))
            found = self._providers[name] = tuple(pairs)
        return found

    def satisfying(self, relation: Relation) -> list[Package]:
        """What could satisfy one alternative, the best first; empty for another architecture."""
        if relation.qualifier not in ("", "any", "native", self._arch) or not relation.applies_to(self._arch):
            return []
        found = [package for package in self.candidates(relation.name) if _fits(package.version, relation)]
        found += [package for package, given in self.providers(relation.name) if _fits_provided(given, relation)]
        return found

    def is_met_by(self, package: Package, relation: Relation) -> bool:
        if relation.qualifier not in ("", "any", "native", self._arch) or not relation.applies_to(self._arch):
            return False
        if package.name == relation.name and _fits(package.version, relation):
            return True
        return any(_fits_provided(given, relation) for given in _provided(package, relation.name))

    def similar(self, name: str) -> str | None:
        return nearest(name, (known for index in self._indexes for known in index.names() if known[:1] == name[:1]))


_PRIORITIES = {"required": 0, "important": 1, "standard": 2, "optional": 3}


def _fits(version: str, relation: Relation) -> bool:
    return versions.satisfies(version, relation.operator, relation.version)


def _fits_provided(given: str, relation: Relation) -> bool:
    """A Provides without version satisfies only a relation without version."""
    return not relation.operator or (bool(given) and _fits(given, relation))


def _provided(package: Package, name: str) -> list[str]:
    """The versions (empty: none stated) in which a package provides a name."""
    if name not in package.provides:
        return []
    return [relation.version for group in relations(package.provides) for relation in group if relation.name == name]


class _Solver:
    def __init__(
        self, universe: _Universe, skip: frozenset[str], installed: Sequence[Package], *, recommends: bool
    ) -> None:
        self._universe = universe
        self._skip = skip
        self._recommends = recommends
        self._installed = {package.name: package for package in installed}
        self._chosen = dict(self._installed)
        self._why: dict[str, tuple[str, ...]] = {}
        self._needs: dict[str, list[tuple[Relation, ...]]] = {}
        self._queue: deque[str] = deque()

    def ask(self, names: Sequence[str]) -> None:
        """Takes what is asked for by its own name first, so that alternatives can see all of it."""
        groups = [group for name in names for group in relations(name)]
        groups.sort(key=lambda group: len(group) > 1 or not self._universe.candidates(group[0].name))
        for group in groups:
            self._meet(group, (), must=True)

    def close(self) -> None:
        """Breadth first: the chain of each package is one of the shortest."""
        while self._queue:
            name = self._queue.popleft()
            package = self._chosen[name]
            for group in self._needs[name]:
                self._meet(group, self._why[name], must=True)
            if self._recommends:
                for group in relations(package.recommends):
                    self._meet(group, self._why[name], must=False)

    def _meet(self, group: tuple[Relation, ...], chain: tuple[str, ...], *, must: bool) -> None:
        if self._is_met(group):
            return
        for relation in group:
            for package in self._universe.satisfying(relation):
                if package.name not in self._chosen and package.name not in self._skip:
                    self._take(package, chain)
                    return
        if must:
            raise self._unsatisfiable(group, chain)

    def _is_met(self, group: tuple[Relation, ...]) -> bool:
        return any(relation.name in self._skip or self._meeting(relation) is not None for relation in group)

    def _meeting(self, relation: Relation) -> Package | None:
        """The chosen package that satisfies a relation."""
        direct = self._chosen.get(relation.name)
        if direct is not None and self._universe.is_met_by(direct, relation):
            return direct
        for package, _ in self._universe.providers(relation.name):
            held = self._chosen.get(package.name)
            if held is not None and self._universe.is_met_by(held, relation):
                return held
        return next((one for one in self._installed.values() if self._universe.is_met_by(one, relation)), None)

    def _take(self, package: Package, chain: tuple[str, ...]) -> None:
        self._chosen[package.name] = package
        self._why[package.name] = (*chain, package.name)
        self._needs[package.name] = [*relations(package.pre_depends), *relations(package.depends)]
        self._queue.append(package.name)

    def check_conflicts(self) -> None:
        """No chosen package may conflict with or break another.

        Raises:
            AerogelError: `debian.conflict`.
        """
        for name in sorted(self._chosen):
            package = self._chosen[name]
            for field, text in (("Conflicts", package.conflicts), ("Breaks", package.breaks)):
                for relation in (relation for group in relations(text) for relation in group):
                    other = self._meeting(relation)
                    if other is not None and other.name != name and not {name, other.name} <= self._installed.keys():
                        raise AerogelError(
                            f"`{package}` and `{other}` cannot be together: {field}: {relation}",
                            code="debian.conflict",
                            detail=f"{self._led_to(name)}\n{self._led_to(other.name)}",
                            hints=["leave one of them out, or name the one that is needed"],
                        )

    def _led_to(self, name: str) -> str:
        return f"{name} is installed already" if name in self._installed else _chain(self._why[name])

    def ordered(self) -> list[Chosen]:
        """Dependencies first. Depth first from the names in sorted order, Pre-Depends before Depends."""
        done: dict[str, None] = {}
        for root in sorted(self._why):
            _visit(root, self._edges, done)
        return [Chosen(self._chosen[name], self._why[name]) for name in done]

    def _edges(self, name: str) -> list[str]:
        met = [self._meeting(relation) for group in self._needs[name] for relation in group]
        return [package.name for package in met if package is not None and package.name in self._why]

    def _unsatisfiable(self, group: tuple[Relation, ...], chain: tuple[str, ...]) -> AerogelError:
        wanted = " | ".join(str(relation) for relation in group)
        reasons = []
        hints = []
        for relation in group:
            held = self._chosen.get(relation.name)
            known = self._universe.candidates(relation.name)
            if held is not None and held.name in self._installed:
                reasons.append(f"{held} is installed already")
            elif held is not None:
                reasons.append(f"{held} was chosen already: {_chain(self._why[held.name])}")
            elif known:
                reasons.append("there is only " + ", ".join(f"{package} ({package.suite})" for package in known))
            else:
                reasons.append(f"nothing is called or provides `{relation.name}` in {self._universe.where}")
                similar = self._universe.similar(relation.name)
                if similar:
                    hints.append(f"did you mean `{similar}`?")
        who = f"`{chain[-1]}` needs `{wanted}`" if chain else f"`{wanted}` is asked for"
        return AerogelError(
            f"{who}, which no package of {self._universe.where} satisfies",
            code="debian.unsatisfiable",
            detail="\n".join([_chain((*chain, wanted)), *reasons]),
            hints=hints,
        )


def _visit(root: str, edges: Callable[[str], list[str]], done: dict[str, None]) -> None:
    """Adds a name after everything it leads to; recursion would end at long chains."""
    entered = {root}
    stack = [(root, iter(edges(root)))]
    if root in done:
        return
    while stack:
        name, rest = stack[-1]
        following = next((edge for edge in rest if edge not in done and edge not in entered), None)
        if following is None:
            done[name] = None
            stack.pop()
        else:
            entered.add(following)
            stack.append((following, iter(edges(following))))


def _chain(why: Sequence[str]) -> str:
    return " needs ".join(why) if len(why) > 1 else f"{why[0]} is asked for"
