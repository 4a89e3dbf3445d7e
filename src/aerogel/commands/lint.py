"""`aerogel lint`: the rules for Dockerfiles without a build; see `docs/lint/` for what they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.source import build_args, dockerfile_of, read_source
from aerogel.commands.world import World
from aerogel.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, AerogelError, Source, nearest
from aerogel.flag import Flag

if TYPE_CHECKING:
    from aerogel.files.pattern import IgnoreMatcher

__all__ = ["EXAMPLES", "Lint", "LintResult", "run"]

EXAMPLES = (
    ("the Dockerfile of this folder", "aerogel lint"),
    ("with the words of a build", "aerogel lint -f docker/Dockerfile ."),
    ("fail in CI when a rule is broken", "aerogel lint --error Dockerfile services/*/Dockerfile"),
    ("for code scanning services", "aerogel lint --format sarif Dockerfile > lint.sarif"),
    ("from standard input", "aerogel lint - < Dockerfile"),
)


class Lint(Struct, frozen=True, kw_only=True):
    """Check Dockerfiles against the rules of docker's build checks.

    Without a file it checks `Dockerfile` of this folder. With `-f` the words are those of `aerogel build`. The exit status is 1 for a file that cannot be parsed, and
    for findings when `--error` or the file's `# check=error=true` asks for it.
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
    file: Annotated[
        str,
        Flag(
            "The Dockerfile, as for `aerogel build`: what comes after it is the context",
            short="f",
            complete="file",
            metavar="FILE",
        ),
    ] = ""
    format: Annotated[Literal["text", "json", "sarif"], Flag("`json` is what docker's `--call=check` prints")] = "text"
    skip: Annotated[list[str], Flag("Rule to leave out, or `all`", metavar="RULE")] = []
    experimental: Annotated[list[str], Flag("Experimental rule to run, or `all`", metavar="RULE")] = []
    error: Annotated[bool, Flag("Exit with status 1 when anything is found")] = False
    context: Annotated[
        str,
        Flag(
            "Folder of the build context, for its ignore file; default: the folder of each file", complete="directory"
        ),
    ] = ""
    build_arg: Annotated[dict[str, str | None], Flag("Value of an ARG; without `=`, from the environment")] = {}
    platform: Annotated[str, Flag("Platform of the image", metavar="OS/ARCH")] = ""


class LintResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    report: str
    has_failed: bool

    def text(self) -> str:
        return self.report

    def exit_status(self) -> int:
        return EXIT_FAILED if self.has_failed else EXIT_OK


def run(options: Lint, world: World) -> LintResult:
    """Checks every file. Raises `lint.no-such-rule`, `lint.unreadable`, `pattern.bad` for an ignore file."""
    from aerogel import __version__
    from aerogel.commands.checking import Checker
    from aerogel.lint import report

    _check_names(options)
    checker = Checker(
        build_args=build_args(options.build_arg, world.settings.environment),
        platform=options.platform,
        skip=_split(options.skip),
        experimental=_split(options.experimental),
        is_error=options.error,
    )
    here = world.settings.directory
    checked = []
    names, context = _names(options, here)
    for name in names:
        source = read_source(name, here, world.streams.stdin, "lint.unreadable")
        checked.append(checker.file(source, _ignore(name, context, here)))
    match options.format:
        case "json":
            text = report.buildkit_json(checked)
        case "sarif":
            text = report.sarif(checked, __version__)
        case _:
            text = report.text(checked)
    return LintResult(report=text, has_failed=any(file.has_failed for file in checked))


def _names(options: Lint, here: Path) -> tuple[tuple[str, ...], str]:
    """The Dockerfiles, and the folder of the context if one was given."""
    if not options.file:
        return tuple(dockerfile_of(name, here) for name in options.files or (".",)), options.context
    if len(options.files) > 1 or (options.files and options.context):
        raise AerogelError(
            "`-f` is for one Dockerfile, and what comes after it is the folder of its context",
            code="lint.bad-words",
            exit_status=EXIT_USAGE,
            hints=["several Dockerfiles are named without `-f`: `aerogel lint Dockerfile services/*/Dockerfile`"],
        )
    return (options.file,), options.context or (options.files[0] if options.files else "")


def _split(names: list[str]) -> list[str]:
    """`--skip A,B` is two rules, as in the file."""
    return [name.strip() for word in names for name in word.split(",") if name.strip()]


def _check_names(options: Lint) -> None:
    from aerogel.lint.dockerfile import RULES
    from aerogel.lint.image import IMAGE_RULES

    known = ["all", *(rule.name for rule in (*RULES, *IMAGE_RULES))]
    for name in (*_split(options.skip), *_split(options.experimental)):
        if name not in known:
            near = nearest(name, known)
            raise AerogelError(
                f"there is no rule `{name}`",
                code="lint.no-such-rule",
                exit_status=EXIT_USAGE,
                hints=[f"did you mean `{near}`?" if near else f"rules: {', '.join(known)}"],
            )


def _ignore(name: str, context: str, here: Path) -> IgnoreMatcher | None:
    """The ignore file that a build of this file would use: its own, else that of the context."""
    from aerogel.files.pattern import IgnoreMatcher

    candidates: list[Path] = []
    if name != "-":
        path = here / name
        candidates.append(path.with_name(f"{path.name}.dockerignore"))
        candidates.append(path.with_name(".dockerignore"))
    if context:
        candidates[1:] = [here / context / ".dockerignore"]
    for path in candidates:
        if path.is_file():
            shown = os.path.relpath(path, here)
            return IgnoreMatcher.parse(Source(shown, path.read_bytes()))
    return None
