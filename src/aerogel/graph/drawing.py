"""The build graph for people: as text, as DOT for graphviz, as the vertices and edges that `graph.svg` draws.

Pure. A vertex is a step, or a source that steps read: an image, a context, a URL, a repository.
"""

from __future__ import annotations

import msgspec

from aerogel.graph.ops import Base, Copy, Git, Http, Local, Mkdir, Node, Run
from aerogel.graph.steps import Graph
from aerogel.redact import redact

__all__ = ["Drawing", "Edge", "Vertex", "as_dot", "as_text", "draw"]

_LONGEST = 60


class Vertex(msgspec.Struct, frozen=True):
    """One box. `kind` is `image`, `context`, `remote`, `copy`, `run` or `workdir`; a source belongs to no `stage`.

    `number` is the one that a build shows, 0 for a source.
    """

    id: str
    label: str
    kind: str
    stage: str = ""
    number: int = 0


class Edge(msgspec.Struct, frozen=True):
    """`target` works on the result of `source`; `is_root` when it extends it, otherwise it reads from it."""

    source: str
    target: str
    is_root: bool


class Drawing(msgspec.Struct, frozen=True):
    """Vertices in the order of the file, sources first where they are first used; `target` is the last step's id."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    target: str


def draw(graph: Graph) -> Drawing:
    """The graph that a build of this target would work on."""
    vertices: dict[str, Vertex] = {}
    edges: dict[Edge, None] = {}
    ids: dict[str, str] = {}

    def vertex(node: Node, label: str, stage: str, number: int) -> str:
        if node.digest not in ids:
            ids[node.digest] = f"n{len(ids)}"
            vertices[node.digest] = Vertex(ids[node.digest], _short(label), _kind(node), stage, number)
        return ids[node.digest]

    for number, step in enumerate(graph.steps, 1):
        inputs = [vertex(side, _source_label(side), "", 0) for side in step.node.inputs]
        if isinstance(step.node.op, Base):
            vertex(step.node, step.title, "", 0)
            continue
        own = vertex(step.node, step.title, step.stage, number)
        for position, each in enumerate(inputs):
            edges[Edge(each, own, position == 0)] = None
    target = graph.target.node
    vertex(target, _source_label(target), "", 0)
    return Drawing(tuple(vertices.values()), tuple(edges), ids[target.digest])


def as_text(drawing: Drawing) -> str:
    """Stage by stage, each step with what it reads beside the one above it."""
    by_id = {each.id: each for each in drawing.vertices}
    roots = {edge.target: edge.source for edge in drawing.edges if edge.is_root}
    reads: dict[str, list[str]] = {}
    for edge in drawing.edges:
        if not edge.is_root:
            source = by_id[edge.source]
            reads.setdefault(edge.target, []).append(f"#{source.number}" if source.number else source.label)
    lines: list[str] = []
    stage: str | None = None
    for each in drawing.vertices:
        if not each.number:
            continue
        if each.stage != stage:
            stage = each.stage
            base = by_id[roots[each.id]]
            start = f"from #{base.number}" if base.number else base.label
            lines += [*([""] if lines else []), f"{stage}  ({start})"]
        what = f"  #{each.number} {each.label}"
        lines.append(what + (f"  <- {', '.join(reads[each.id])}" if each.id in reads else ""))
    return "\n".join(lines)


def as_dot(drawing: Drawing) -> str:
    """The graph in graphviz's language, one cluster for each stage."""
    lines = ["digraph build {", "  rankdir=TB;", '  node [shape=box, fontname="sans-serif", fontsize=10];']
    stages: dict[str, list[Vertex]] = {}
    for each in drawing.vertices:
        stages.setdefault(each.stage, []).append(each)
    for number, (stage, members) in enumerate(stages.items()):
        indent = "    " if stage else "  "
        if stage:
            lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(stage)};"]
        for each in members:
            shape = ", shape=ellipse" if not each.number else ", penwidth=2" if each.id == drawing.target else ""
            lines.append(f"{indent}{each.id} [label={_quoted(each.label)}{shape}];")
        if stage:
            lines.append("  }")
    for edge in drawing.edges:
        lines.append(f"  {edge.source} -> {edge.target}{'' if edge.is_root else ' [style=dashed]'};")
    return "\n".join([*lines, "}"])


def _kind(node: Node) -> str:
    match node.op:
        case Base():
            return "image"
        case Local():
            return "context"
        case Http() | Git():
            return "remote"
        case Copy():
            return "copy"
        case Mkdir():
            return "workdir"
        case Run():
            return "run"


def _source_label(node: Node) -> str:
    match node.op:
        case Base(diff_ids):
            return diff_ids[0] if diff_ids else "scratch"
        case Local(name):
            return "build context" if name == "context" else f"context {name}"
        case Http(url):
            return redact(url)
        case Git(remote, ref):
            return redact(remote) + (f" {ref}" if ref else "")
        case _:
            return type(node.op).__name__.upper()


def _short(text: str) -> str:
    text = redact(" ".join(text.split()))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
