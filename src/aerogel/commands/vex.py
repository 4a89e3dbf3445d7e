"""`aerogel vex`: which vulnerabilities of a scanner's report cannot be in an image, because their code is not."""

from __future__ import annotations

import json
from typing import Annotated

from msgspec import Struct

from aerogel.commands.lookup import find_image
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Vex", "VexResult", "VexStatement", "run"]

EXAMPLES = (
    ("what a scanner's report comes to", "aerogel vex app --about report.json -o app.vex.json"),
    ("from lines `CVE package [file]`", "echo CVE-2024-1234 libc-bin | aerogel vex app --about -"),
)


class Vex(Struct, frozen=True, kw_only=True):
    """Tell which vulnerabilities cannot be in an image, as OpenVEX.

    The list is a report of grype or trivy (JSON), or lines `CVE-2024-1234 PACKAGE [/FILE ...]`. What is not there is not
    affected; of code that is there nothing is claimed.
    """

    name: Annotated[str, Flag("Name or id of an image", positional=True, metavar="IMAGE")]
    about: Annotated[str, Flag("Report of a scanner, or lines; `-` is standard input", metavar="FILE", complete="file")]
    output: Annotated[
        str, Flag("File to write; without it, standard output", short="o", metavar="FILE", complete="file")
    ] = "-"
    platform: Annotated[str | None, Flag("Platform to take from a multi-platform image", metavar="OS/ARCH")] = None


class VexStatement(Struct, frozen=True, kw_only=True):
    vulnerability: str
    package: str
    status: str
    justification: str


class VexResult(Result, frozen=True, kw_only=True):
    statements: tuple[VexStatement, ...]
    document: str = ""

    def text(self) -> str:
        return self.document


def run(options: Vex, world: World) -> VexResult:
    """Reads the layers and the list. Raises `image.not-found`, `vex.unreadable`, `oci.*`, `store.*`."""
    from aerogel.analyze.vex import document, judge, kept_files, read_vulnerabilities
    from aerogel.commands.sbom import analyze, contents_of, subject_of, write_document
    from aerogel.commands.source import read_source
    from aerogel.oci.image import load
    from aerogel.oci.platform import Platform

    hint = "name a report of grype or trivy, or a file with lines `CVE-2024-1234 PACKAGE`"
    rows = read_vulnerabilities(
        read_source(options.about, world.settings.directory, world.streams.stdin, "vex.unreadable", hint)
    )
    record = find_image(world.store, options.name)
    platform = Platform.parse(options.platform) if options.platform else None
    image = load(record.descriptor, world.store.blobs, platform)
    contents = contents_of(image, world.store)
    statements = judge(rows, analyze(image, world.store), kept_files(contents), contents)
    names = [one for one in record.references if one.tag is not None]
    text = json.dumps(document(statements, subject_of(image, names[0] if names else None)), indent=1) + "\n"
    shown = tuple(
        VexStatement(
            vulnerability=one.vulnerability.name,
            package=one.vulnerability.package,
            status=one.claim.status,
            justification=one.claim.justification,
        )
        for one in statements
    )
    if options.output == "-":
        return VexResult(statements=shown, document=text.rstrip("\n"))
    write_document(world, options.output, text)
    return VexResult(statements=shown)
