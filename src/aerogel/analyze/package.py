"""A package that an image holds, as a value, and its package URL.

Spec: package-url purl-spec and its type definitions (deb, pypi, npm, maven, golang, cargo).
"""

from __future__ import annotations

import msgspec

__all__ = ["Distro", "Package"]


class Distro(msgspec.Struct, frozen=True):
    """What `os-release` says: `debian`, `12`, `Debian GNU/Linux 12 (bookworm)`. Empty for an image without one."""

    id: str = ""
    version: str = ""
    name: str = ""


class Package(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One package. `kind` is the type of its package URL; `location` is the path that tells of it."""

    kind: str
    name: str
    version: str = ""
    namespace: str = ""
    """`debian`, an npm scope with `@`, a Maven group, the path of a Go module before its last part."""
    location: str = ""
    qualifiers: tuple[tuple[str, str], ...] = ()
    """Of the package URL."""
    licenses: tuple[str, ...] = ()
    """As the package says: SPDX expressions where they could be understood, else its own words."""
    supplier: str = ""
    homepage: str = ""
    depends: tuple[str, ...] = ()
    """Names of packages of the same kind that it needs, alternatives joined by ` | `."""
    provides: tuple[str, ...] = ()
    layer: str = ""
    """Diff id of the layer that has `location`."""

    @property
    def purl(self) -> str:
        """The package URL, canonical."""
        from packageurl import PackageURL

        return PackageURL(
            self.kind, self.namespace or None, self.name, self.version or None, dict(self.qualifiers) or None
        ).to_string()

    @property
    def full_name(self) -> str:
        """The name as its users write it."""
        if self.kind in ("npm", "golang") and self.namespace:
            return f"{self.namespace}/{self.name}"
        return f"{self.namespace}:{self.name}" if self.kind == "maven" and self.namespace else self.name
