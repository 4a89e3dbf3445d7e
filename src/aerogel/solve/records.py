"""What is written down of the steps of a build, for `aerogel why` and `aerogel history`; nothing decides by it.

Values that look like secrets by their name stand in no record: only whether they changed can be told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from aerogel.errors import AerogelError
from aerogel.graph.ops import Op
from aerogel.redact import redact

if TYPE_CHECKING:
    from aerogel.graph.steps import Step
    from aerogel.solve.solver import Solver

__all__ = ["facts_of", "steps_of"]

_SECRET = re.compile(r"(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|pwd|secret|token)(?:_|$)")


def facts_of(op: Op) -> dict[str, Any]:
    """An operation as a record has it."""
    found: dict[str, Any] = _redacted(msgspec.to_builtins(op))
    if "env" in found:
        found["env"] = [[name, _hidden(value) if _SECRET.search(name) else value] for name, value in found["env"]]
    return found


def _hidden(value: str) -> str:
    return f"(hidden {sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()[:6]})"


def _redacted(value: Any) -> Any:
    """Without the passwords of URLs, and without bytes that are no text."""
    match value:
        case str():
            return redact(value.encode("utf-8", "replace").decode())
        case dict():
            return {name: _redacted(each) for name, each in value.items()}
        case list() | tuple():
            return [_redacted(each) for each in value]
        case _:
            return value


def steps_of(steps: Sequence[Step], solver: Solver) -> list[dict[str, Any]]:
    """A record of each step, in the order of the file; bases are steps with the number 0.

    `inputs` are the digests of the nodes that the step works on; of those that are no steps (images that are copied
    from, contexts, URLs) the operations stand in `sources`.
    """
    known = {step.node.digest for step in steps}
    return [_step(step, known, solver) for step in steps]


def _step(step: Step, known: set[str], solver: Solver) -> dict[str, Any]:
    node = step.node
    run = solver.runs.get(node.digest)
    record: dict[str, Any] = {
        "number": solver.number(node),
        "stage": step.stage,
        "title": redact(step.title.encode("utf-8", "replace").decode()),
        "line": step.span.line,
        "node": node.digest,
        "op": facts_of(node.op),
        "platform": node.platform,
        "inputs": [each.digest for each in node.inputs],
        "sources": {each.digest: facts_of(each.op) for each in node.inputs if each.digest not in known},
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
