"""`aerogel history`: past builds, the steps of one with their times, or the layers of an image as docker shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from msgspec import Struct

from aerogel.commands.format import age, columns, short_id, size, table_or_template
from aerogel.commands.lookup import find_image
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "BuildLine", "History", "HistoryResult", "LayerLine", "StepLine", "run", "text"]

EXAMPLES = (
    ("the builds of this store, the last one first", "aerogel history"),
    ("the last build, and where its time went as a picture", "aerogel history @1 --svg build.svg"),
    ("the layers of an image", "aerogel history app"),
)

_LONGEST_COMMAND = 45


class History(Struct, frozen=True, kw_only=True):
    """List past builds, one build's steps and times, or an image's layers.

    `@1` is the last build, `@2` the one before. Anything else than a build is an image of the local store.
    """

    name: Annotated[
        str | None, Flag("Id of a build, `@1` for the last one, or an image", positional=True, metavar="BUILD|IMAGE")
    ] = None
    svg: Annotated[str, Flag("Draw the steps of the build over time", complete="file", metavar="FILE")] = ""
    format: Annotated[
        str, Flag("Of an image: `table`, `json` or a template such as `{{.CreatedBy}}`", metavar="TEMPLATE")
    ] = ""
    human: Annotated[bool, Flag("Of an image: sizes and ages in words; `--human=false` for numbers", short="H")] = True
    no_trunc: Annotated[bool, Flag("Show whole instructions")] = False
    quiet: Annotated[bool, Flag("Show only ids", short="q")] = False


class BuildLine(Struct, frozen=True, kw_only=True):
    """A build. `began` is RFC 3339, `result` one of `done`, `failed`, `canceled`; `steps` counts them by status."""

    id: str
    began: str
    age_s: float
    duration_s: float
    result: str
    error: str
    context: str
    dockerfile: str
    target: str
    platform: str
    names: tuple[str, ...]
    image: str
    steps: dict[str, int]


class StepLine(Struct, frozen=True, kw_only=True):
    """A step of a build. Times are in seconds since the build began, none for a step that was not looked at."""

    number: int
    stage: str
    title: str
    status: str
    began_s: float | None
    duration_s: float | None


class LayerLine(Struct, frozen=True, kw_only=True):
    """An entry of an image's history, the newest first. `size` is that of the uncompressed layer in bytes."""

    id: str
    created: str
    age_s: float | None
    created_by: str
    size: int
    comment: str


class HistoryResult(Result, frozen=True, kw_only=True):
    builds: tuple[BuildLine, ...] = ()
    steps: tuple[StepLine, ...] = ()
    """Of the build that was named."""
    layers: tuple[LayerLine, ...] = ()
    """Of the image that was named."""


def run(options: History, world: World) -> HistoryResult:
    """Reads records or the image. Raises `why.no-build`, `image.not-found`, `history.no-picture`."""
    from aerogel.store.builds import BUILD_ID

    name = options.name
    if options.svg and name is None:
        name = "@1"
    if name is None:
        return HistoryResult(builds=tuple(_line(record, world.clock()) for record in world.store.builds.newest()))
    if not (name.startswith("@") or BUILD_ID.fullmatch(name)):
        if options.svg:
            raise AerogelError(
                "the picture is of a build, not of an image",
                code="history.no-picture",
                hints=["`aerogel history` lists the builds; `@1` is the last one"],
                exit_status=EXIT_USAGE,
            )
        return HistoryResult(layers=tuple(_layers(name, world)))
    from aerogel.commands.why import find_build

    record = find_build(world.store, name)
    if options.svg:
        _draw(record, options.svg)
    steps = tuple(_step(step) for step in record["steps"] if step["number"])
    return HistoryResult(builds=(_line(record, world.clock()),), steps=steps)


def _line(record: dict[str, Any], now: float) -> BuildLine:
    counts: dict[str, int] = {}
    for step in record["steps"]:
        if step["number"]:
            status = step["status"] or "SKIPPED"
            counts[status] = counts.get(status, 0) + 1
    return BuildLine(
        id=record["id"],
        began=datetime.fromtimestamp(record["began"], UTC).isoformat(timespec="seconds"),
        age_s=max(0.0, now - record["began"]),
        duration_s=record["duration"],
        result=record["result"],
        error=record.get("error", {}).get("message", ""),
        context=record["context"],
        dockerfile=record["dockerfile"],
        target=record["target"],
        platform=record["platform"],
        names=tuple(record["names"]),
        image=record["image"],
        steps=counts,
    )


def _step(step: dict[str, Any]) -> StepLine:
    began = step.get("began")
    return StepLine(
        number=step["number"],
        stage=step["stage"],
        title=step["title"],
        status=step["status"] or "SKIPPED",
        began_s=began,
        duration_s=None if began is None else round(step["ended"] - began, 4),
    )


def _draw(record: dict[str, Any], path: str) -> None:
    from aerogel.commands.gantt import Bar, as_svg
    from aerogel.store.disk import disk_errors

    several = len({step["stage"] for step in record["steps"] if step["number"]}) > 1
    bars = [
        Bar(step["number"], step["title"], step["status"], step["began"], step["ended"], step["stage"] * several)
        for step in record["steps"]
        if step["number"] and "began" in step
    ]
    names = ", ".join(record["names"]) or record["dockerfile"]
    with disk_errors(str(Path(path).absolute().parent)):
        Path(path).write_text(as_svg(f"{names}, {record['id']}", bars, record["duration"]), encoding="utf-8")


def _layers(name: str, world: World) -> list[LayerLine]:
    from aerogel.oci.image import load
    from aerogel.oci.platform import Platform
    from aerogel.store.load import record_present

    record = find_image(world.store, name)
    image = load(record.descriptor, world.store.blobs, Platform.host())
    record_present(image, world.store)
    sizes = []
    for layer in image.layers():
        known = world.store.layers.record(layer.diff_id)
        sizes.append(known.size if known is not None else layer.descriptor.size)
    entries = [(each, 0 if each.empty_layer or not sizes else sizes.pop(0)) for each in image.config.history]
    lines = []
    for number, (entry, bytes_) in enumerate(reversed(entries)):
        created = _seconds(entry.created)
        lines.append(
            LayerLine(
                id=image.id if number == 0 else "<missing>",
                created=entry.created,
                age_s=None if created is None else max(0.0, world.clock() - created),
                created_by=entry.created_by,
                size=bytes_,
                comment=entry.comment,
            )
        )
    return lines


def _seconds(created: str) -> float | None:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return None


def text(options: History, result: HistoryResult) -> str:
    if result.layers:
        return _layer_table(options, result)
    if options.quiet:
        return "\n".join(line.id for line in result.builds)
    if not result.steps:
        return _build_table(result)
    build = result.builds[0]
    rows = [
        (
            f"#{line.number}",
            "" if line.began_s is None else f"{line.began_s:.2f}s",
            "" if line.duration_s is None else f"{line.duration_s:.2f}s",
            line.status,
            line.stage,
            line.title if options.no_trunc else _cut(line.title, 80),
        )
        for line in result.steps
    ]
    head = [
        f"build {build.id}: {build.result} in {build.duration_s:.2f}s",
        *([f"image {build.image}"] if build.image else []),
        *([f"error: {build.error}"] if build.error else []),
    ]
    return "\n".join([*head, "", columns(("STEP", "BEGAN", "TOOK", "STATUS", "STAGE", "INSTRUCTION"), rows)])


def _build_table(result: HistoryResult) -> str:
    rows = []
    for line in result.builds:
        steps = ", ".join(f"{count} {status}" for status, count in sorted(line.steps.items()))
        name = ", ".join(line.names) or line.target or line.dockerfile
        rows.append((line.id, age(line.age_s), f"{line.duration_s:.2f}s", line.result, name, steps))
    return columns(("BUILD", "WHEN", "TOOK", "RESULT", "NAME", "STEPS"), rows)


def _layer_table(options: History, result: HistoryResult) -> str:
    rows = [_row(line, options) for line in result.layers]
    if options.quiet:
        return "\n".join(row["ID"] for row in rows)
    fields = [("ID", "IMAGE"), ("CreatedSince", "CREATED"), ("CreatedBy", "CREATED BY"), ("Size", "SIZE")]
    fields.append(("Comment", "COMMENT"))
    return table_or_template(options.format, fields, rows)


def _row(line: LayerLine, options: History) -> dict[str, str]:
    """The keys that docker's templates know."""
    ident = line.id if options.no_trunc or not line.id.startswith("sha256:") else short_id(line.id)
    since = "N/A" if line.age_s is None else age(line.age_s) if options.human else line.created
    command = " ".join(line.created_by.split()) if not options.no_trunc else line.created_by
    return {
        "ID": ident,
        "CreatedAt": line.created or "N/A",
        "CreatedSince": since,
        "CreatedBy": command if options.no_trunc else _cut(command, _LONGEST_COMMAND),
        "Size": size(line.size) if options.human else str(line.size),
        "Comment": line.comment,
    }


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
