"""Annotations and where they go: on the manifest, on the index, or on the descriptor that an index has of them.

Spec: BuildKit docs/annotations.md; docker's reference of `--annotation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.oci.platform import Platform

__all__ = ["LEVELS", "Annotation", "annotations_for", "parse_annotation", "refuse_levels"]

LEVELS = ("manifest", "index", "manifest-descriptor", "index-descriptor")

_LEVEL = re.compile(r"(?P<level>[a-z-]+)(\[(?P<platform>[^]]+)\])?")


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """One annotation at one or several levels. `platform` limits it to the image of that platform."""

    levels: tuple[str, ...]
    platform: str = ""
    key: str
    value: str


def parse_annotation(key: str, value: str) -> Annotation:
    """Reads `[LEVEL[[PLATFORM]],...:]KEY` and its value. Raises `build.bad-annotation`."""
    head, colon, rest = key.partition(":")
    matches = [_LEVEL.fullmatch(part.strip()) for part in head.split(",")]
    levels = [match["level"] for match in matches if match is not None]
    # A key may hold a colon too: only a word that is nearly a level is one.
    is_level = (
        bool(colon) and len(levels) == len(matches) and any(nearest(one, LEVELS) or one in LEVELS for one in levels)
    )
    if not is_level:
        levels, rest, matches = ["manifest"], key, []
    unknown = [level for level in levels if level not in LEVELS]
    if unknown:
        guess = nearest(unknown[0], LEVELS)
        raise _bad(
            f"annotations have no level `{unknown[0]}`",
            f"did you mean `{guess}`?" if guess else "levels are " + ", ".join(f"`{one}`" for one in LEVELS),
        )
    if not rest:
        raise _bad(f"the annotation `{key}={value}` has no name", "write `KEY=VALUE` or `index:KEY=VALUE`")
    platforms = {match["platform"] for match in matches if match is not None and match["platform"]}
    if len(platforms) > 1:
        raise _bad(f"the annotation `{key}` names several platforms", "give it once for each platform")
    platform = str(Platform.parse(platforms.pop()).normal()) if platforms else ""
    return Annotation(levels=tuple(levels), platform=platform, key=rest, value=value)


def annotations_for(annotations: Iterable[Annotation], level: str, platform: Platform | None = None) -> dict[str, str]:
    """Those of a level; of a platform's image also those for it alone, which win."""
    name = str(platform.normal()) if platform is not None else ""
    wanted = [one for one in annotations if level in one.levels and one.platform in ("", name)]
    return {one.key: one.value for one in sorted(wanted, key=lambda one: bool(one.platform))}


def refuse_levels(annotations: Iterable[Annotation], *, is_index: bool) -> None:
    """Raises `build.bad-annotation` for levels that the result does not have: one platform has no index."""
    for one in annotations:
        wrong = [level for level in one.levels if level.startswith("index")]
        if wrong and not is_index:
            raise _bad(
                f"the annotation `{one.key}` is for the level `{wrong[0]}`, and an image of one platform has no index",
                "use the level `manifest`, or build for several platforms",
            )


def _bad(message: str, hint: str) -> AerogelError:
    return AerogelError(message, code="build.bad-annotation", exit_status=EXIT_USAGE, hints=[hint])
