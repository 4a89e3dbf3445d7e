"""What is written down of the steps of a build, for `aerogel why` and `aerogel history`; nothing decides by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aerogel.errors import AerogelError
from aerogel.redact import redact
from aerogel.solve.facts import facts_of

if TYPE_CHECKING:
    from aerogel.graph.steps import Step
    from aerogel.solve.solver import Solver

__all__ = ["steps_of"]


def steps_of(steps: Sequence[Step], solver: Solver) -> list[dict[str, Any]]:
    """A record of each step, in the order of the file; bases are steps with the number 0.

    `inputs` are the digests of the nodes that the step works on; of those that are no steps (images that are copied
    from, contexts, URLs) the operations stand in `sources`.
    """
    known = {step.node.digest for step in steps}
    salt = solver.salt()
    return [_step(step, known, solver, salt) for step in steps]


def _step(step: Step, known: set[str], solver: Solver, salt: bytes) -> dict[str, Any]:
    node = step.node
    run = solver.runs.get(node.digest)
    record: dict[str, Any] = {
        "number": solver.number(node),
        "stage": step.stage,
        "title": redact(step.title.encode("utf-8", "replace").decode()),
        "line": step.span.line,
        "node": node.digest,
        "op": facts_of(node.op, salt),
        "platform": node.platform,
        "inputs": [each.digest for each in node.inputs],
        "sources": {each.digest: facts_of(each.op, salt) for each in node.inputs if each.digest not in known},
        "status": solver.statuses.get(node.digest, ""),
    }
    try:
        record["taken"] = [list(each) for each in solver.taken(node)]
        record["key"] = solver.key(node)
    except AerogelError:
        # The fault of this very build, which is reported.
        record["taken"], record["key"] = [], ""
    if run is not None:
        record |= {"began": round(run.began_s, 4), "ended": round(run.ended_s, 4)}
        record |= {"content": run.content, "note": run.note, "layers": run.layers}
    return record
