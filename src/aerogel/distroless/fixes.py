"""What moving from one lock to another does: vulnerabilities that the packages' changelogs name, and files that differ.

Debian's maintainers write the number of what they fix into `changelog.Debian.gz`, which is in the package: no database is
asked, and nothing else is known. Packages of one source share a changelog; some have only a link to another's.
Spec: Debian Policy 4.4, 12.7.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aerogel.debian import version as versions
from aerogel.distroless.layout import merged_usr
from aerogel.distroless.rules import Filter, profile
from aerogel.distroless.unpacked import Unpacked
from aerogel.files.entry import DIR, LNK, REG, SYM

__all__ = ["FileChange", "changed_files", "changelog", "named_fixes"]

_CHANGELOG = re.compile(rb"usr/share/doc/[^/]+/changelog(?:\.Debian(?:\.[a-z0-9]+)?)?\.gz")
_HEAD = re.compile(r"[a-z0-9][a-z0-9+.-]* \(([^()\s]+)\) .*;.*", re.IGNORECASE)
_NUMBER = re.compile(r"\bCVE-(\d{4})-(\d{4,})\b")
_LIMIT = 64 << 20


class FileChange(NamedTuple):
    """A path of packages; a size in bytes of -1: not there."""

    path: str
    before: int
    after: int

    @property
    def kind(self) -> str:
        """`added`, `removed` or `changed`."""
        return "added" if self.before < 0 else "removed" if self.after < 0 else "changed"


def changelog(one: Unpacked) -> str:
    """Debian's changelogs in a package, empty if there is none or it is damaged."""
    texts = []
    for entry, at in one.entries:
        if entry.kind == REG and _CHANGELOG.fullmatch(entry.path):
            try:
                reader = zlib.decompressobj(wbits=31)
                texts.append(reader.decompress(one.read(at, entry.size), _LIMIT).decode("utf-8", "replace"))
            except zlib.error:
                continue
    return "\n".join(texts)


def named_fixes(text: str, before: str, after: str) -> tuple[str, ...]:
    """The CVE numbers in the entries of a changelog that are newer than `before` and not newer than `after`.

    Versions are those of the source.
    """
    low, high = versions.key(before), versions.key(after)
    found: set[tuple[int, int]] = set()
    counts = False
    for line in text.split("\n"):
        head = _HEAD.fullmatch(line) if line[:1].strip() else None
        if head is not None:
            counts = low < versions.key(head[1]) <= high
        elif counts:
            found |= {(int(year), int(number)) for year, number in _NUMBER.findall(line)}
    return tuple(f"CVE-{year}-{number:04}" for year, number in sorted(found))


def changed_files(before: Sequence[Unpacked], after: Sequence[Unpacked], rules: str) -> list[FileChange]:
    """Which files of packages differ, those that the rules of a profile leave out not counted; by path.

    A file that differs in content, mode, owner or target is changed; its time does not matter.
    """
    old, new = _contents(before, rules), _contents(after, rules)
    found = []
    for path in sorted({*old, *new}):
        was, now = old.get(path), new.get(path)
        if was != now:
            shown = "/" + path.decode("utf-8", "backslashreplace")
            found.append(FileChange(shown, -1 if was is None else was[0], -1 if now is None else now[0]))
    return found


def _contents(packages: Iterable[Unpacked], rules: str) -> dict[bytes, tuple[int, bytes]]:
    """Size and what tells a file from another, by path."""
    found: dict[bytes, tuple[int, bytes]] = {}
    for one in packages:
        dropped_by = Filter(profile(rules), one.package.name).dropped_by
        regular = {entry.path: (entry, at) for entry, at in one.entries if entry.kind == REG}
        for entry, at in one.entries:
            path = merged_usr(entry.path)
            if entry.kind == DIR or not path or dropped_by(path) is not None:
                continue
            first, place = regular[entry.link] if entry.kind == LNK else (entry, at)
            facts = f"{first.kind} {first.mode:o} {first.uid} {first.gid} ".encode()
            if first.kind == SYM:
                facts += first.link
            else:
                facts += hashlib.sha256(one.read(place, first.size)).digest()
            found[path] = (first.size, facts)
    return found
