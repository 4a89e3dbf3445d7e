"""Named contexts in place of stages and images, and the ONBUILD instructions that a plan takes in."""

from __future__ import annotations

import pytest

from aerogel.dockerfile import ast
from aerogel.dockerfile.parse import parse
from aerogel.errors import AerogelError, Source
from aerogel.graph.request import Request
from aerogel.graph.stages import ContextRef, ImageRef, Plan, ScratchRef, StageRef, Triggers, plan


def planned(text: str, *contexts: str, triggers: Triggers | None = None, platform: str = "linux/amd64") -> Plan:
    request = Request(contexts=frozenset(contexts), platform=platform)
    return plan(parse(Source("Dockerfile", text.encode())), request, triggers)


@pytest.mark.parametrize(
    ("base", "contexts", "expected"),
    [
        ("debian", ["debian"], ContextRef("debian")),
        ("debian:latest", ["debian"], ContextRef("debian")),
        ("debian", ["debian:latest"], ContextRef("debian:latest")),
        ("debian:12", ["debian"], ImageRef("debian:12")),
        ("debian", ["debian::linux/amd64", "debian"], ContextRef("debian::linux/amd64")),
        ("debian", ["debian::linux/arm64"], ImageRef("debian")),
        ("scratch", ["scratch"], ScratchRef()),
    ],
)
def test_context_for_an_image(base: str, contexts: list[str], expected: object) -> None:
    assert planned(f"FROM {base}\n", *contexts).target.base == expected
    assert planned(f"FROM {base} AS a\nFROM a\n", *contexts).stages[0].base == expected


def test_context_stands_for_a_whole_stage() -> None:
    text = "FROM debian AS build\nRUN make\nFROM build\nCOPY --from=build /a /b\n"
    found = planned(text, "build")
    assert [stage.base for stage in found.stages] == [ContextRef("build"), StageRef(0)]
    assert found.stages[0].instructions == ()
    copy = found.target.instructions[0]
    assert isinstance(copy, ast.Copy)
    assert copy.from_ is not None
    assert found.source(copy.from_, found.target) == ContextRef("build")
    other = planned("FROM debian AS build\nRUN make\nFROM scratch\nCOPY --from=build /a /b\n", "build")
    assert [stage.name for stage in other.stages] == ["stage-1"]


def test_triggers_of_a_stage_stand_in_the_file() -> None:
    found = planned("FROM scratch AS a\nONBUILD COPY x /\nFROM a AS b\nFROM b\n")
    assert [len(stage.triggers) for stage in found.stages] == [0, 1, 0]
    assert found.stages[1].triggers[0].span.line == 2


def test_triggers_of_an_image_name_more_stages_and_images() -> None:
    text = "FROM debian AS build\nFROM scratch AS other\nFROM php\n"
    given = {(ImageRef("php"), "linux/amd64"): ("COPY --from=build /a /", "COPY --from=busybox /b /")}
    assert [stage.name for stage in planned(text).stages] == ["stage-2"]
    found = planned(text, triggers=given)
    assert [stage.name for stage in found.stages] == ["build", "stage-2"]
    assert found.target.base == ImageRef("php")
    assert found.target.instructions[0].span.source.name == "ONBUILD of php"


def test_wrong_trigger_is_reported_in_its_own_text() -> None:
    with pytest.raises(AerogelError) as caught:
        planned("FROM php\n", triggers={(ImageRef("php"), "linux/amd64"): ("COPYY a b",)})
    assert caught.value.span is not None
    assert caught.value.span.source.name == "ONBUILD of php"


def test_circle_through_a_trigger() -> None:
    text = "FROM php AS a\nFROM a AS b\nFROM b\n"
    with pytest.raises(AerogelError) as caught:
        planned(text, triggers={(ImageRef("php"), "linux/amd64"): ("COPY --from=b /x /",)})
    assert caught.value.code == "graph.cycle"
