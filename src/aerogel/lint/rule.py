"""What a rule is, what it finds, and which findings the file itself has switched off.

No rule stands here: those of Dockerfiles are in `aerogel.lint.dockerfile`. Spec: the Dockerfile reference, "check".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from aerogel.dockerfile.ast import Comment, Dockerfile, Node
from aerogel.dockerfile.syntax import match_directive
from aerogel.errors import AerogelError, Diagnostic, Faults, Source, Span, nearest

__all__ = ["Checked", "Finding", "Options", "Rule", "Subject", "allowed", "parse_options"]

_KEYS = ("skip", "error", "experimental")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Options(NamedTuple):
    """Which rules run: `skip` and `experimental` hold names, or `all`; `error` makes findings fail the build."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def merged(self, other: Options) -> Options:
        """These options and those of one instruction; only the file decides about `error`."""
        return Options(self.skip | other.skip, self.experimental | other.experimental, self.error)


class Subject(NamedTuple):
    """What is checked, and what is known beside the text.

    `base_environment` gives the environment of a base image, or None if it is not known; then nothing is said about
    variables it may set. `automatic` are the values of the automatic platform arguments, `build_args` those of
    `--build-arg`. `is_ignored` says whether the ignore file removes a path of the context; None if there is none.
    """

    dockerfile: Dockerfile
    base_environment: Callable[[str], dict[str, str] | None] = lambda _base: None
    automatic: dict[str, str] = {}  # noqa: RUF012  -- a NamedTuple's default, never changed
    build_args: dict[str, str] = {}  # noqa: RUF012  -- a NamedTuple's default, never changed
    is_ignored: Callable[[str], bool] | None = None


class Finding(NamedTuple):
    """One remark. `span` is where the caret goes, `node` the instruction whose lines BuildKit reports."""

    rule: str
    message: str
    span: Span
    node: Node
    hints: tuple[str, ...] = ()
    line: int = 0
    """The one line that BuildKit reports, if it is not those of the instruction."""

    @property
    def lines(self) -> tuple[int, int]:
        """First and last line, as BuildKit reports them."""
        if self.line:
            return self.line, self.line
        return self.node.span.line, self.node.span.end_line

    def diagnostic(self) -> Diagnostic:
        return Diagnostic(
            f"{self.rule}: {self.message}",
            code=f"lint.{self.rule}",
            span=self.span,
            hints=self.hints,
            url=f"docs/lint/{self.rule}.md",
        )


class Checked(NamedTuple):
    """One file: what was found, or the fault for which it could not be checked.

    `is_error` says that findings are to fail the run, as `# check=error=true` asks for.
    """

    source: Source
    findings: tuple[Finding, ...] = ()
    fault: AerogelError | None = None
    is_error: bool = False

    def faults(self) -> tuple[AerogelError, ...]:
        if self.fault is None:
            return ()
        return self.fault.errors if isinstance(self.fault, Faults) else (self.fault,)

    @property
    def has_failed(self) -> bool:
        """Whether the file is broken, or has findings that count as errors."""
        return self.fault is not None or (self.is_error and bool(self.findings))


class Rule(NamedTuple):
    """One rule; `check` is None for a rule that needs an image and is reported by who has it."""

    name: str
    summary: str
    check: Callable[[Subject], Iterable[Finding]] | None
    experimental: bool = False


def parse_options(text: str, span: Span | None, names: Sequence[str]) -> Options:
    """Read `skip=A,B;error=true;experimental=all`; `names` are the known rules, for hints.

    Raises:
        AerogelError: `lint.bad-options`.
    """
    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error = False
    for part in text.strip().split(";", 2) if text.strip() else ():
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or key not in _KEYS:
            near = nearest(key, _KEYS)
            hint = f"did you mean `{near}`?" if near and near != key else "the form is `skip=Rule,Rule;error=true`"
            raise AerogelError(f"`{part}` is no option of `check`", code="lint.bad-options", span=span, hints=[hint])
        if key == "error":
            if value not in _TRUE and value not in _FALSE:
                message = f"`error` is `true` or `false`, not `{value}`"
                raise AerogelError(message, code="lint.bad-options", span=span, hints=[f"rules: {', '.join(names)}"])
            error = value in _TRUE
            continue
        rules = frozenset(name.strip() for name in value.split(","))
        if key == "skip":
            skip = rules
        else:
            experimental = rules
    return Options(skip, experimental, error)


def allowed(finding: Finding, rule: Rule, options: Options, names: Sequence[str]) -> bool:
    """Whether options and the comments above the instruction let the finding through."""
    options = _merged(options, finding.node.comments, names)
    if rule.experimental:
        return "all" in options.experimental or rule.name in options.experimental
    return "all" not in options.skip and rule.name not in options.skip


def _merged(options: Options, comments: tuple[Comment, ...], names: Sequence[str]) -> Options:
    for comment in comments:
        found = match_directive(comment.text)
        if found is None or found[0] != "check":
            continue
        try:
            return options.merged(parse_options(found[2].split(" ")[0], comment.span, names))
        except AerogelError:
            return options  # BuildKit runs with the options it had: a comment is not worth a failed build
    return options
