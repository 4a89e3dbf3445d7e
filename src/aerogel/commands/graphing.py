"""`aerogel graph`: the build graph of a Dockerfile as text, DOT, SVG or data; nothing is built."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "EdgeResult", "Graph", "GraphResult", "VertexResult", "run", "text"]

EXAMPLES = (
    ("what depends on what in the Dockerfile of this folder", "aerogel graph"),
    ("a picture for a browser", "aerogel graph --format svg . > build.svg"),
    ("by graphviz", "aerogel graph --format dot docker/Dockerfile | dot -Tpng > build.png"),
)


class Graph(Struct, frozen=True, kw_only=True):
    """Show the build graph of a Dockerfile.

    Only what the target needs is shown. Images are known by their names, so nothing is fetched or composed.
    """

    context: Annotated[
        str,
        Flag(
            "The build context, as for `aerogel build`, or a Dockerfile; default: this folder",
            positional=True,
            metavar="PATH",
            complete="file",
        ),
    ] = "."
    file: Annotated[str, Flag("Dockerfile; default: `PATH/Dockerfile`", short="f", complete="file", metavar="FILE")] = (
        ""
    )
    format: Annotated[Literal["text", "dot", "svg"], Flag("How the graph is written")] = "text"
    target: Annotated[str, Flag("Stage to show instead of the last one", metavar="STAGE")] = ""
    build_arg: Annotated[dict[str, str | None], Flag("Value of an ARG; without `=`, from the environment")] = {}
    build_context: Annotated[dict[str, str], Flag("A context by name, as for `aerogel build`")] = {}
    platform: Annotated[str, Flag("Platform of the image", metavar="OS/ARCH")] = ""


class VertexResult(Struct, frozen=True, kw_only=True):
    """A step, or a source that steps read: then `number` is 0 and `stage` empty."""

    id: str
    label: str
    kind: str
    stage: str
    number: int


class EdgeResult(Struct, frozen=True, kw_only=True):
    """`target` works on `source`: it extends it (`is_root`) or reads from it."""

    source: str
    target: str
    is_root: bool


class GraphResult(Result, frozen=True, kw_only=True):
    vertices: tuple[VertexResult, ...]
    edges: tuple[EdgeResult, ...]
    target: str


def run(options: Graph, world: World) -> GraphResult:
    """The graph of the target. Raises `build.*`, `dockerfile.*`, `graph.*`."""
    from aerogel.commands.build_model import Build
    from aerogel.commands.draft import open_draft
    from aerogel.commands.unpack import is_tar
    from aerogel.graph.drawing import draw

    context, file = options.context, options.file
    path = world.settings.directory / context
    if not file and path.is_file() and not is_tar(path):
        context, file = str(path.parent), context
    build = Build(
        context=context,
        file=file,
        target=options.target,
        build_arg=options.build_arg,
        build_context=options.build_context,
        platform=options.platform,
    )
    with open_draft(build, world) as draft:
        drawing = draw(draft.graph())
    return GraphResult(
        vertices=tuple(
            VertexResult(id=each.id, label=each.label, kind=each.kind, stage=each.stage, number=each.number)
            for each in drawing.vertices
        ),
        edges=tuple(EdgeResult(source=each.source, target=each.target, is_root=each.is_root) for each in drawing.edges),
        target=drawing.target,
    )


def text(options: Graph, result: GraphResult) -> str:
    """The graph as `--format` says."""
    from aerogel.graph.drawing import Drawing, Edge, Vertex, as_dot, as_text

    drawing = Drawing(
        tuple(Vertex(each.id, each.label, each.kind, each.stage, each.number) for each in result.vertices),
        tuple(Edge(each.source, each.target, each.is_root) for each in result.edges),
        result.target,
    )
    if options.format == "dot":
        return as_dot(drawing)
    if options.format == "svg":
        from aerogel.graph.svg import as_svg

        return as_svg(drawing)
    return as_text(drawing)
