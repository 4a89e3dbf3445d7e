"""What `base diff` and `base update` tell of two locks: packages that differ, what they fix, and their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from aerogel.commands.format import columns
from aerogel.errors import AerogelError, Diagnostic
from aerogel.events import Sink, Warned

if TYPE_CHECKING:
    from aerogel.distroless.lock import Change, Lock, LockedPackage
    from aerogel.distroless.pool import Origin
    from aerogel.distroless.unpacked import Unpacked

__all__ = [
    "ChangedFile",
    "ChangedPackage",
    "Packages",
    "changed_files",
    "changed_packages",
    "shown_changes",
    "shown_files",
]


class ChangedPackage(Struct, frozen=True, kw_only=True):
    """A package on a platform; an empty version: not there. `kind`: added, removed, newer, older, rebuilt, or moved for an image.

    `fixes` are the CVE numbers that its changelog names between the two versions; of an older one those that come back.
    """

    platform: str
    name: str
    before: str
    after: str
    kind: str
    source: str = ""
    fixes: tuple[str, ...] = ()


class ChangedFile(Struct, frozen=True, kw_only=True):
    """A file of packages that differs; sizes in bytes, -1: not there. `kind`: added, removed or changed."""

    platform: str
    path: str
    before: int
    after: int
    kind: str


class Packages:
    """The packages of locks, from wherever they can be had; a package that cannot is told once."""

    def __init__(self, origin: Origin, cache: Path, sink: Sink) -> None:
        self._origin = origin
        self._cache = cache
        self._sink = sink
        self._absent: set[str] = set()

    @contextmanager
    def opened(self, members: Sequence[LockedPackage]) -> Iterator[list[Unpacked]]:
        """Those of the packages that can be had, unpacked; they can be read within the block."""
        from aerogel.distroless.unpacked import unpack

        packages, debs = [], []
        for one in members:
            package = one.chosen().package
            try:
                debs += self._origin.fetch_all([package], label=str(package))
                packages.append(package)
            except AerogelError as error:
                if one.sha256 not in self._absent:
                    self._absent.add(one.sha256)
                    message = f"`{package}` cannot be looked into: {error.message}"
                    self._sink.emit(Warned(Diagnostic(message, code="base.not-compared", hints=list(error.hints))))
        with unpack(packages, debs, self._cache) as found:
            yield found


def changed_packages(before: Lock, after: Lock, packages: Packages) -> tuple[ChangedPackage, ...]:
    """The changes as a command prints them."""
    from aerogel.distroless.lock import changes, members

    found = changes(before, after)
    known: dict[tuple[str, str, str], tuple[str, ...]] = {}
    made = []
    for one in found:
        old, new = (members(lock, one.platform).get(one.name) for lock in (before, after))
        fixes: tuple[str, ...] = ()
        if old is not None and new is not None and one.kind in ("newer", "older") and ":" not in one.name:
            key = (new.source, old.source_version, new.source_version)
            if key not in known:
                known[key] = _fixes(
                    one, [each for each in found if each.platform == one.platform], before, after, packages
                )
            fixes = known[key]
        source = (new or old).source if new or old else ""  # type: ignore[union-attr]  # one of them is there
        made.append(
            ChangedPackage(
                platform=one.platform,
                name=one.name,
                before=one.before,
                after=one.after,
                kind=one.kind,
                source=source,
                fixes=fixes,
            )
        )
    return tuple(made)


def _fixes(change: Change, found: Sequence[Change], before: Lock, after: Lock, packages: Packages) -> tuple[str, ...]:
    """By the changelog of the newer version, which any package of the source may have."""
    from aerogel.distroless.fixes import changelog, named_fixes
    from aerogel.distroless.lock import members

    old, new = (members(lock, change.platform) for lock in (before, after))
    low, high = old[change.name].source_version, new[change.name].source_version
    newest = new if change.kind == "newer" else old
    if change.kind == "older":
        low, high = high, low
    source = newest[change.name].source
    names = [change.name, *(each.name for each in found if each.name != change.name and ":" not in each.name)]
    for name in names:
        one = newest.get(name)
        if one is None or one.source != source:
            continue
        with packages.opened([one]) as opened:
            text = "".join(map(changelog, opened))
        if text:
            return named_fixes(text, low, high)
    return ()


def changed_files(before: Lock, after: Lock, packages: Packages, rules: str) -> tuple[ChangedFile, ...]:
    """The files of all packages that differ, by platform and path."""
    from aerogel.distroless.fixes import changed_files as compared
    from aerogel.distroless.lock import changes, members

    found = changes(before, after)
    made: list[ChangedFile] = []
    for platform in dict.fromkeys(each.platform for each in found):
        names = [each.name for each in found if each.platform == platform and ":" not in each.name]
        old, new = (members(lock, platform) for lock in (before, after))
        with (
            packages.opened([old[name] for name in names if name in old]) as was,
            packages.opened([new[name] for name in names if name in new]) as now,
        ):
            made += [
                ChangedFile(platform=platform, path=one.path, before=one.before, after=one.after, kind=one.kind)
                for one in compared(was, now, rules)
            ]
    return tuple(made)


def shown_changes(changes: Sequence[ChangedPackage]) -> str:
    """A table, and a line for each source that fixes something; the same on several platforms is one line."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    fixes: dict[tuple[str, str, str, str], tuple[str, ...]] = {}
    for one in changes:
        rows.setdefault((one.name, one.before or "-", one.after or "-", one.kind), []).append(one.platform)
        if one.fixes:
            fixes.setdefault((one.source, one.before, one.after, one.kind), one.fixes)
    if not rows:
        return ""
    lines = [[*key, " ".join(platforms)] for key, platforms in rows.items()]
    told = [
        f"{source} {old} -> {new} {'fixes' if kind == 'newer' else 'brings back'} {', '.join(numbers)}"
        for (source, old, new, kind), numbers in fixes.items()
    ]
    return "\n".join([columns(["PACKAGE", "BEFORE", "AFTER", "CHANGE", "PLATFORMS"], lines), *told])


def shown_files(files: Sequence[ChangedFile]) -> str:
    """A table; sizes in bytes."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for one in files:
        sizes = [str(size) if size >= 0 else "-" for size in (one.before, one.after)]
        rows.setdefault((one.path, *sizes, one.kind), []).append(one.platform)  # type: ignore[arg-type]  # two sizes
    lines = [[*key, " ".join(platforms)] for key, platforms in rows.items()]
    return columns(["FILE", "BEFORE", "AFTER", "CHANGE", "PLATFORMS"], lines) if lines else ""
