"""Everything that an image holds: its distribution, its packages of all kinds, who owns which file.

What a file inside a Debian package would tell of a Python, npm, Java, Go or Rust package counts as that Debian
package: it is Debian's to fix, and no scanner shall report it twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from aerogel.analyze import binaries, dpkg, java, node, python, records
from aerogel.analyze.contents import Contents, File
from aerogel.analyze.elf import MAGIC
from aerogel.analyze.package import Distro, Package
from aerogel.errors import AerogelError
from aerogel.files.entry import REG

__all__ = ["Catalog", "FileFact", "catalog"]

_MAX_DATABASE = 64 << 20
_MAX_TEXT = 4 << 20
_OS_RELEASE = (b"etc/os-release", b"usr/lib/os-release")
_COPYRIGHT = b"usr/share/doc/"


class FileFact(msgspec.Struct, frozen=True):
    """A regular file: its path, digests as hex, and the package it belongs to, if any."""

    path: str
    sha1: str
    sha256: str
    size: int
    owner: Package | None


class Catalog(msgspec.Struct, frozen=True):
    """What was found. `notes` says in words what could not be looked into."""

    distro: Distro
    packages: tuple[Package, ...]
    files: tuple[FileFact, ...] = ()
    notes: tuple[str, ...] = ()


def catalog(contents: Contents, *, with_files: bool = False) -> Catalog:
    """Reads an image. With `with_files` every regular file is read and told of.

    Raises `store.*`, `codec.*`, `tar.*` for layers that cannot be read; what a file holds raises nothing.
    """
    return _Cataloger(contents).run(with_files=with_files)


class _Cataloger:
    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._packages: list[Package] = []
        self._recorded: list[Package] = []
        """What records say besides; of what its own files tell too, those are better."""
        self._notes: list[str] = []
        self._owners: dict[bytes, str] = {}
        """Path -> name of the Debian package."""
        self._urls: dict[str, str] = {}

    def run(self, *, with_files: bool) -> Catalog:
        paths = self._contents.paths()
        distro = self._distro()
        debs = self._debian(paths, distro)
        owned = set(self._owners)
        self._direct_urls(path for path in paths if path.endswith(b".dist-info/direct_url.json") and path not in owned)
        self._contents.read((path for path in paths if path not in owned and self._is_wanted(path)), self._take)
        told = {one.purl for one in self._packages}
        packages = (*debs, *self._packages, *(one for one in self._recorded if one.purl not in told))
        unique = {(one.purl, one.location): one for one in packages}
        ordered = tuple(sorted(unique.values()))
        return Catalog(
            distro, ordered, self._files(paths, debs) if with_files else (), tuple(dict.fromkeys(self._notes))
        )

    # Debian

    def _distro(self) -> Distro:
        for path in _OS_RELEASE:
            real = self._real(path)
            if real is not None:
                texts = self._texts([real])
                return dpkg.os_release(next(iter(texts.values()), ("", ""))[0])
        return Distro()

    def _real(self, path: bytes) -> bytes | None:
        """Where a path leads, if that is a regular file."""
        tree = self._contents.tree
        with suppress(AerogelError):  # links in a circle lead nowhere
            real = tree.resolve(path)
            entry = tree.lookup(real)
            if entry is not None and entry.kind == REG:
                return real
        return None

    def _texts(self, paths: Iterable[bytes], limit: int = _MAX_TEXT) -> dict[str, tuple[str, str]]:
        """Path -> its text and its layer."""
        found: dict[str, tuple[str, str]] = {}

        def take(file: File) -> None:
            data = file.whole(limit)
            if data is None:
                self._notes.append(f"`{file.path}` is too large to be read")
            else:
                found[file.path] = (data.decode("utf-8", "surrogateescape"), file.layer)

        self._contents.read(paths, take)
        return found

    def _debian(self, paths: Sequence[bytes], distro: Distro) -> list[Package]:
        status = [path for path in paths if path.startswith(dpkg.PREFIX) and _is_status(path)]
        found: dict[tuple[str, str], Package] = {}
        for location, (text, layer) in sorted(self._texts(status, _MAX_DATABASE).items()):
            for package in dpkg.packages_of(_printable(text), distro, location, layer):
                architecture = dict(package.qualifiers).get("arch", "")
                found.setdefault((package.name, architecture), package)
        packages = list(found.values())
        if not packages:
            return []
        names = {package.name for package in packages}
        self._own(paths, names)
        licenses = self._licenses(names)
        return [msgspec.structs.replace(package, licenses=licenses.get(package.name, ())) for package in packages]

    def _own(self, paths: Sequence[bytes], names: set[str]) -> None:
        """Which file belongs to which package."""
        lists: dict[bytes, str] = {}
        for path in paths:
            folder, _, file = path.rpartition(b"/")
            if folder == b"var/lib/dpkg/info" and file.endswith(b".list"):
                name = file.removesuffix(b".list").partition(b":")[0].decode("ascii", "replace")
            elif folder == b"var/lib/dpkg/status.d" and file.endswith(b".md5sums"):
                name = file.removesuffix(b".md5sums").decode("ascii", "replace")
            else:
                continue
            if name in names:
                lists[path] = name
        tree = self._contents.tree
        texts = self._texts(lists)
        for path, name in sorted(lists.items()):
            text = texts.get("/" + path.decode("utf-8", "backslashreplace"), ("", ""))[0]
            for owned in dpkg.listed_files(text, is_md5sums=path.endswith(b".md5sums")):
                # `/lib/x` of a list is `usr/lib/x` where `/lib` is a link.
                if tree.lookup(owned) is not None:
                    self._owners.setdefault(owned, name)
                    continue
                with suppress(AerogelError):
                    self._owners.setdefault(tree.resolve(owned, follow_last=False), name)

    def _licenses(self, names: set[str]) -> dict[str, tuple[str, ...]]:
        places: dict[bytes, list[str]] = {}
        for name in sorted(names):
            real = self._real(_COPYRIGHT + name.encode() + b"/copyright")
            if real is not None:
                places.setdefault(real, []).append(name)
        texts = self._texts(places)
        found: dict[str, tuple[str, ...]] = {}
        for path, owners in places.items():
            text = texts.get("/" + path.decode("utf-8", "backslashreplace"), ("", ""))[0]
            for name in owners:
                found[name] = dpkg.copyright_licenses(_printable(text))
        return found

    # The others

    def _direct_urls(self, paths: Iterable[bytes]) -> None:
        for path, (text, _) in self._texts(paths).items():
            self._urls[path.rpartition("/")[0]] = python.direct_url(text)

    def _is_wanted(self, path: bytes) -> bool:
        if python.is_metadata(path) or node.is_manifest(path) or java.is_archive(path) or records.is_record(path):
            return True
        entry = self._contents.tree.lookup(path)
        return entry is not None and bool(entry.mode & 0o111) and entry.size > 64

    def _take(self, file: File) -> None:
        name = file.path.encode("utf-8", "replace")
        if python.is_metadata(name) or node.is_manifest(name) or records.is_record(name):
            data = file.whole(_MAX_TEXT)
            if data is None:
                self._notes.append(f"`{file.path}` is too large to be read")
                return
            text = _printable(data.decode("utf-8", "replace"))
            if records.is_record(name):
                self._recorded += records.packages_of(text, file.path, file.layer)
                return
            if node.is_manifest(name):
                package = node.package_of(text, file.path, file.layer)
            else:
                origin = self._urls.get(file.path.rpartition("/")[0], "")
                package = python.package_of(text, file.path, file.layer, origin)
            if package is not None:
                self._packages.append(package)
            return
        head = file.read(4)
        is_jar = java.is_archive(name)
        if not is_jar and head != MAGIC:
            return
        stream = file.seekable(head)
        if stream is None:
            self._notes.append(f"`{file.path}` is too large to be looked into")
            return
        with stream:
            if is_jar:
                self._packages += java.packages_of(stream, file.path, file.layer, self._notes.append)
            else:
                self._packages += binaries.packages_of(stream, file.path, file.layer)

    # Files

    def _files(self, paths: Sequence[bytes], debs: Sequence[Package]) -> tuple[FileFact, ...]:
        owners = {package.name: package for package in debs}
        others = {package.location: package for package in sorted(self._packages, reverse=True)}
        found: list[FileFact] = []
        digests: dict[tuple[int, int], tuple[str, str]] = {}
        tree = self._contents.tree

        def place(path: bytes) -> tuple[int, int]:
            origin = tree.origin(path)
            return (-1, 0) if origin is None else (origin.layer, origin.offset)

        def take(file: File) -> None:
            sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
            while file.left:
                data = file.read(1 << 18)
                sha1.update(data)
                sha256.update(data)
            digests[places[file.path]] = (sha1.hexdigest(), sha256.hexdigest())

        names = {path: "/" + path.decode("utf-8", "backslashreplace") for path in paths}
        places = {names[path]: place(path) for path in paths}
        self._contents.read(paths, take)
        for path in paths:
            sha1, sha256 = digests.get(place(path), ("", ""))
            entry = tree.lookup(path)
            if sha1 and entry is not None:
                owner = owners.get(self._owners.get(path, "")) or others.get(names[path])
                found.append(FileFact(names[path], sha1, sha256, entry.size, owner))
        return tuple(found)


def _is_status(path: bytes) -> bool:
    rest = path.removeprefix(dpkg.PREFIX)
    return rest == b"status" or (
        rest.startswith(b"status.d/") and rest.count(b"/") == 1 and not rest.endswith(b".md5sums")
    )


def _printable(text: str) -> str:
    """Text that can stand in a document: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")
