"""What all forms of an SBOM have in common: what it is about, names in it, which package needs which."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import msgspec

from aerogel.analyze.dpkg import by_name
from aerogel.analyze.package import Package
from aerogel.oci.digest import Digest

__all__ = ["Subject", "needs", "unique_ids"]

_EPOCH = "1970-01-01T00:00:00Z"
_NAMESPACE = uuid.UUID("6d3d7f2e-5c0f-5f0b-9d57-0a9a7b3c1e42")


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The image that an SBOM tells of. `name` is a reference without digest, or empty."""

    name: str
    tag: str = ""
    digest: Digest
    platform: str
    created: str
    """RFC 3339, from the config."""
    tool_version: str

    @property
    def title(self) -> str:
        return f"{self.name}:{self.tag}" if self.name and self.tag else self.name or self.digest

    @property
    def time(self) -> str:
        """Whole seconds in UTC, as SPDX wants it."""
        match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", self.created)
        return f"{match[1]}Z" if match else _EPOCH

    @property
    def purl(self) -> str:
        """Spec: purl type definition `oci`."""
        from packageurl import PackageURL

        short = self.name.rpartition("/")[2] or "image"
        where = {"arch": self.platform.partition("/")[2], "tag": self.tag}
        if "/" in self.name:
            where["repository_url"] = self.name
        return PackageURL("oci", None, short, self.digest, {key: one for key, one in where.items() if one}).to_string()

    def uuid(self, form: str) -> str:
        """The name of the document about this image in one form."""
        return str(uuid.uuid5(_NAMESPACE, f"{form} {self.tool_version} {self.title} {self.digest}"))


def unique_ids(packages: tuple[Package, ...], make: Callable[[Package], str]) -> dict[Package, str]:
    """A name for each package, made unique by its place where several would have the same."""
    found: dict[Package, str] = {}
    taken: set[str] = set()
    for package in packages:
        name = make(package)
        number = 1
        chosen = name
        while chosen in taken:
            number += 1
            chosen = f"{name}-{number}"
        taken.add(chosen)
        found[package] = chosen
    return found


def needs(packages: tuple[Package, ...]) -> dict[Package, list[Package]]:
    """Which package needs which, as far as both are here: Debian packages, npm packages, crates of one program."""
    debs = by_name([one for one in packages if one.kind == "deb"])
    npm: dict[str, Package] = {}
    crates: dict[tuple[str, str], Package] = {}
    for one in packages:
        if one.kind == "npm":
            npm[one.location.removesuffix("/package.json")] = one
        elif one.kind == "cargo":
            crates[one.location, one.name] = one
    found: dict[Package, list[Package]] = {}
    for package in packages:
        targets: list[Package | None] = []
        for group in package.depends:
            if package.kind == "deb":
                targets.append(next((debs[name] for name in group.split(" | ") if name in debs), None))
            elif package.kind == "npm":
                targets.append(_nearest(group, package.location, npm))
            elif package.kind == "cargo":
                targets.append(crates.get((package.location, group)))
        unique = {one: None for one in targets if one is not None and one != package}
        if unique:
            found[package] = sorted(unique)
    return found


def _nearest(name: str, location: str, installed: dict[str, Package]) -> Package | None:
    """As Node looks for a module: from the package's own `node_modules` upwards."""
    folder = location.removesuffix("/package.json")
    while folder:
        found = installed.get(f"{folder}/node_modules/{name}")
        if found is not None:
            return found
        folder = folder.rpartition("/")[0]
    return None
