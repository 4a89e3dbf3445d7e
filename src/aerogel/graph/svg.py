"""A drawing of the build graph as SVG: layers from top to bottom, boxes coloured by stage, edges as curves.

Pure; small graphs in mind (hundreds of steps). The layout is Sugiyama's in its simplest form: the layer of a vertex
is its longest way from a source, the order in a layer follows the mean place of its neighbours, four times up and
down. Spec: SVG 1.1.
"""

from __future__ import annotations

from html import escape

from aerogel.graph.drawing import Drawing, Vertex

__all__ = ["as_svg"]

_CHARACTER, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 6.7, 34, 28, 46, 24
_COLORS = ("#cfe3f7", "#d8efd3", "#fbe3c8", "#e7dbf3", "#f9d6d5", "#d3eeee", "#f3efc4", "#e3e3e3")
_ROUNDS = 4
_FONT = 'font-family="sans-serif" font-size="12"'
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>'
)


def as_svg(drawing: Drawing) -> str:
    """The whole document. Text is escaped; there are no scripts and no links."""
    layers = _layers(drawing)
    places = _places(layers)
    width = max((x + w for x, _, w in places.values()), default=0) + _MARGIN
    height = len(layers) * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    stages = list(dict.fromkeys(each.stage for each in drawing.vertices if each.stage))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" {_FONT}>',
        _TIP,
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for edge in drawing.edges:
        x1, y1, w1 = places[edge.source]
        x2, y2, w2 = places[edge.target]
        start, end = x1 + w1 / 2, x2 + w2 / 2
        low, middle = y1 + _HEIGHT, (y1 + _HEIGHT + y2) / 2
        dash = "" if edge.is_root else ' stroke-dasharray="5 4"'
        lines.append(
            f'<path d="M{start:.1f},{low:.1f} C{start:.1f},{middle:.1f} {end:.1f},{middle:.1f} {end:.1f},{y2:.1f}" '
            f'fill="none" stroke="#555"{dash} marker-end="url(#tip)"/>'
        )
    lines += [_box(each, places[each.id], stages, is_target=each.id == drawing.target) for each in drawing.vertices]
    return "\n".join([*lines, "</svg>"])


def _box(vertex: Vertex, place: tuple[float, float, float], stages: list[str], *, is_target: bool) -> str:
    x, y, width = place
    color = _COLORS[stages.index(vertex.stage) % len(_COLORS)] if vertex.stage else "#ffffff"
    radius = 5 if vertex.stage else _HEIGHT / 2
    middle = x + width / 2
    small = f'<text x="{middle:.1f}" y="{y - 4:.1f}" text-anchor="middle" font-size="9" fill="#777">{_text(vertex.stage)}</text>'
    return (
        f'<g><title>{_text(vertex.label)}</title><rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_HEIGHT}" '
        f'rx="{radius:g}" fill="{color}" stroke="#333" stroke-width="{2.5 if is_target else 1}"/>'
        f'<text x="{middle:.1f}" y="{y + _HEIGHT / 2 + 4:.1f}" text-anchor="middle">{_text(vertex.label)}</text>'
        f"{small if vertex.stage else ''}</g>"
    )


def _text(text: str) -> str:
    """Escaped, without the control characters that XML does not allow."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def _layers(drawing: Drawing) -> list[list[Vertex]]:
    """The vertices by layer; in the order of the file, every input stands before what reads it."""
    depth: dict[str, int] = {}
    inputs: dict[str, list[str]] = {}
    outputs: dict[str, list[str]] = {}
    for edge in drawing.edges:
        inputs.setdefault(edge.target, []).append(edge.source)
        outputs.setdefault(edge.source, []).append(edge.target)
    for each in drawing.vertices:
        depth[each.id] = max((depth.get(name, 0) + 1 for name in inputs.get(each.id, ())), default=0)
    for each in drawing.vertices:
        # A source is drawn right above the first step that reads it.
        if not each.number and each.id in outputs:
            depth[each.id] = max(0, min(depth[name] for name in outputs[each.id]) - 1)
    layers: list[list[Vertex]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for each in drawing.vertices:
        layers[depth[each.id]].append(each)
    for turn in range(_ROUNDS):
        order = {each.id: number for layer in layers for number, each in enumerate(layer)}
        near = inputs if turn % 2 == 0 else outputs
        for layer in layers:
            layer.sort(key=lambda each: _mean([order[name] for name in near.get(each.id, ())], order[each.id]))
            order.update({each.id: number for number, each in enumerate(layer)})
    return layers


def _mean(numbers: list[int], own: int) -> float:
    return sum(numbers) / len(numbers) if numbers else own


def _places(layers: list[list[Vertex]]) -> dict[str, tuple[float, float, float]]:
    """Left edge, top edge and width of every box; each layer is centred."""
    widths = {each.id: max(60.0, len(each.label) * _CHARACTER + 20) for layer in layers for each in layer}
    sizes = [sum(widths[each.id] for each in layer) + _GAP_X * (len(layer) - 1) for layer in layers]
    widest = max(sizes, default=0.0)
    found: dict[str, tuple[float, float, float]] = {}
    for number, layer in enumerate(layers):
        x = _MARGIN + (widest - sizes[number]) / 2
        for each in layer:
            found[each.id] = (x, _MARGIN + number * (_HEIGHT + _GAP_Y), widths[each.id])
            x += widths[each.id] + _GAP_X
    return found
