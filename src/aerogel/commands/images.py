"""`aerogel images`: the images of the local store, as docker lists them.

SIZE is the sum of the blobs as they are stored (compressed), which is what a registry or an archive would hold.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from msgspec import Struct

from aerogel.commands.format import age, short_id, size, table_or_template
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.reference import Reference
from aerogel.store.images import ImageRecord

__all__ = ["EXAMPLES", "Images", "ImagesResult", "Line", "run", "text"]

EXAMPLES = (
    ("only names", "aerogel images --format '{{.Repository}}:{{.Tag}}'"),
    ("remove all images without a name", "aerogel rmi $(aerogel images -q --filter dangling=true)"),
)

NONE = "<none>"


class Images(Struct, frozen=True, kw_only=True):
    """List images."""

    repository: Annotated[
        str | None, Flag("Only images of this repository or name", positional=True, metavar="REPOSITORY[:TAG]")
    ] = None
    all: Annotated[bool, Flag("Accepted for docker's sake: there are no intermediate images", short="a")] = False
    digests: Annotated[bool, Flag("Show digests")] = False
    filter: Annotated[
        dict[str, str], Flag("Only images that fit: `dangling=true`, `reference=PATTERN`", short="f")
    ] = {}
    format: Annotated[str, Flag("`table`, `json` or a template such as `{{.ID}}`", metavar="TEMPLATE")] = ""
    no_trunc: Annotated[bool, Flag("Show whole ids")] = False
    quiet: Annotated[bool, Flag("Show only ids", short="q")] = False


class Line(Struct, frozen=True, kw_only=True):
    """One name of an image, or an image without name."""

    repository: str
    tag: str
    digest: str
    """Of the manifest or index."""
    id: str
    created: str
    """RFC 3339."""
    age_s: float
    size: int
    """Bytes of all blobs."""
    platforms: tuple[str, ...]


class ImagesResult(Result, frozen=True, kw_only=True):
    images: tuple[Line, ...]


def run(options: Images, world: World) -> ImagesResult:
    """Reads the store's list. Raises `images.filter` for a filter that is not known."""
    unknown = set(options.filter) - {"dangling", "reference"}
    if unknown:
        raise AerogelError(
            f"filter `{min(unknown)}` is not known",
            code="images.filter",
            hints=["`dangling=true|false` and `reference=PATTERN` are"],
            exit_status=EXIT_USAGE,
        )
    wanted = Reference.parse(options.repository, default_tag=None) if options.repository else None
    lines = (line for record in world.store.images.list() for line in _lines(record, wanted, world.clock()))
    return ImagesResult(images=tuple(line for line in lines if _fits(line, options)))


def _lines(record: ImageRecord, wanted: Reference | None, now: float) -> Iterator[Line]:
    names: list[tuple[str, str]] = []
    for reference in record.references:
        if wanted is not None and (reference.name != wanted.name or wanted.tag not in (None, reference.tag)):
            continue
        repository = reference.with_digest(record.descriptor.digest).familiar().partition("@")[0]
        names.append((repository, reference.tag or NONE))
    if not record.references and wanted is None:
        names = [(NONE, NONE)]
    created = _seconds(record.meta.created)
    for repository, tag in names:
        yield Line(
            repository=repository,
            tag=tag,
            digest=record.descriptor.digest,
            id=record.id,
            created=record.meta.created,
            age_s=0.0 if created is None else max(0.0, now - created),
            size=record.meta.size,
            platforms=record.meta.platforms,
        )


def _fits(line: Line, options: Images) -> bool:
    dangling = options.filter.get("dangling")
    if dangling is not None and (line.tag == NONE) is not (dangling.lower() in ("1", "true")):
        return False
    pattern = options.filter.get("reference")
    if pattern is None:
        return True
    return fnmatch.fnmatchcase(f"{line.repository}:{line.tag}" if ":" in pattern else line.repository, pattern)


def _seconds(created: str) -> float | None:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return None


def text(options: Images, result: ImagesResult) -> str:
    rows = [_row(line, whole=options.no_trunc) for line in result.images]
    fields = [("Repository", "REPOSITORY"), ("Tag", "TAG"), ("ID", "IMAGE ID"), ("CreatedSince", "CREATED")]
    fields.append(("Size", "SIZE"))
    if options.digests:
        fields.insert(2, ("Digest", "DIGEST"))
    if options.quiet:
        return "\n".join(dict.fromkeys(row["ID"] for row in rows))
    return table_or_template(options.format, fields, rows)


def _row(line: Line, *, whole: bool) -> dict[str, str]:
    """The keys that docker's templates know."""
    return {
        "Containers": "N/A",
        "CreatedAt": line.created or "N/A",
        "CreatedSince": age(line.age_s) if line.created else "N/A",
        "Digest": line.digest,
        "ID": line.id if whole else short_id(line.id),
        "Platform": ", ".join(line.platforms),
        "Repository": line.repository,
        "SharedSize": "N/A",
        "Size": size(line.size),
        "Tag": line.tag,
        "UniqueSize": "N/A",
        "VirtualSize": size(line.size),
    }
