"""VEX: which vulnerabilities that a scanner tells of cannot be in an image, because their code is not.

A scanner goes by the records of packages. A composed base leaves out files of many packages, and says so in their
records; what is left is in `NAME.md5sums`. So it can be shown, for a list of vulnerabilities and packages, which package
is not there at all, and of which only data is left. Nothing is said of what may be executed or not: code that is there
is `under_investigation`, and that is for people to judge. Spec: OpenVEX 0.2.0; its justifications are CISA's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aerogel.analyze import dpkg
from aerogel.analyze.catalog import Catalog
from aerogel.analyze.contents import Contents, File
from aerogel.analyze.documents import Subject
from aerogel.analyze.package import Package
from aerogel.errors import AerogelError, Source, Span
from aerogel.files.entry import REG

__all__ = ["Claim", "Statement", "Vulnerability", "document", "judge", "kept_files", "read_vulnerabilities"]

_CONTEXT = "https://openvex.dev/ns/v0.2.0"
_CODE = re.compile(rb"\.(?:so(?:\.[^/]*)?|pyc?|jar|class|js|mjs|cjs|node|wasm|pl|pm|rb|php|sh|dll|a|o)$")
_ID = re.compile(r"[A-Za-z][A-Za-z0-9]*-[A-Za-z0-9.:-]{2,60}")
_PURL = re.compile(r"pkg:deb/[^/]+/([a-z0-9][a-z0-9+.-]*)")
_MAX_ROWS = 200_000


class Vulnerability(NamedTuple):
    """What somebody says: this vulnerability is in this package, and, if known, in these files of it.

    `is_debian` when a package URL says so: of those alone the image's records are complete, so that what they do not
    name is not there. A library may be in a program without any record.
    """

    name: str
    package: str
    paths: tuple[str, ...] = ()
    is_debian: bool = False

    @classmethod
    def of(cls, name: str, package: str, paths: tuple[str, ...] = ()) -> Vulnerability:
        """`package` is a name or a package URL."""
        found = _PURL.match(package)
        return cls(name, found[1], paths, is_debian=True) if found is not None else cls(name, package, paths)


class Claim(NamedTuple):
    """A status with its justification and why, in OpenVEX's words."""

    status: str
    justification: str = ""
    impact: str = ""


class Statement(NamedTuple):
    """What can be said of one vulnerability in one package; `packages` are those of that name in the image."""

    vulnerability: Vulnerability
    claim: Claim
    packages: tuple[Package, ...] = ()


def read_vulnerabilities(source: Source) -> list[Vulnerability]:
    """A scanner's report, or lines `CVE-2024-1 package [/path ...]`.

    Reports are the JSON of grype (`matches`) and of trivy (`Results`). Raises `vex.unreadable` with the place.
    """
    text = source.data.decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            at = min(getattr(error, "pos", 0), len(source.data))
            raise _unreadable("the report is no JSON", Span(source, at, at)) from None
        rows = [*_of_grype(data), *_of_trivy(data)]
        if not rows and not ("matches" in data or "Results" in data):
            raise _unreadable("the report is neither grype's nor trivy's", None)
        return list(dict.fromkeys(rows))[:_MAX_ROWS]
    return list(dict.fromkeys(_of_lines(source)))[:_MAX_ROWS]


def _unreadable(message: str, span: Span | None) -> AerogelError:
    hint = "what can be read: the JSON of grype or trivy, or lines such as `CVE-2024-1234 libc-bin /usr/bin/ldd`"
    return AerogelError(message, code="vex.unreadable", span=span, hints=[hint])


def _of_lines(source: Source) -> Iterator[Vulnerability]:
    at = 0
    for line in source.data.split(b"\n"):
        words = line.decode("utf-8", "replace").partition("#")[0].split()
        if words:
            if len(words) < 2 or not _ID.fullmatch(words[0]) or not all(path.startswith("/") for path in words[2:]):
                raise _unreadable(
                    "the line does not name a vulnerability and a package", Span(source, at, at + len(line))
                )
            yield Vulnerability.of(words[0], words[1], tuple(words[2:]))
        at += len(line) + 1


def _of_grype(data: Any) -> Iterator[Vulnerability]:
    for match in _list(data, "matches"):
        name, package = _text(match, "vulnerability", "id"), _text(match, "artifact", "name")
        if name and package:
            purl = _text(match, "artifact", "purl")
            yield Vulnerability.of(name, purl if _PURL.match(purl) else package)


def _of_trivy(data: Any) -> Iterator[Vulnerability]:
    for result in _list(data, "Results"):
        for one in _list(result, "Vulnerabilities"):
            name, package = _text(one, "VulnerabilityID"), _text(one, "PkgName")
            if name and package:
                purl = _text(one, "PkgIdentifier", "PURL")
                yield Vulnerability.of(name, purl if _PURL.match(purl) else package)


def _list(data: Any, key: str) -> list[Any]:
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def _text(data: Any, *keys: str) -> str:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, str) else ""


def kept_files(contents: Contents) -> dict[str, tuple[bytes, ...]]:
    """The regular files of each Debian package that are in the image, by the lists in it; of other packages none."""
    lists: dict[str, str] = {}
    for path in contents.paths():
        folder, _, file = path.rpartition(b"/")
        if folder == b"var/lib/dpkg/status.d" and file.endswith(b".md5sums"):
            lists["/" + path.decode()] = file.removesuffix(b".md5sums").decode("ascii", "replace")
    found: dict[str, tuple[bytes, ...]] = {}

    def take(file: File) -> None:
        text = (file.whole(64 << 20) or b"").decode("utf-8", "surrogateescape")
        there = (_real(contents, one) for one in dpkg.listed_files(text, is_md5sums=True))
        found[lists[file.path]] = tuple(sorted(one for one in there if one))

    contents.read((path.lstrip("/").encode() for path in lists), take)
    return found


def _real(contents: Contents, path: bytes) -> bytes:
    """The path of a listed file in the tree; empty if it is not there."""
    for one in (path, contents.tree.resolve(path, follow_last=False)):
        entry = contents.tree.lookup(one)
        if entry is not None and entry.kind == REG:
            return one
    return b""


def judge(
    rows: Iterable[Vulnerability], catalog: Catalog, kept: Mapping[str, Sequence[bytes]], contents: Contents
) -> list[Statement]:
    """What can be said of each, in order."""
    named: dict[str, list[Package]] = {}
    for package in catalog.packages:
        source = dict(package.qualifiers).get("upstream", "").partition("@")[0] if package.kind == "deb" else ""
        for name in {package.full_name, package.name, source} - {""}:
            named.setdefault(name, []).append(package)
    return [_judged(row, tuple(named.get(row.package, ())), kept, contents) for row in rows]


def _judged(
    row: Vulnerability, packages: tuple[Package, ...], kept: Mapping[str, Sequence[bytes]], contents: Contents
) -> Statement:
    if not packages and not row.is_debian:
        return Statement(row, Claim("under_investigation"))
    if not packages:
        why = f"The image has no package {row.package}."
        return Statement(row, Claim("not_affected", "component_not_present", why))
    if row.paths and not any(_is_there(contents, path) for path in row.paths):
        why = f"The files that have the code are not in the image: {', '.join(row.paths)}."
        return Statement(row, Claim("not_affected", "vulnerable_code_not_present", why), packages)
    if not row.paths and all(one.kind == "deb" and one.name in kept for one in packages):
        files = [path for one in packages for path in kept[one.name]]
        if not any(_is_code(path, contents) for path in files):
            why = f"Of {row.package}, no program and no library is in the image, {len(files)} files of data are."
            return Statement(row, Claim("not_affected", "vulnerable_code_not_present", why), packages)
    return Statement(row, Claim("under_investigation"), packages)


def _is_there(contents: Contents, path: str) -> bool:
    """Whether anything is at a path: a link (`libz.so.1`) or a folder that is named may have the code too."""
    parts = [part for part in path.encode("utf-8", "surrogateescape").split(b"/") if part not in (b"", b".")]
    try:
        return contents.tree.lookup(contents.tree.resolve(b"/".join(parts), follow_last=False)) is not None
    except AerogelError:
        return True  # links that lead in a circle: nothing is claimed


def _is_code(path: bytes, contents: Contents) -> bool:
    entry = contents.tree.lookup(path)
    return bool(_CODE.search(path)) or (entry is not None and bool(entry.mode & 0o111))


def document(statements: Sequence[Statement], subject: Subject) -> dict[str, object]:
    """OpenVEX. The same image and list give the same document: its time is the image's, its name comes from both."""
    made: list[dict[str, object]] = []
    for one in statements:
        product: dict[str, object] = {"@id": subject.purl, "identifiers": {"purl": subject.purl}}
        if one.packages:
            product["subcomponents"] = [{"@id": package.purl} for package in one.packages]
        statement: dict[str, object] = {
            "vulnerability": {"name": one.vulnerability.name},
            "products": [product],
            "status": one.claim.status,
        }
        if one.claim.justification:
            statement["justification"] = one.claim.justification
            statement["impact_statement"] = one.claim.impact
        made.append(statement)
    names = " ".join(f"{each.vulnerability.name} {each.vulnerability.package}" for each in statements)
    return {
        "@context": _CONTEXT,
        "@id": f"urn:uuid:{subject.uuid(f'openvex {names}')}",
        "author": f"aerogel {subject.tool_version}",
        "role": "Document Creator",
        "timestamp": subject.time,
        "version": 1,
        "statements": made,
    }
