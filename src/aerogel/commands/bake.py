"""`aerogel bake`: several targets of a bake or compose file in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aerogel.commands.bake_model import Bake, BakeReport, BakeResult
from aerogel.commands.world import World
from aerogel.errors import AerogelError

if TYPE_CHECKING:
    from aerogel.commands.baking import Baking

__all__ = ["EXAMPLES", "Bake", "BakeReport", "BakeResult", "run"]

EXAMPLES = (
    ("the group or target `default`", "aerogel bake"),
    ("one target for two platforms", "aerogel bake app --set '*.platform=linux/amd64,linux/arm64'"),
    ("what would be built", "aerogel bake --print app"),
    ("a definition in a repository", "aerogel bake https://git.example/team/app.git#main app"),
)


def run(options: Bake, world: World) -> BakeResult | BakeReport:
    """Reads the files, then builds or answers. Raises AerogelError `bake.*` and all that `build` raises."""
    from aerogel.commands.baking import open_baking

    with open_baking(options, world) as baking:
        if options.listing:
            return BakeReport(report=baking.listed(options.listing))
        if options.is_print:
            return BakeReport(report=baking.printed())
        if baking.is_question:
            report, status = baking.answers()
            return BakeReport(report=report, status=status)
        return _build(baking, options, world)


def _build(baking: Baking, options: Bake, world: World) -> BakeResult | BakeReport:
    """Targets that have a `call` are answered for, as by `--call`; the others are built."""
    report, status = baking.answers()
    try:
        targets = baking.build()
    except AerogelError as error:
        if options.on_error == "debug":
            from aerogel.commands.debug_last import debug_failed

            debug_failed(error, world)
        raise
    if not targets:
        return BakeReport(report=report, status=status)
    return BakeResult(targets=targets, report=report, status=status)
