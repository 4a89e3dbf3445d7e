"""What a stage's image config holds before and after instructions say little."""

from __future__ import annotations

from aerogel.dockerfile.parse import parse
from aerogel.errors import Source
from aerogel.graph.ops import Run
from aerogel.graph.stages import Request, plan
from aerogel.graph.steps import BaseImage, lower
from aerogel.oci.types import ContainerConfig, ImageConfig


def config(text: str) -> ContainerConfig:
    def resolve(*_: object) -> BaseImage:
        raise AssertionError("no image is needed")

    graph = lower(plan(parse(Source("Dockerfile", text.encode())), Request()), resolve)
    return graph.target.config.finish((), frozenset(), 0).config


def test_scratch_has_the_defaults_of_buildkit() -> None:
    found = config("FROM scratch\n")
    assert found.working_dir == "/"
    assert found.env == ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    assert found.cmd == ()


def test_a_command_without_text_is_a_shell_with_none() -> None:
    assert config("FROM scratch\nCMD\n").cmd == ("/bin/sh", "-c", "")
    assert config("FROM scratch\nCMD []\n").cmd == ()


def test_a_step_knows_the_image_that_its_chain_of_stages_starts_from() -> None:
    text = """\
ARG BASE=aerogel/cc:nonroot
FROM $BASE AS first
RUN one
FROM first AS second
FROM second
RUN two
FROM scratch
COPY --from=2 / /
RUN three
"""

    def resolve(*_: object) -> BaseImage:
        return BaseImage((), ImageConfig(architecture="amd64", os="linux"))

    graph = lower(plan(parse(Source("Dockerfile", text.encode())), Request()), resolve)
    found = {step.title.rpartition("RUN ")[2]: step.base for step in graph.steps if isinstance(step.node.op, Run)}
    assert found == {"one": "aerogel/cc:nonroot", "two": "aerogel/cc:nonroot", "three": ""}
