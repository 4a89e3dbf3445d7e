"""What a stage's image config holds before and after instructions say little."""

from __future__ import annotations

from aerogel.dockerfile.parse import parse
from aerogel.errors import Source
from aerogel.graph.stages import Request, plan
from aerogel.graph.steps import BaseImage, lower
from aerogel.oci.types import ContainerConfig


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
