"""Debian packages: `status`, `status.d` of distroless images, file lists, copyright files.

Spec: Debian Policy 5.3; dpkg's database as dpkg(1) describes it; DEP-5 for copyright files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from aerogel.analyze.license import MAX_WORDS, from_debian
from aerogel.analyze.package import Distro, Package

__all__ = ["PREFIX", "by_name", "copyright_licenses", "listed_files", "os_release", "packages_of"]

PREFIX = b"var/lib/dpkg/"

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_SOURCE = re.compile(r"(\S+)(?:\s+\((\S+)\))?")
_OS_RELEASE = re.compile(r"(?m)^([A-Z_]+)=(.*)$")


def os_release(text: str) -> Distro:
    """The identity of the distribution. Spec: os-release(5)."""
    found = {key: value.strip().strip("\"'") for key, value in _OS_RELEASE.findall(text)}
    return Distro(found.get("ID", ""), found.get("VERSION_ID", ""), found.get("PRETTY_NAME", ""))


def packages_of(text: str, distro: Distro, location: str, layer: str) -> Iterator[Package]:
    """The installed packages of a status file or of one file of `status.d`; paragraphs that are none are left out."""
    for fields in _paragraphs(text):
        name, version = fields.get("package", ""), fields.get("version", "")
        status = fields.get("status", "install ok installed").split()
        if not _NAME.fullmatch(name) or not version or status[-1:] != ["installed"]:
            continue
        qualifiers = {"arch": fields.get("architecture", "")}
        if distro.id:
            qualifiers["distro"] = f"{distro.id}-{distro.version}" if distro.version else distro.id
        source = _SOURCE.fullmatch(fields.get("source", ""))
        if source is not None and (source[1] != name or source[2]):
            qualifiers["upstream"] = f"{source[1]}@{source[2]}" if source[2] else source[1]
        needed = [fields.get(key, "") for key in ("pre-depends", "depends")]
        yield Package(
            kind="deb",
            namespace=distro.id or "debian",
            name=name,
            version=version,
            location=location,
            qualifiers=tuple(sorted((key, value) for key, value in qualifiers.items() if value)),
            supplier=fields.get("maintainer", ""),
            homepage=fields.get("homepage", ""),
            depends=tuple(_names(", ".join(filter(None, needed)))),
            provides=tuple(one for group in _names(fields.get("provides", "")) for one in group.split(" | ")),
            layer=layer,
        )


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Lenient, unlike `debian.control`: what an image brings is told as far as it can be read."""
    fields: dict[str, str] = {}
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif line[0] not in " \t#":
            key, colon, value = line.partition(":")
            if colon:
                fields[key.lower()] = value.strip()


def _names(field: str) -> Iterator[str]:
    """The names in a relation field: `a (>= 1) | b, c:any` as `a | b` and `c`."""
    for group in field.split(","):
        found = [match[0] for part in group.split("|") if (match := _NAME.match(part.strip()))]
        if found:
            yield " | ".join(found)


def listed_files(text: str, *, is_md5sums: bool) -> Iterator[bytes]:
    """The paths of a `.list` or `.md5sums` file, relative to the root."""
    for line in text.splitlines():
        path = line.partition("  ")[2] if is_md5sums else line
        path = path.strip().removeprefix("./").lstrip("/")
        if path and path != ".":
            yield path.encode("utf-8", "surrogateescape")


def copyright_licenses(text: str) -> tuple[str, ...]:
    """The licences of a copyright file in DEP-5 form, in order; nothing for one in free form."""
    if not re.match(r"(?i)format(-specification)?:", text.lstrip("\ufeff \n")):
        return ()
    words: Mapping[str, None] = dict.fromkeys(re.findall(r"(?mi)^License:[ \t]*(\S[^\n]*)$", text))
    found: dict[str, None] = {}
    for word in words:
        for part in re.split(r"\s+(?:and|or)\s+|,\s*(?:and\s+|or\s+)?", word.strip()):
            name = from_debian(part)
            if name and len(name) <= MAX_WORDS:
                found[name] = None
    return tuple(sorted(found))


def by_name(packages: list[Package]) -> dict[str, Package]:
    """Packages by their names and by what they provide; a real name wins."""
    found = {name: package for package in packages for name in package.provides}
    found.update({package.name: package for package in packages})
    return found
