"""Java archives: Maven's `pom.properties`, else the manifest, else the name of the file; archives inside archives too.

Hostile ones are bounded: the directory of an archive to 32 MiB, what is read of it and what an inner archive
inflates to as well, 256 MiB of that in all; three levels of archives, a thousand archives below one file.
Spec: JAR file specification.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from aerogel.analyze.license import MAX_WORDS, expression
from aerogel.analyze.package import Package

__all__ = ["is_archive", "packages_of"]

_SUFFIXES = (".jar", ".war", ".ear", ".par", ".sar", ".nar", ".jpi", ".hpi", ".lpkg", ".rar")
_MAX_DIRECTORY = 32 << 20
_MAX_INNER = 32 << 20
_MAX_TEXT = 1 << 20
_MAX_INFLATED = 256 << 20
_MAX_DEPTH = 3
_MAX_ARCHIVES = 1000
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_FILE = re.compile(r"(?P<name>.+?)-(?P<version>\d[\w.+-]*)")

Note = Callable[[str], object]


def is_archive(path: bytes) -> bool:
    """Whether the name of a file is that of a Java archive."""
    return path.lower().endswith(tuple(suffix.encode() for suffix in _SUFFIXES if suffix != ".rar"))


def packages_of(stream: BinaryIO, path: str, layer: str, note: Note) -> list[Package]:
    """The packages of an archive and of those inside it; `note` gets what could not be read, in words."""
    reader = _Reader(layer, note)
    reader.archive(stream, path, 1)
    return reader.found


class _Reader:
    def __init__(self, layer: str, note: Note) -> None:
        self.found: list[Package] = []
        self._layer = layer
        self._note = note
        self._archives = 0
        self._left = _MAX_INFLATED

    def archive(self, stream: BinaryIO, path: str, depth: int) -> None:
        self._archives += 1
        if self._archives > _MAX_ARCHIVES:
            if self._archives == _MAX_ARCHIVES + 1:
                self._note(f"`{path}`: more than {_MAX_ARCHIVES} archives in one")
            return
        try:
            if _directory_size(stream) > _MAX_DIRECTORY:
                self._note(f"`{path}` has a directory too large to be read")
                return
            with zipfile.ZipFile(stream) as archive:
                self._read(archive, path, depth)
        except _DAMAGE as error:
            self._note(f"`{path}` is no readable archive: {str(error)[:100] or type(error).__name__}")

    def _read(self, archive: zipfile.ZipFile, path: str, depth: int) -> None:
        poms: list[dict[str, str]] = []
        manifest: dict[str, str] = {}
        inner: list[zipfile.ZipInfo] = []
        for info in archive.infolist():
            name = info.filename
            if name == "META-INF/MANIFEST.MF":
                manifest = _manifest(self._text(archive, info))
            elif name.startswith("META-INF/maven/") and name.endswith("/pom.properties"):
                poms.append(_properties(self._text(archive, info)))
            elif name.lower().endswith(_SUFFIXES) and not info.is_dir():
                inner.append(info)
        self.found += self._named(poms, manifest, path)
        for info in inner:
            place = f"{path}!/{info.filename}"
            if depth == _MAX_DEPTH or info.file_size > _MAX_INNER:
                self._note(f"`{place}` is not looked into: it is nested too deep or too large")
                continue
            data = self._limited(archive, info, _MAX_INNER)
            self.archive(io.BytesIO(data), place, depth + 1)

    def _limited(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
        """A member, whatever its directory says of its size."""
        limit = min(limit, self._left)
        with archive.open(info) as member:
            data = member.read(limit + 1)
        if len(data) > limit:
            raise zipfile.BadZipFile(f"a member has more than {limit} bytes")
        self._left -= len(data)
        return data

    def _text(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
        return self._limited(archive, info, _MAX_TEXT).decode("utf-8", "replace")

    def _named(self, poms: list[dict[str, str]], manifest: dict[str, str], path: str) -> Iterator[Package]:
        licenses = _licenses(manifest)
        seen = False
        for pom in poms:
            group, name, version = (pom.get(key, "") for key in ("groupId", "artifactId", "version"))
            if _is_word(group) and _is_word(name) and _is_word(version):
                seen = True
                yield self._package(group, name, version, path, licenses if len(poms) == 1 else ())
        if seen:
            return
        stem = path.rpartition("/")[2].rpartition(".")[0]
        match = _FILE.fullmatch(stem)
        name = (match["name"] if match else "") or stem
        version = match["version"] if match else ""
        for key in ("Implementation-Version", "Bundle-Version", "Specification-Version"):
            version = version or manifest.get(key, "")
        group = manifest.get("Implementation-Vendor-Id", "")
        bundle = manifest.get("Bundle-SymbolicName", "").partition(";")[0].strip()
        if not group and "." in bundle:
            group = bundle
        if _is_word(name) and _is_word(version):
            yield self._package(group if _is_word(group) else name, name, version, path, licenses)

    def _package(self, group: str, name: str, version: str, path: str, licenses: tuple[str, ...]) -> Package:
        return Package(
            kind="maven",
            namespace=group,
            name=name,
            version=version,
            location=path,
            licenses=licenses,
            layer=self._layer,
        )


def _is_word(text: str) -> bool:
    return bool(re.fullmatch(r"[\w.+~-]{1,200}", text))


def _directory_size(stream: BinaryIO) -> int:
    """Bytes of the central directory as the end of the archive says; without bounds when it does not fit 32 bits."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, end - (1 << 16) - 22))
    tail = stream.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("it has no directory")
    size: int = struct.unpack_from("<I", tail, at + 12)[0]
    return size


def _properties(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith(("#", "!")))
    return {key.strip(): value.strip() for key, _, value in lines}


def _manifest(text: str) -> dict[str, str]:
    """The main section; lines that begin with a blank go on the one before."""
    found: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if not line.strip():
            break
        if line.startswith(" ") and last:
            found[last] += line[1:]
            continue
        last, _, value = line.partition(":")
        found[last] = value.strip()
    return found


def _licenses(manifest: dict[str, str]) -> tuple[str, ...]:
    words = [part.partition(";")[0].strip() for part in manifest.get("Bundle-License", "").split(",")]
    return tuple(sorted({expression(word) or word for word in words if word and len(word) <= MAX_WORDS}))
