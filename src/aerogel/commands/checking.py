"""The rules for Dockerfiles as commands run them: `aerogel lint`, `aerogel build --check` and every build.

What is known beside the text comes from here: the options of the build, the ignore file, the environment of bases
that are built in or that a build has found. Which rules there are: `aerogel.lint.dockerfile`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy

from aerogel.dockerfile.ast import Dockerfile
from aerogel.dockerfile.parse import parse
from aerogel.errors import AerogelError, Source
from aerogel.events import Sink, Warned
from aerogel.files.pattern import IgnoreMatcher
from aerogel.graph.scope import automatic
from aerogel.graph.stages import ImageRef, Plan
from aerogel.graph.steps import BaseImage
from aerogel.lint.dockerfile import RULES, check, file_options, wrong_platform
from aerogel.lint.image import IMAGE_RULES
from aerogel.lint.rule import Checked, Finding, Options, Subject, allowed, parse_options
from aerogel.oci.platform import Platform

__all__ = ["OPTIONS_ARG", "Checker", "built_in_environment", "check_build", "warn"]

OPTIONS_ARG = "BUILDKIT_DOCKERFILE_CHECK"
"""The build argument that stands in for the `# check=` of the file."""

_NAMES = [rule.name for rule in (*RULES, *IMAGE_RULES)]


class Checker:
    """Checks files, all with the same options. `skip` and `experimental` add to what each file says."""

    def __init__(
        self,
        *,
        build_args: Mapping[str, str] | None = None,
        platform: str = "",
        skip: Sequence[str] = (),
        experimental: Sequence[str] = (),
        is_error: bool = False,
    ) -> None:
        host = str(Platform.host())
        self.build_args = dict(build_args or {})
        self.automatic = automatic(platform or host, host, "default")
        self.added = Options(frozenset(skip), frozenset(experimental), is_error)
        self.base_environment: Callable[[str], dict[str, str] | None] = built_in_environment

    def with_environment(self, environment: Callable[[str], dict[str, str] | None]) -> Checker:
        """The same checker, with other knowledge of base images."""
        other = copy(self)
        other.base_environment = environment
        return other

    def file(self, source: Source, ignore: IgnoreMatcher | None) -> Checked:
        """A file from its text; what is wrong with the text becomes the fault of the result."""
        try:
            tree = parse(source)
            options = self.options(tree)
        except AerogelError as error:
            return Checked(source, fault=error)
        return Checked(source, self.tree(tree, ignore, options), is_error=options.error)

    def options(self, tree: Dockerfile) -> Options:
        """What the file or the build argument says, and what was added. Raises AerogelError `lint.bad-options`."""
        given = self.build_args.get(OPTIONS_ARG)
        own = file_options(Subject(tree)) if given is None else parse_options(given, None, _NAMES)
        merged = own.merged(self.added)
        return merged._replace(error=merged.error or self.added.error)

    def tree(self, tree: Dockerfile, ignore: IgnoreMatcher | None, options: Options) -> tuple[Finding, ...]:
        """The findings, each once."""
        subject = Subject(
            tree,
            base_environment=self.base_environment,
            automatic=self.automatic,
            build_args=self.build_args,
            is_ignored=_is_ignored(ignore),
        )
        return tuple(_unique(check(subject, options)))


def _unique(findings: Sequence[Finding]) -> Iterator[Finding]:
    seen: set[tuple[str, str, int, int]] = set()
    for finding in findings:
        key = (finding.rule, finding.message, finding.span.start, finding.span.end)
        if key not in seen:
            seen.add(key)
            yield finding


def _is_ignored(matcher: IgnoreMatcher | None) -> Callable[[str], bool] | None:
    """As BuildKit: nothing is said when the ignore file has an exception."""
    if matcher is None or matcher.has_exceptions:
        return None
    patterns = matcher

    def is_ignored(path: str) -> bool:
        path = posixpath.normpath(path).lstrip("/")
        return path not in ("", ".") and patterns.matches(path.encode("utf-8", "surrogateescape"))

    return is_ignored


def built_in_environment(name: str) -> dict[str, str] | None:
    """The environment of a base whose recipe is built in; None for any other image."""
    from aerogel.distroless.catalogue import find

    recipe = find(name)
    return None if recipe is None else dict(_pair(text) for text in recipe.env)


def check_build(
    checker: Checker,
    tree: Dockerfile,
    ignore: IgnoreMatcher | None,
    plan: Plan,
    images: Mapping[str, BaseImage],
) -> tuple[tuple[Finding, ...], Options]:
    """The findings of a build whose base images are known, by the names in the plan; and the options that held.

    Raises AerogelError `lint.bad-options`.
    """

    def environment(name: str) -> dict[str, str] | None:
        image = images.get(name)
        return built_in_environment(name) if image is None else dict(map(_pair, image.config.config.env))

    options = checker.options(tree)
    findings = [
        finding
        for finding in checker.with_environment(environment).tree(tree, ignore, options)
        if not _will_fail(finding, plan)
    ]
    rule = next(rule for rule in RULES if rule.name == "InvalidBaseImagePlatform")
    for stage in plan.stages:
        if not isinstance(stage.base, ImageRef):
            continue
        config = images[stage.base.name].config
        actual = Platform.of(config.os, config.architecture, config.variant)
        if not Platform.parse(stage.platform).matches(actual):
            finding = wrong_platform(stage.stage.origin, stage.base.name, stage.platform, str(actual))
            if allowed(finding, rule, options, _NAMES):
                findings.append(finding)
    return tuple(findings), options


def _will_fail(finding: Finding, plan: Plan) -> bool:
    """Whether the build is about to say the same as an error: the file is named, ignored, and needed."""
    if finding.rule != "CopyIgnoredFile" or any(sign in finding.span.text for sign in "*?["):
        return False
    needed = (it.span for stage in plan.stages for it in stage.instructions)
    return any(span.source is finding.span.source and span.start <= finding.span.start < span.end for span in needed)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def warn(findings: Sequence[Finding], sink: Sink, options: Options) -> None:
    """Tells the findings as warnings. Raises AerogelError `lint.failed` when they are to fail the build."""
    for finding in findings:
        sink.emit(Warned(finding.diagnostic()))
    if findings and options.error:
        rules = sorted({finding.rule for finding in findings})
        raise AerogelError(
            f"the Dockerfile breaks the {'rule' if len(rules) == 1 else 'rules'} "
            + ", ".join(f"`{rule}`" for rule in rules),
            code="lint.failed",
            span=findings[0].span,
            hints=["`error=true` of `check` makes warnings fail the build; `skip=RULE` switches one off"],
        )
