"""`aerogel why`: why the steps of the last build ran again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.flag import Flag
from aerogel.oci.digest import Digest
from aerogel.solve.why import Cause, Lookup, Record, explain
from aerogel.store.store import Store

__all__ = ["EXAMPLES", "Why", "WhyResult", "WhyStep", "find_build", "run"]

EXAMPLES = (
    ("all steps of the last build that ran", "aerogel why"),
    ("one step, by its number, its stage or its text", "aerogel why 'RUN make'"),
)

_SHOWN_CAUSES = 5
_MAX_BEFORE = 10
"""How many earlier builds are looked through for one that had the step."""


class Why(Struct, frozen=True, kw_only=True):
    """Tell why steps ran again: the first input that differs from the build before."""

    step: Annotated[
        str | None,
        Flag("Number of a step, name of a stage, or part of an instruction", positional=True, metavar="STEP"),
    ] = None
    build: Annotated[
        str, Flag("Another build than the last one: its id, or `@2` for the one before", metavar="BUILD")
    ] = "@1"


class WhyStep(Struct, frozen=True, kw_only=True):
    """A step and why it got its status."""

    number: int
    stage: str
    title: str
    line: int
    status: str
    previous: str
    """The build that it is compared with: the last one that had the step."""
    causes: tuple[Cause, ...]


class WhyResult(Result, frozen=True, kw_only=True):
    build: str
    previous: str
    """The build before of the same Dockerfile, context, target and platform."""
    steps: tuple[WhyStep, ...]
    quiet_steps: int
    """How many steps found their result."""

    def text(self) -> str:
        lines = []
        first = [step for step in self.steps if [cause.kind for cause in step.causes] == ["first"]]
        if len(first) > 1 and len(first) == len(self.steps):
            return f"{len(first)} steps ran: {first[0].causes[0].text}"
        for step in self.steps:
            lines.append(f"#{step.number} {step.title}: {step.status}")
            if step.status == "REUSED":
                lines[-1] += ", what it reads is the same although"
            lines += _tree(step.causes, "")
        if self.quiet_steps:
            verb = "step was" if self.quiet_steps == 1 else "steps were"
            lines.append(f"{self.quiet_steps} {verb} CACHED, REUSED or SKIPPED")
        if not lines:
            lines.append("no step ran")
        return "\n".join(lines)


def run(options: Why, world: World) -> WhyResult:
    """Reads records. Raises `why.no-build`, `why.no-step`, `why.ambiguous`."""
    store = world.store
    record = find_build(store, options.build)
    older = (each for each in store.builds.newest() if each["id"] < record["id"])
    before = list(islice((each for each in older if each["identity"] == record["identity"]), _MAX_BEFORE))
    record = _completed(record, before)
    before = [_completed(each, before[number + 1 :]) for number, each in enumerate(before)]
    places = [at for at, step in enumerate(record["steps"]) if step["number"]]
    wanted = _choose(record, places, options.step) if options.step else places
    shown = wanted if options.step else [at for at in wanted if _ran(record["steps"][at])]
    lookup = Lookup(
        store.builds.selections.get,
        lambda key: (store.actions.record(Digest(key)) or {}).get("facts"),
        lambda path: record["context"].startswith("/") and os.path.lexists(os.path.join(record["context"], path)),
    )
    steps = tuple(_step(record, _previous(record, before, at), at, lookup) for at in shown)
    return WhyResult(
        build=record["id"],
        previous=before[0]["id"] if before else "",
        steps=steps,
        quiet_steps=len(wanted) - len(shown),
    )


def find_build(store: Store, name: str) -> Record:
    """The record of a build by its id or as `@1`, the last one. Raises `why.no-build`."""
    ids = store.builds.ids()
    wanted = name
    if name.startswith("@") and name[1:].isdecimal() and 0 < int(name[1:]) <= len(ids):
        wanted = ids[int(name[1:]) - 1]
    record = store.builds.get(wanted)
    if record is not None:
        return record
    if not ids:
        message, hints = "no build is on record", ["build something first: `aerogel build .`"]
    else:
        guess = nearest(name, ids)
        message = f"there is no build `{name}` on record"
        hints = [f"did you mean `{guess}`?" if guess else "`aerogel history` lists the builds; `@1` is the last one"]
    raise AerogelError(message, code="why.no-build", hints=hints, exit_status=EXIT_USAGE)


def _ran(step: dict[str, Any]) -> bool:
    return step["status"] in ("RAN", "FAILED", "CANCELED")


def _choose(record: Record, places: list[int], text: str) -> list[int]:
    """The steps that a word names. Raises `why.no-step`, `why.ambiguous`."""
    steps = record["steps"]
    if text.lstrip("#").isdecimal():
        found = [at for at in places if steps[at]["number"] == int(text.lstrip("#"))]
    else:
        found = [at for at in places if steps[at]["stage"].lower() == text.lower()]
        exact = [at for at in places if steps[at]["title"].lower() == text.lower()]
        found = found or exact or [at for at in places if text.lower() in steps[at]["title"].lower()]
        is_stage = bool(found) and steps[found[0]]["stage"].lower() == text.lower()
        if len(found) > 1 and not is_stage:
            listed = [f"`{steps[at]['number']}` is `{steps[at]['title']}`" for at in found[:4]]
            raise AerogelError(
                f"`{text}` is in {len(found)} steps",
                code="why.ambiguous",
                hints=[f"give the number: {', '.join(listed)}"],
                exit_status=EXIT_USAGE,
            )
    if not found:
        guess = nearest(text, [steps[at]["title"] for at in places] + [steps[at]["stage"] for at in places])
        raise AerogelError(
            f"the build has no step `{text}`",
            code="why.no-step",
            hints=[f"did you mean `{guess}`?" if guess else f"`aerogel history {record['id']}` lists the steps"],
            exit_status=EXIT_USAGE,
        )
    return found


def _step(record: Record, previous: Record | None, at: int, lookup: Lookup) -> WhyStep:
    step = record["steps"][at]
    causes = explain(record, previous, at, lookup)
    return WhyStep(
        number=step["number"],
        stage=step["stage"],
        title=step["title"],
        line=step["line"],
        status=step["status"],
        previous=previous["id"] if previous is not None else "",
        causes=causes,
    )


def _completed(record: Record, older: Sequence[Record]) -> Record:
    """What a build skipped has no result in its record; an older build knows the result of the same key."""
    lacking = {step["key"] for step in record["steps"] if step["key"] and not step.get("layers")}
    known: dict[str, str] = {}
    for each in older if lacking else ():
        for step in each["steps"]:
            if step["key"] in lacking and step.get("layers"):
                known.setdefault(step["key"], step["layers"])
    steps = [{**step, "layers": step.get("layers") or known.get(step["key"], "")} for step in record["steps"]]
    return {**record, "steps": steps}


def _previous(record: Record, before: Sequence[Record], at: int) -> Record | None:
    """The last build that had the step, else the last one."""
    step = record["steps"][at]
    for each in before:
        if any((old["stage"], old["title"]) == (step["stage"], step["title"]) for old in each["steps"]):
            return each
    return before[0] if before else None


def _tree(causes: tuple[Cause, ...], indent: str) -> list[str]:
    shown = causes[:_SHOWN_CAUSES]
    more = len(causes) - len(shown)
    lines = []
    for number, cause in enumerate(shown):
        is_last = number == len(shown) - 1 and not more
        lines.append(f"{indent}{'└─ ' if is_last else '├─ '}{_line(cause)}")
        lines += _tree(cause.causes, f"{indent}{'   ' if is_last else '│  '}")
    if more:
        lines.append(f"{indent}└─ and {more} more")
    return lines


def _line(cause: Cause) -> str:
    place = f"#{cause.step} " if cause.step else ""
    status = f" ({cause.status})" if cause.status else ""
    change = ""
    if (cause.old or cause.new) and cause.kind not in ("file", "new"):
        change = f": `{_cut(cause.old)}` -> `{_cut(cause.new)}`"
    return f"{place}{cause.text}{status}{change}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
