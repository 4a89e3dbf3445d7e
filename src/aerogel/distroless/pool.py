"""Everything that one recipe is made of, wherever it comes from: Debian's archive, other archives, local files.

For: giving `select` all indexes at once, and `compose_base` every file, without either knowing which place has it. A
package says by its suite where it belongs: `trixie-security` is Debian's, `corp:stable` one of the archive `corp`,
`local` a .deb beside the declaration.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from aerogel.debian.archive import Archive
from aerogel.debian.control import paragraphs
from aerogel.debian.deb import open_deb
from aerogel.debian.package import Package
from aerogel.debian.release import Release
from aerogel.debian.resolve import Packages
from aerogel.distroless.declaration import PackageEntry, Repository
from aerogel.distroless.externals import External, Fetcher, file_name
from aerogel.errors import EXIT_FAILED, EXIT_USAGE, AerogelError

__all__ = ["LOCAL", "Index", "LocalIndex", "Origin", "Pinned", "Pool", "local_package"]

LOCAL = "local"


class Index(Packages, Protocol):
    """An index that knows priorities too."""

    def with_priority(self, priority: str, /) -> Sequence[Package]: ...


class Origin(Protocol):
    """Where packages come from: `debian.archive.Archive`, or a `Pool`."""

    def indexes(self, suites: Sequence[str], components: Sequence[str] = ..., arch: str = ...) -> Sequence[Index]: ...

    def fetch_all(self, packages: Sequence[Package], *, step: int = ..., label: str = ...) -> list[Path]: ...


class Pool:
    """The places of one recipe. `open_extra` opens an archive that the declaration names.

    `path` gives a file beside the declaration, `fetcher` what is in no apt archive. `is_locked`: every digest comes
    from a lock.
    """

    def __init__(
        self,
        archive: Origin,
        *,
        repositories: Sequence[Repository] = (),
        archives: Sequence[PackageEntry] = (),
        open_extra: Callable[[Repository], Origin] | None = None,
        path: Callable[[str], Path] | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._archive = archive
        self._repositories = {each.id: each for each in repositories}
        self._entries = tuple(archives)
        self._open_extra = open_extra
        self._path = path
        self.fetcher = fetcher
        self._extras: dict[str, Origin] = {}
        self._local: dict[str, Path] = {}

    def indexes(self, suites: Sequence[str], components: Sequence[str] = ("main",), arch: str = "amd64") -> list[Index]:
        """Debian's indexes, those of the other archives, and the local packages."""
        found: list[Index] = [*self._archive.indexes(suites, components, arch)]
        for each in self._repositories.values():
            found += self._extra(each.id).indexes(each.suites, each.components, arch)
        local = self.local(arch)
        return [*found, LocalIndex(local)] if local else found

    def release(self, suite: str) -> Release:
        """The Release file of a suite such as `corp:stable`."""
        name, _, rest = suite.partition(":")
        origin = self._extra(name)
        assert isinstance(origin, Archive)  # what `open_extra` gives
        return origin.release(rest)

    def trust_locked(self) -> None:
        """From here on packages may be of a lock: their digests are known, and no index names them any more."""
        for origin in (self._archive, *self._extras.values()):
            if isinstance(origin, Archive):
                origin.trust_locked()

    def _extra(self, name: str) -> Origin:
        if name not in self._extras:
            if name not in self._repositories:
                raise AerogelError(
                    f"a package of the lock is of the archive `{name}`, which the declaration does not have",
                    code="base.lock",
                    hints=["make it anew: `aerogel base lock`"],
                    exit_status=EXIT_USAGE,
                )
            assert self._open_extra is not None  # who has repositories gives it
            self._extras[name] = self._open_extra(self._repositories[name])
        return self._extras[name]

    def local(self, arch: str) -> list[Package]:
        """The .deb files of the declaration for an architecture. Raises `base.package`, `debian.deb-*`."""
        found = []
        for entry in self._entries:
            name = file_name(entry, arch)
            if name is None or self._path is None:
                continue
            path = self._path(name)
            package = local_package(path, name)
            if package.architecture not in ("all", arch):
                raise AerogelError(
                    f"`{name}` is a package for {package.architecture}, not for {arch}",
                    code="base.package",
                    hints=["say which architectures have it: `archs: [...]`, or write `{arch}` in its name"],
                    exit_status=EXIT_USAGE,
                )
            self._local[package.sha256] = path
            found.append(package)
        return found

    def fetch_all(self, packages: Sequence[Package], *, step: int = 0, label: str = "") -> list[Path]:
        """The verified files of packages, in their order. Raises what the archives raise."""
        groups: dict[str, list[Package]] = {}
        for package in packages:
            groups.setdefault(_place(package), []).append(package)
        paths: dict[str, Path] = {}
        for place, members in groups.items():
            if place == LOCAL:
                found = [self._local_path(package) for package in members]
            else:
                origin = self._extra(place) if place else self._archive
                found = origin.fetch_all(members, step=step, label=label)
            paths |= {package.sha256: path for package, path in zip(members, found, strict=True)}
        return [paths[package.sha256] for package in packages]

    def check_local(self, packages: Sequence[Package]) -> None:
        """That local packages of a lock are what lies beside the declaration. Raises `base.digest`."""
        for package in packages:
            if package.suite == LOCAL:
                self._local_path(package)

    def _local_path(self, package: Package) -> Path:
        path = self._local.get(package.sha256)
        if path is None:
            raise AerogelError(
                f"`{package.filename}` is not the file that was locked",
                code="base.digest",
                hints=["lock the base again if it was changed on purpose: `aerogel base lock`"],
                exit_status=EXIT_FAILED,
            )
        return path

    def fetch_external(self, one: External, *, python: str) -> Path:
        """The file of an entry that is no package. Raises `base.*`, `net.*`."""
        if self.fetcher is None:
            raise AerogelError(f"`{one.identity}` cannot be fetched here", code="base.unlocked")
        return self.fetcher.fetch(one, python=python)[0]


def _place(package: Package) -> str:
    """Empty for Debian's archive."""
    if package.suite == LOCAL:
        return LOCAL
    name, colon, _ = package.suite.partition(":")
    return name if colon else ""


def local_package(path: Path, name: str) -> Package:
    """A .deb file as an index would describe it. Raises `base.no-file`, `debian.deb-*`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AerogelError(
            f"`{name}` cannot be read: {(error.strerror or str(error)).lower()}",
            code="base.no-file",
            exit_status=EXIT_USAGE,
        ) from None
    with open_deb(path) as deb:
        fields = _control_fields(deb.control["control"], name)
    version = fields["version"]
    source, _, source_version = fields.get("source", fields["package"]).partition(" ")
    return Package(
        name=fields["package"],
        version=version,
        architecture=fields.get("architecture", ""),
        filename=name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        source=source,
        source_version=source_version.strip("() ") or version,
        depends=fields.get("depends", ""),
        pre_depends=fields.get("pre-depends", ""),
        recommends=fields.get("recommends", ""),
        provides=fields.get("provides", ""),
        conflicts=fields.get("conflicts", ""),
        breaks=fields.get("breaks", ""),
        replaces=fields.get("replaces", ""),
        multi_arch=fields.get("multi-arch", ""),
        priority=fields.get("priority", ""),
        section=fields.get("section", ""),
        suite=LOCAL,
    )


def _control_fields(text: bytes, name: str) -> dict[str, str]:
    """The control file of a local package, with a name and a version that are ones. Raises `debian.deb-damaged`."""
    try:
        fields = next(paragraphs(text.decode("utf-8", "replace")), {})
    except AerogelError as error:
        raise _damaged(name, error.message) from None
    for field, form in (("package", _NAME), ("version", _VERSION), ("architecture", _NAME)):
        if not form.fullmatch(fields.get(field, "")):
            found = f"`{fields[field]}`" if field in fields else "not there"
            raise _damaged(name, f"its field `{field.capitalize()}` is {found}")
    return fields


_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_VERSION = re.compile(r"[0-9A-Za-z.+:~-]+")


def _damaged(name: str, what: str) -> AerogelError:
    return AerogelError(
        f"`{name}` is not a usable Debian package: {what}", code="debian.deb-damaged", exit_status=EXIT_USAGE
    )


class LocalIndex:
    """A handful of packages as an index."""

    suite = LOCAL

    def __init__(self, packages: Sequence[Package]) -> None:
        self._packages = tuple(packages)

    def named(self, name: str, /) -> tuple[Package, ...]:
        return tuple(each for each in self._packages if each.name == name)

    def providers(self, name: str, /) -> tuple[Package, ...]:
        return tuple(each for each in self._packages if _provides(each, name))

    def essential(self) -> tuple[Package, ...]:
        return ()

    def with_priority(self, priority: str, /) -> tuple[Package, ...]:
        del priority
        return ()

    def names(self) -> Iterable[str]:
        return (each.name for each in self._packages)


def _provides(package: Package, name: str) -> bool:
    return name in (each.strip().partition(" ")[0] for each in package.provides.split(","))


class Pinned:
    """An index in which packages of some names have only the versions that a pattern matches."""

    def __init__(self, index: Index, pins: Mapping[str, str]) -> None:
        self._index = index
        self._pins = pins
        self.suite = index.suite

    def _fits(self, package: Package) -> bool:
        pattern = self._pins.get(package.name)
        return pattern is None or fnmatch.fnmatchcase(package.version, pattern)

    def named(self, name: str, /) -> Sequence[Package]:
        return tuple(filter(self._fits, self._index.named(name)))

    def providers(self, name: str, /) -> Sequence[Package]:
        return tuple(filter(self._fits, self._index.providers(name)))

    def essential(self) -> Sequence[Package]:
        return tuple(filter(self._fits, self._index.essential()))

    def with_priority(self, priority: str, /) -> Sequence[Package]:
        return tuple(filter(self._fits, self._index.with_priority(priority)))

    def names(self) -> Iterable[str]:
        return self._index.names()
