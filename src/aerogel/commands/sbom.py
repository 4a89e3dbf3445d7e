"""`aerogel sbom`: the packages that an image holds, as a document or a table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Struct

from aerogel import __version__
from aerogel.commands.lookup import find_image
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import Diagnostic
from aerogel.events import Message, Warned
from aerogel.flag import Flag
from aerogel.oci.image import Image, load
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference

if TYPE_CHECKING:
    from aerogel.analyze.catalog import Catalog
    from aerogel.analyze.contents import Contents
    from aerogel.analyze.documents import Subject
    from aerogel.store.store import Store

__all__ = [
    "EXAMPLES",
    "Sbom",
    "SbomPackage",
    "SbomResult",
    "analyze",
    "contents_of",
    "run",
    "subject_of",
    "write_document",
]

EXAMPLES = (
    ("what is in it", "aerogel sbom app"),
    ("for a scanner", "aerogel sbom --format cyclonedx-json -o app.cdx.json app"),
)


class Sbom(Struct, frozen=True, kw_only=True):
    """List the packages that an image holds."""

    name: Annotated[str, Flag("Name or id of an image", positional=True, metavar="IMAGE")]
    format: Annotated[Literal["table", "spdx-json", "cyclonedx-json"], Flag("A table, SPDX 2.3 or CycloneDX 1.6")] = (
        "table"
    )
    output: Annotated[
        str, Flag("File to write; without it, standard output", short="o", metavar="FILE", complete="file")
    ] = "-"
    files: Annotated[bool, Flag("Tell of every file too, with digests and the package it belongs to")] = False
    platform: Annotated[str | None, Flag("Platform to take from a multi-platform image", metavar="OS/ARCH")] = None


class SbomPackage(Struct, frozen=True, kw_only=True):
    """One row of the table."""

    kind: str
    name: str
    version: str
    licenses: tuple[str, ...]
    purl: str
    location: str


class SbomResult(Result, frozen=True, kw_only=True):
    packages: tuple[SbomPackage, ...]
    document: str = ""
    """What goes to standard output instead of the table."""

    def text(self) -> str:
        if self.document:
            return self.document if self.document != "-" else ""
        return _table(self.packages)


def _table(packages: tuple[SbomPackage, ...]) -> str:
    rows = [("TYPE", "NAME", "VERSION", "LICENSES")]
    rows += [(one.kind, one.name, one.version or "-", " AND ".join(one.licenses) or "-") for one in packages]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["   ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def run(options: Sbom, world: World) -> SbomResult:
    """Reads the layers and writes the document. Raises `image.not-found`, `oci.*`, `store.*`."""
    record = find_image(world.store, options.name)
    platform = Platform.parse(options.platform) if options.platform else None
    image = load(record.descriptor, world.store.blobs, platform)
    found = analyze(image, world.store, with_files=options.files)
    for note in found.notes:
        world.sink.emit(Warned(Diagnostic(note, code="sbom.unread")))
    names = [one for one in record.references if one.tag is not None]
    rows = tuple(
        SbomPackage(
            kind=one.kind,
            name=one.full_name,
            version=one.version,
            licenses=one.licenses,
            purl=one.purl,
            location=one.location,
        )
        for one in found.packages
    )
    if options.format == "table":
        text = _table(rows) + "\n"
    else:
        from aerogel.analyze.sbom import render

        text = render(found, subject_of(image, names[0] if names else None), options.format).decode()
    if options.output == "-":
        return SbomResult(packages=rows, document="" if options.format == "table" else text.rstrip("\n"))
    write_document(world, options.output, text)
    return SbomResult(packages=rows, document="-")


def write_document(world: World, path: str, text: str) -> None:
    """Puts a document in place of a file. Raises `store.*`."""
    from aerogel.store.disk import write_whole

    write_whole(world.settings.directory / path, lambda file: file.write(text.encode()))
    world.sink.emit(Message(f"wrote {path}"))


def analyze(image: Image, store: Store, *, with_files: bool = False) -> Catalog:
    """What an image of the store holds. Raises `store.*`, `codec.*`, `tar.*`, `oci.*`."""
    from aerogel.analyze.catalog import catalog

    return catalog(contents_of(image, store), with_files=with_files)


def contents_of(image: Image, store: Store) -> Contents:
    """The files of an image of the store. Raises `store.*`, `codec.*`, `tar.*`, `oci.*`."""
    from aerogel.analyze.contents import Contents
    from aerogel.store.load import record_layers

    record_layers(image, store)
    indexes = [store.layers.index(layer.diff_id) for layer in image.layers()]

    def spool() -> int:
        fd, path = store.scratch.file()
        # The name is not needed: what nobody holds open is gone, however this process ends.
        os.unlink(path)
        return fd

    return Contents(image, indexes, spool)


def subject_of(image: Image, name: Reference | None) -> Subject:
    """What the documents say of the image itself."""
    from aerogel.analyze.documents import Subject

    return Subject(
        name=name.name if name is not None else "",
        tag=(name.tag or "") if name is not None else "",
        digest=image.digest,
        platform=str(image.config.platform.normal()),
        created=image.config.created,
        tool_version=__version__,
    )
