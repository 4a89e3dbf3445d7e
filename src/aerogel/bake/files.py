"""Which bake files there are, and all of them together as one definition.

Spec: bake file reference, "File format" and the order of look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aerogel.bake.definition import Definition, evaluate
from aerogel.bake.hcl import Body
from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span

__all__ = ["DEFAULT_NAMES", "define", "is_compose"]

DEFAULT_NAMES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
)
"""What is looked for when no file is named, in the order in which later files change earlier ones."""


def is_compose(source: Source) -> bool:
    """By its name; a file of another name is a compose file when it looks like YAML with services."""
    name = source.name.lower()
    if name.endswith((".yml", ".yaml")):
        return True
    if name.endswith((".json", ".hcl")):
        return False
    head = source.data.lstrip()
    return not head.startswith(b"{") and any(
        line.startswith((b"services:", b"x-")) for line in source.data.split(b"\n")
    )


def define(
    sources: Sequence[Source],
    lookup: Callable[[str], str | None],
    compose_lookup: Callable[[str], str | None],
    built_in: Mapping[str, str],
    read: Callable[[str], Source],
    *,
    is_relative: bool = False,
) -> Definition:
    """Reads the files in order: compose files first, as buildx does. `read` gives the files that these name.

    With `is_relative` contexts are relative to the file that names them. Raises AerogelError `bake.*`.
    """
    definition = Definition(is_relative=is_relative)
    composed = [source for source in sources if is_compose(source)]
    if composed:
        from aerogel.bake.compose import add_compose

        add_compose(composed, compose_lookup, definition, read)
    others = [source for source in sources if source not in composed]
    if others:
        evaluate([_body(source) for source in others], lookup, built_in, definition)
    if not definition.targets and not definition.groups:
        raise AerogelError(
            "the bake files define no target",
            code="bake.no-target",
            span=Span(sources[0], 0, 0) if sources else None,
            exit_status=EXIT_USAGE,
            hints=['write `target "app" { context = "." }`, or a service with `build` in a compose file'],
        )
    return definition


def _body(source: Source) -> Body:
    if source.name.lower().endswith(".json") or source.data.lstrip().startswith(b"{"):
        from aerogel.bake.json_file import parse_json

        return parse_json(source)
    from aerogel.bake.hcl_file import parse_hcl

    return parse_hcl(source)
