"""Packages that no package manager knows of, by the SPDX documents that aerogel and others put beside them.

Spec: SPDX 2.3 JSON, 7 and its external references of type `purl`; `/var/lib/db/sbom`, where scanners look for them.
"""

from __future__ import annotations

from typing import Any

from aerogel.analyze.license import MAX_WORDS
from aerogel.analyze.package import Package
from aerogel.decoding import parse_json

__all__ = ["is_record", "packages_of"]

_FOLDERS = (b"var/lib/db/sbom/",)


def is_record(path: bytes) -> bool:
    """Whether a file is such a document."""
    return path.lstrip(b"/").startswith(_FOLDERS) and path.endswith(b".spdx.json")


def packages_of(text: str, location: str, layer: str) -> list[Package]:
    """The packages of a document that have a package URL; nothing for what is no such document."""
    try:
        found = parse_json(text)
    except ValueError:
        return []
    listed = found.get("packages") if isinstance(found, dict) else None
    return [
        package
        for one in (listed if isinstance(listed, list) else [])
        for package in (_package(one, location, layer),)
        if package is not None
    ]


def _package(one: Any, location: str, layer: str) -> Package | None:
    from packageurl import PackageURL

    given = one.get("externalRefs") if isinstance(one, dict) else None
    for reference in given if isinstance(given, list) else []:
        if isinstance(reference, dict) and reference.get("referenceType") == "purl":
            text = reference.get("referenceLocator")
            if not isinstance(text, str) or len(text) > MAX_WORDS:
                continue
            try:
                text.encode()  # half of a character can stand in no document
                url = PackageURL.from_string(text)
            except ValueError:
                continue
            qualifiers = url.qualifiers if isinstance(url.qualifiers, dict) else {}
            return Package(
                kind=url.type,
                namespace=url.namespace or "",
                name=url.name,
                version=url.version or "",
                qualifiers=tuple(sorted(qualifiers.items())),
                location=location,
                layer=layer,
            )
    return None
