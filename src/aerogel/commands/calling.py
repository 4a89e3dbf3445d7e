"""`aerogel build --call`: what is said about the Dockerfile when nothing is built.

`check` (the rules), `outline` (what a target takes) and `targets` (which there are), each as text or as JSON with the
form of `docker build --call=METHOD,format=json`; `build` is the ordinary build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aerogel.commands.build_model import Build, CallResult
from aerogel.commands.world import World
from aerogel.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, AerogelError, nearest

if TYPE_CHECKING:
    from aerogel.commands.building import Builder
    from aerogel.graph.outline import Outline, Targets

__all__ = ["Call", "call", "parse_call"]

_METHODS = ("build", "check", "outline", "targets")
_FORMATS = ("text", "json")


class Call(NamedTuple):
    """What was asked for: a method of `--call` and `text` or `json`."""

    method: str = "build"
    format: str = "text"


def parse_call(options: Build) -> Call:
    """`METHOD[,format=json]`, with `method=METHOD` as well; `--check` is `check`. Raises `build.bad-call`."""
    found = {"method": "check" if options.check else "build", "format": "text"}
    for part in options.call.split(",") if options.call else ():
        key, equals, value = part.partition("=")
        if not equals:
            key, value = "method", key
        known = {"method": _METHODS, "format": _FORMATS}.get(key)
        if known is None or value not in known:
            guess = nearest(value if known else key, known or ("method", "format"))
            raise AerogelError(
                f"`--call` does not know `{part}`",
                code="build.bad-call",
                exit_status=EXIT_USAGE,
                hints=[
                    f"did you mean `{guess}`?"
                    if guess
                    else "valid are `check`, `outline`, `targets` and `build`, with `,format=json` for data"
                ],
            )
        found[key] = value
    return Call(found["method"], found["format"])


def call(wanted: Call, options: Build, builder: Builder, world: World) -> CallResult:
    """Answers. Raises what reading the Dockerfile raises, and `graph.*` for `outline`."""
    if wanted.method == "check":
        return _check(builder, wanted.format)
    import msgspec

    from aerogel.commands.draft import open_draft
    from aerogel.graph.outline import Targets, targets

    with open_draft(options, world) as draft:
        answer = targets(draft.dockerfile) if wanted.method == "targets" else draft.outline()
    if wanted.format == "json":
        report = msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
    else:
        report = _targets(answer) if isinstance(answer, Targets) else _outline(answer)
    return CallResult(report=report, status=EXIT_OK)


def _check(builder: Builder, form: str) -> CallResult:
    """As BuildKit's: any finding gives exit status 1."""
    from aerogel.lint.report import buildkit_json, text

    checked = builder.check()
    report = buildkit_json([checked]) if form == "json" else text([checked])
    return CallResult(report=report, status=EXIT_FAILED if checked.findings or checked.fault else EXIT_OK)


def _targets(found: Targets) -> str:
    from aerogel.commands.format import columns

    rows = [
        ((each.name or f"(stage {number})") + (" (default)" if each.default else ""), each.base, each.description)
        for number, each in enumerate(found.targets)
    ]
    return columns(("TARGET", "FROM", "DESCRIPTION"), rows)


def _outline(found: Outline) -> str:
    from aerogel.commands.format import columns

    head = [("TARGET:", found.name)] if found.name else []
    head += [("DESCRIPTION:", found.description)] if found.description else []
    parts = [columns((), head)] if head else []
    if found.args:
        rows = [(each.name, each.value, each.description) for each in found.args]
        parts.append(columns(("BUILD ARG", "VALUE", "DESCRIPTION"), rows))
    for title, needs in (("SECRET", found.secrets), ("SSH", found.ssh)):
        if needs:
            parts.append(columns((title, "REQUIRED"), [(each.name, str(each.required).lower()) for each in needs]))
    if found.cache:
        parts.append(columns(("CACHE MOUNT",), [(each.id,) for each in found.cache]))
    return "\n\n".join(parts) or "it takes nothing: no build argument, secret, ssh agent or cache"
