"""The graph as text, DOT and SVG; the answers of `--call`."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
import pytest

from aerogel.dockerfile.parse import parse
from aerogel.errors import Source, Span
from aerogel.graph.drawing import Drawing, as_dot, as_text, draw
from aerogel.graph.outline import Location, OutlineArg, OutlineCache, OutlineNeed, outline, targets
from aerogel.graph.request import Request
from aerogel.graph.stages import ImageRef, SourceRef, plan
from aerogel.graph.steps import BaseImage, lower
from aerogel.graph.svg import as_svg
from aerogel.oci.types import ImageConfig

TEXT = """\
# VERSION of the base
ARG VERSION=12
ARG UNUSED=x
# build compiles it
FROM debian:$VERSION AS build
ARG TARGETARCH
# LEVEL is how much
ARG LEVEL=2 OTHER
ENV OUT=/out
RUN --mount=type=secret,id=token,required --mount=type=cache,target=$OUT/c --mount=type=ssh make "<&>"
FROM scratch AS skipped
ARG NEVER=1
FROM scratch AS final
COPY --from=build /out /app
ADD https://u:secret@h/f.txt . /all/
"""


def drawing(text: str = TEXT) -> Drawing:
    def resolve(ref: SourceRef, platform: str, span: Span) -> BaseImage:
        del platform, span
        assert isinstance(ref, ImageRef)
        return BaseImage((f"image {ref.name}",), ImageConfig(architecture="amd64", os="linux"))

    return draw(lower(plan(parse(Source("Dockerfile", text.encode())), Request()), resolve))


def test_text() -> None:
    assert as_text(drawing()) == (
        "build  (FROM debian:12)\n"
        "  #2 RUN --mount=type=secret,id=token,required --mount=type=ca...\n"
        "\n"
        "final  (scratch)\n"
        "  #3 COPY --from=build /out /app  <- #2\n"
        "  #4 ADD https://***@h/f.txt . /all/  <- https://***@h/f.txt, build context"
    )


def test_dot() -> None:
    lines = as_dot(drawing()).splitlines()
    assert (lines[0], lines[-1]) == ("digraph build {", "}")
    assert sum(" -> " in line for line in lines) == 6
    assert sum("style=dashed" in line for line in lines) == 3
    assert "secret@" not in "".join(lines)


def test_svg_is_xml_with_every_vertex_and_edge() -> None:
    made = drawing()
    root = ET.fromstring(as_svg(made))
    space = "{http://www.w3.org/2000/svg}"
    assert [each.text for each in root.iter(f"{space}title")] == [each.label for each in made.vertices]
    assert len(root.findall(f"{space}path")) == len(made.edges)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for box in root.iter(f"{space}rect"):
        assert 0 <= float(box.get("x", "0")) <= width - float(box.get("width", ""))
        assert 0 <= float(box.get("y", "0")) <= height - float(box.get("height", ""))


def test_svg_boxes_do_not_overlap_and_edges_go_down() -> None:
    stages = "".join(f"FROM debian AS s{i}\nRUN step {i}\nWORKDIR /w{i}\n" for i in range(12))
    copies = "".join(f"COPY --from=s{i} /a /b{i}\n" for i in range(12))
    made = drawing(f"{stages}FROM scratch\n{copies}")
    root = ET.fromstring(as_svg(made))
    boxes = [
        each for group in root.iter("{http://www.w3.org/2000/svg}g") for each in group if each.tag.endswith("rect")
    ]
    places = [tuple(float(each.get(key, "")) for key in ("x", "y", "width")) for each in boxes]
    at = {vertex.id: place for vertex, place in zip(made.vertices, places, strict=True)}
    for number, (x, y, width) in enumerate(places):
        assert all(y != other[1] or x + width <= other[0] or other[0] + other[2] <= x for other in places[:number])
    assert all(at[edge.source][1] < at[edge.target][1] for edge in made.edges)


def test_svg_has_no_control_characters() -> None:
    ET.fromstring(as_svg(drawing("FROM scratch\nCOPY \x01\x7f<script> /\n")))


def test_empty_graph() -> None:
    made = drawing("FROM scratch\n")
    assert as_text(made) == ""
    assert as_dot(made).endswith("}")
    ET.fromstring(as_svg(made))


def test_targets() -> None:
    found = targets(parse(Source("Dockerfile", TEXT.encode()))).targets
    assert [(each.name, each.base, each.description, each.default, each.location.line) for each in found] == [
        ("build", "debian:$VERSION", "compiles it", False, 5),
        ("skipped", "scratch", "", False, 11),
        ("final", "scratch", "", True, 13),
    ]


def lines(first: int, last: int = 0) -> Location:
    return msgspec.convert({"ranges": [{"start": {"line": first}, "end": {"line": last or first}}]}, Location)


def test_outline() -> None:
    dockerfile = parse(Source("Dockerfile", TEXT.encode()))
    found = outline(plan(dockerfile, Request(build_args={"LEVEL": "3"})), dockerfile)
    assert found.name == "final"
    assert found.args == (
        OutlineArg("VERSION", "of the base", "12", lines(2)),
        OutlineArg("TARGETARCH", "", "amd64", lines(6)),
        OutlineArg("LEVEL", "is how much", "3", lines(8)),
        OutlineArg("OTHER", "", "", lines(8)),
    )
    assert found.secrets == (OutlineNeed("token", required=True, location=lines(10)),)
    assert found.ssh == (OutlineNeed("default", location=lines(10)),)
    assert found.cache == (OutlineCache("/out/c", lines(10)),)


@pytest.mark.parametrize("target", ["skipped"])
def test_outline_of_another_target(target: str) -> None:
    dockerfile = parse(Source("Dockerfile", TEXT.encode()))
    found = outline(plan(dockerfile, Request(target=target)), dockerfile)
    assert [arg.name for arg in found.args] == ["NEVER"]
    assert (found.secrets, found.ssh, found.cache) == ((), (), ())
