"""npm packages: `package.json` of what lies in `node_modules`. Spec: npm's package.json(5)."""

from __future__ import annotations

import json
import re
from typing import Any

from aerogel.analyze.license import MAX_WORDS, expression
from aerogel.analyze.package import Package

__all__ = ["is_manifest", "package_of"]

_PLACE = re.compile(rb"(?:^|.*/)node_modules/(?:@[^/]+/)?[^/@.][^/]*/package\.json")
_NAME = re.compile(r"(?:(@[\w.~!*'()-]+)/)?([\w.~!*'()-]+)")


def is_manifest(path: bytes) -> bool:
    """Whether a file is the manifest of an installed package, and not one of a folder inside it."""
    return path.endswith(b"/package.json") and _PLACE.fullmatch(path) is not None


def package_of(text: str, location: str, layer: str) -> Package | None:
    """The package of a manifest, None for one without name and version."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    name, version = found.get("name"), found.get("version")
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or not isinstance(version, str) or not 0 < len(version) <= MAX_WORDS:
        return None
    return Package(
        kind="npm",
        namespace=match[1] or "",
        name=match[2],
        version=version,
        location=location,
        licenses=_licenses(found),
        supplier=_person(found.get("author")),
        homepage=_text(found.get("homepage")),
        depends=tuple(sorted(_keys(found.get("dependencies")))),
        layer=layer,
    )


def _licenses(found: dict[str, Any]) -> tuple[str, ...]:
    given = found.get("license", found.get("licenses"))
    listed = given if isinstance(given, list) else [given]
    words = [_text(one.get("type")) if isinstance(one, dict) else _text(one) for one in listed]
    return tuple(sorted({expression(word) or word for word in words if word}))


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) and len(value) <= MAX_WORDS and "\n" not in value else ""


def _person(value: object) -> str:
    return _text(value.get("name")) if isinstance(value, dict) else _text(value)


def _keys(value: object) -> list[str]:
    return [key for key in value if _NAME.fullmatch(key)] if isinstance(value, dict) else []
