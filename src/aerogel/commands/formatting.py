"""`aerogel format`: Dockerfiles in house form. What that form is: `aerogel.dockerfile.format`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.source import dockerfile_of, read_source
from aerogel.commands.world import World
from aerogel.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, AerogelError, Faults, Source
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Format", "FormatResult", "run"]

EXAMPLES = (
    ("print the Dockerfile of this folder in house form", "aerogel format"),
    ("rewrite files", "aerogel format --write Dockerfile services/*/Dockerfile"),
    ("fail in CI when something is not formatted, and show what", "aerogel format --check --diff Dockerfile"),
    ("as a filter in an editor", "aerogel format - < Dockerfile"),
)


class Format(Struct, frozen=True, kw_only=True):
    """Write Dockerfiles in house form, with the same meaning and the same comments.

    Prints the result unless told otherwise. With `--check` or `--diff` the exit status is 1 if a file would change.
    """

    files: Annotated[
        tuple[str, ...],
        Flag(
            "Dockerfiles, or folders that have one; `-` is standard input",
            positional=True,
            metavar="FILE",
            complete="file",
        ),
    ] = ()
    check: Annotated[bool, Flag("Change nothing; name the files that would change")] = False
    diff: Annotated[bool, Flag("Change nothing; show what would change")] = False
    write: Annotated[bool, Flag("Rewrite the files; name those that changed", short="w")] = False


class FormatResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    output: str
    has_failed: bool

    def text(self) -> str:
        return self.output

    def exit_status(self) -> int:
        return EXIT_FAILED if self.has_failed else EXIT_OK


def run(options: Format, world: World) -> FormatResult:
    """Formats every file. Raises `format.*` for flags that do not fit, `dockerfile.*` after the files that parse."""
    here = world.settings.directory
    files = tuple(dockerfile_of(name, here) for name in options.files or (".",))
    _check_flags(options, files)
    parts: list[str] = []
    faults: list[AerogelError] = []
    is_changed = False
    for name in files:
        source = read_source(name, here, world.streams.stdin, "format.unreadable")
        try:
            formatted = _formatted(source)
        except AerogelError as error:
            faults += error.errors if isinstance(error, Faults) else [error]
            continue
        if not (options.check or options.diff or options.write):
            parts.append(formatted.decode())
        elif formatted != source.data:
            is_changed = True
            parts.append(_diff(source, formatted) if options.diff else f"{name}\n")
            if options.write:
                _write((here / name).resolve(), formatted)
    if faults:
        raise faults[0] if len(faults) == 1 else Faults(faults)
    return FormatResult(output="".join(parts), has_failed=is_changed and (options.check or options.diff))


def _check_flags(options: Format, files: tuple[str, ...]) -> None:
    hints = ["`--write` rewrites files, `--check` names those that would change, `--diff` shows how"]
    if options.write and (options.check or options.diff):
        message = f"`--write` and `--{'check' if options.check else 'diff'}` contradict each other"
    elif options.write and "-" in files:
        message = "`--write` cannot write to standard input"
    elif len(files) > 1 and not (options.write or options.check or options.diff):
        message = "several files would be printed as one"
    else:
        return
    raise AerogelError(message, code="format.flags", exit_status=EXIT_USAGE, hints=hints)


def _formatted(source: Source) -> bytes:
    from aerogel.dockerfile.format import format_dockerfile
    from aerogel.dockerfile.parse import parse

    return format_dockerfile(parse(source))


def _diff(source: Source, formatted: bytes) -> str:
    """A unified diff that `patch` takes; carriage returns show as what they are."""
    import difflib

    old, new = (_lines(data) for data in (source.data, formatted))
    return "".join(difflib.unified_diff(old, new, source.name, f"{source.name} (formatted)"))


def _lines(data: bytes) -> list[str]:
    lines = [line + "\n" for line in data.decode("utf-8", "surrogateescape").split("\n")]
    last = lines.pop()
    return [*lines, f"{last}\\ No newline at end of file\n"] if last != "\n" else lines


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, with the same permissions."""
    from aerogel.store.disk import disk_errors

    with disk_errors(str(path.parent)):
        made = path.with_name(f".{path.name}.{os.getpid()}")
        made.write_bytes(data)
        made.chmod(path.stat().st_mode & 0o7777)
        made.replace(path)
