"""The variables of a build: global arguments, the environment of a stage, and what a word expands to with them.

Pure. ARG and ENV write the same ordered environment, a later one wins; only ENV enters the image config (that is
`graph.steps`). Spec: the Dockerfile reference, ARG and "Automatic platform ARGs in the global scope".
"""

from __future__ import annotations

from collections.abc import Mapping

from aerogel.dockerfile import ast
from aerogel.dockerfile.words import Quoting, expand, expand_words, process
from aerogel.errors import Span
from aerogel.graph.request import Request
from aerogel.oci.platform import Platform

__all__ = ["PROXY_ARGS", "Scope", "automatic"]

PROXY_ARGS = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Build arguments that need no ARG: they reach every RUN, and neither key nor history."""

_NOT_ENV = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
_QUIET = Quoting(quotes=False)


class Scope:
    """Variables in the order in which they were set. `declared` are the ARGs, for the history of RUN."""

    __slots__ = ("build_args", "declared", "escape", "outer", "values")

    def __init__(
        self,
        values: dict[str, str],
        *,
        build_args: Mapping[str, str],
        escape: str,
        outer: Mapping[str, str],
        declared: dict[str, str] | None = None,
    ) -> None:
        self.values = values
        self.build_args = build_args
        self.escape = escape
        self.outer = outer
        self.declared: dict[str, str] = declared if declared is not None else {}

    @classmethod
    def globals(cls, request: Request, dockerfile: ast.Dockerfile, target: str) -> Scope:
        """The scope before the first FROM: automatic arguments, then the ARGs, each overridden by `--build-arg`."""
        values = automatic(request.platform, request.build_platform, target)
        values.update({name: request.build_args[name] for name in values if name in request.build_args})
        scope = cls(values, build_args=request.build_args, escape=dockerfile.directives.escape, outer={})
        for arg in dockerfile.args:
            for item in arg.items:
                scope.declare(item.name.text, item.value)
        return scope

    def stage(self, env: Mapping[str, str]) -> Scope:
        """The scope of a stage that starts from an image with this environment; call it on the global scope."""
        return Scope(dict(env), build_args=self.build_args, escape=self.escape, outer=self.values)

    def child(self) -> Scope:
        """The scope of a stage that starts from the stage of this scope."""
        return Scope(
            dict(self.values),
            build_args=self.build_args,
            escape=self.escape,
            outer=self.outer,
            declared=dict(self.declared),
        )

    def set(self, name: str, value: str) -> None:
        """ENV: a name that is set again goes to the end, as in BuildKit's environment list."""
        self.values.pop(name, None)
        self.values[name] = value

    def declare(self, name: str, default: ast.Word | None) -> str | None:
        """ARG: `--build-arg`, else the default, else the global argument; None when it stays unset."""
        value: str | None
        if name in self.build_args:
            value = self.build_args[name]
        elif default is not None:
            value = self.expand(default)
        else:
            value = self.outer.get(name)
        self.declared[name] = value or ""
        if value is not None and name not in _NOT_ENV:
            self.set(name, value)
        return value

    def declared_as_history(self) -> list[str]:
        """What stands before the command in the history of a RUN: `|n` and the arguments with their values."""
        found = [f"{name}={self.values.get(name, value)}" for name, value in self.declared.items()]
        return [f"|{len(found)}", *found] if found else []

    def expand(self, word: ast.Word) -> str:
        """Raises AerogelError as `dockerfile.words.expand`."""
        return expand(word, self.values.get, self.escape)

    def expand_words(self, word: ast.Word) -> list[str]:
        """The word expanded and split at blanks."""
        return expand_words(word, self.values.get, self.escape)

    def expand_text(self, text: str, span: Span) -> str:
        """The body of a here-document: variables, but quotes are ordinary characters."""
        return process(text, self.values.get, "\\", _QUIET, span=span).text


def automatic(platform: str, build_platform: str, target: str) -> dict[str, str]:
    """The arguments that every build has."""
    values: dict[str, str] = {}
    for prefix, text in (("BUILD", build_platform), ("TARGET", platform)):
        found = Platform.parse(text)
        values[f"{prefix}PLATFORM"] = text
        values[f"{prefix}OS"] = found.os
        values[f"{prefix}OSVERSION"] = found.os_version
        values[f"{prefix}ARCH"] = found.architecture
        values[f"{prefix}VARIANT"] = found.variant
    values["TARGETSTAGE"] = target
    return values
