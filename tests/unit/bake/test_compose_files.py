"""`extends`, `include` and tags of compose files, and contexts relative to the files, by what `bake --print` says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aerogel.cli import main

Bake = Callable[..., Any]


@pytest.fixture
def bake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bake:
    """Writes files, asks for `--print`, and gives the targets, or what is said when the status is not 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    for name in ("SOURCE_DATE_EPOCH", "BUILDX_BAKE_FILE", "BUILDX_BAKE_FILE_RELATIVE_PATHS", "TAG", "WHO"):
        monkeypatch.delenv(name, raising=False)

    def call(files: dict[str, str], *words: str, status: int = 0) -> Any:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert main.main(["bake", "--print", *words]) == status, capsys.readouterr().err
        seen = capsys.readouterr()
        return seen.err if status else json.loads(seen.out)["target"]

    return call


def test_extends_of_the_same_file(bake: Bake) -> None:
    found = bake(
        {
            "compose.yaml": """
services:
  base:
    image: base
    environment: [WHO=me]
    build:
      context: app
      args: [A=1, B=2]
      labels: {one: "1"}
      cache_from: ['type=registry,ref=x']
  middle:
    extends: base
    image: middle
    build: {args: {B: "3"}}
  top:
    extends: {service: middle}
    image: top
    build:
      args: {C: "4", WHO: }
      labels: [two=2]
      cache_from: ['type=registry,ref=y']
"""
        }
    )
    assert found["top"] == {
        "context": "app",
        "dockerfile": "Dockerfile",
        "args": {"A": "1", "B": "3", "C": "4", "WHO": "me"},
        "labels": {"one": "1", "two": "2"},
        "tags": ["top"],
        "cache-from": [{"ref": "x", "type": "registry"}, {"ref": "y", "type": "registry"}],
    }
    assert found["middle"]["args"] == {"A": "1", "B": "3"}
    assert found["base"]["args"] == {"A": "1", "B": "2"}


def test_extends_of_another_file(bake: Bake) -> None:
    found = bake(
        {
            "compose.yaml": """
services:
  app:
    extends: {file: common/compose.yaml, service: app}
    build: {args: {X: "1"}}
  only:
    extends: {file: common/compose.yaml, service: string}
""",
            "common/compose.yaml": """
services:
  root:
    build:
      dockerfile: D
      additional_contexts: {lib: ../lib, img: docker-image://alpine, other: service:only}
  app:
    extends: root
    image: "app:${TAG:-none}"
  string:
    build: ./deep
""",
        }
    )
    assert found["app"] == {
        "context": "common",
        "contexts": {"img": "docker-image://alpine", "lib": "lib", "other": "target:only"},
        "dockerfile": "D",
        "args": {"X": "1"},
        "tags": ["app:none"],
    }
    assert found["only"]["context"] == "common/deep"
    assert set(found) == {"app", "only"}, "other services of the file are not there"


def test_include(bake: Bake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "environment")
    found = bake(
        {
            "compose.yaml": """
include:
  - one/compose.yaml
  - path: [two/compose.yaml, two/more.yaml]
    project_directory: elsewhere
    env_file: two/env
services:
  app:
    extends: first
    build: {target: mine}
""",
            "one/compose.yaml": """
include: [../three/compose.yaml]
services:
  first:
    build: {context: here, secrets: [s]}
    image: "first:${TAG}-${WHO}"
secrets:
  s: {file: ./token}
""",
            "one/.env": "TAG=one\nWHO=file\n",
            "two/compose.yaml": "services: {second: {build: ., image: 'second:${TAG}'}}",
            "two/more.yaml": "services: {second: {build: {args: {A: b}}}}",
            "two/env": "TAG=two\n",
            "three/compose.yaml": "services: {third: {build: {context: .}}}",
        }
    )
    assert found["first"] == {
        "context": "one/here",
        "dockerfile": "Dockerfile",
        "tags": ["first:one-environment"],
        "secret": [{"id": "s", "src": "one/token"}],
    }
    assert found["app"] == {**found["first"], "target": "mine"}
    assert found["second"] == {
        "context": "elsewhere",
        "dockerfile": "Dockerfile",
        "args": {"A": "b"},
        "tags": ["second:two"],
    }
    assert found["third"]["context"] == "three"


def test_reset_and_override(bake: Bake) -> None:
    found = bake(
        {
            "a.yaml": """
services:
  app:
    build: {context: x, target: t, args: {A: "1", B: "2"}, cache_from: ['type=registry,ref=x'], labels: !override {l: m}}
""",
            "b.yaml": """
services:
  app:
    build:
      target: !reset
      args: !override {C: "3"}
      cache_from: !override ['type=registry,ref=y']
""",
        },
        *("-f", "a.yaml", "-f", "b.yaml"),
    )
    assert found["app"] == {
        "context": "x",
        "dockerfile": "Dockerfile",
        "args": {"C": "3"},
        "labels": {"l": "m"},
        "cache-from": [{"ref": "y", "type": "registry"}],
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"compose.yaml": "services:\n  a:\n    extends: bb\n  b:\n    build: .\n"},
            "error: the service `a` extends `bb`, which `compose.yaml` has not\n  --> compose.yaml:2:3\n",
        ),
        (
            {"compose.yaml": "services:\n  a: {extends: b}\n  b: {extends: {service: a}}\n"},
            "error: services extend each other in a circle: `a` -> `b` -> `a`\n  --> compose.yaml:2:3\n",
        ),
        (
            {"compose.yaml": "services:\n  a: {extends: {file: no.yaml, service: x}}\n"},
            "error: `no.yaml` cannot be read: no such file or directory\n  --> compose.yaml:2:3\n",
        ),
        (
            {"compose.yaml": "services:\n  a: {extends: {file: x.yaml}}\n"},
            "error: `extends` of the service `a` names no service\n",
        ),
        (
            {"compose.yaml": "include: [d/a.yaml]\n", "d/a.yaml": "include: [../compose.yaml]\n"},
            "files include each other in a circle: `compose.yaml` -> `d/a.yaml` -> `compose.yaml`\n  --> d/a.yaml:1:1\n",
        ),
        (
            {
                "compose.yaml": "include: [a.yaml]\nservices:\n  x: {build: .}\n",
                "a.yaml": "services: {x: {build: other}}",
            },
            "error: `x` of `services` is in `compose.yaml` and in what it includes\n",
        ),
        (
            {"compose.yaml": "include: [https://compose.example/a.yaml]\n"},
            "error: `include` names `https://compose.example/a.yaml`, and only files are read\n",
        ),
        ({"compose.yaml": "include: a.yaml\n"}, "error: `include` is no list\n  --> compose.yaml:1:1\n"),
        ({"compose.yaml": "services: [a]\n"}, "error: `services` is no map\n  --> compose.yaml:1:1\n"),
        ({"compose.yaml": "services:\n  a: {build: !what .}\n"}, "error: `compose.yaml` is not YAML: "),
    ],
)
def test_faults(bake: Bake, files: dict[str, str], message: str) -> None:
    error = bake(files, status=2)
    assert message in error
    assert "hint: " in error


# BUILDX_BAKE_FILE_RELATIVE_PATHS.


def test_contexts_relative_to_the_files(bake: Bake, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "one/docker-bake.hcl": """
target "base" { context = "ctx" }
target "empty" {}
target "links" {
  contexts = { a = "../lib", b = "target:base", c = "cwd://here", d = "docker-image://alpine", e = "https://x.example/a.git" }
}
""",
        "two/docker-bake.hcl": """
target "app" { inherits = ["base"] }
target "own" {
  inherits = ["base"]
  context = "mine"
}
target "child" { inherits = ["empty"] }
""",
    }
    words = ("-f", "one/docker-bake.hcl", "-f", "two/docker-bake.hcl", "app", "own", "child", "links")
    found = bake(files, *words)
    assert [found[name]["context"] for name in ("app", "own", "child", "links")] == ["ctx", "mine", ".", "."]
    monkeypatch.setenv("BUILDX_BAKE_FILE_RELATIVE_PATHS", "1")
    found = bake(files, *words)
    assert [found[name]["context"] for name in ("app", "own", "child", "links")] == [
        "one/ctx",
        "two/mine",
        "two",
        "one",
    ]
    assert found["links"]["contexts"] == {
        "a": "lib",
        "b": "target:base",
        "c": "cwd://here",
        "d": "docker-image://alpine",
        "e": "https://x.example/a.git",
    }
    found = bake(files, *words[:4], "app", "--set", "app.context=set")
    assert found["app"]["context"] == "set", "what the command line says is relative to the current folder"
    monkeypatch.setenv("BUILDX_BAKE_FILE_RELATIVE_PATHS", "yes")
    assert bake(files, *words, status=2).startswith(
        "error: `BUILDX_BAKE_FILE_RELATIVE_PATHS=yes` is neither `true` nor `false`\nhint: "
    )


def test_compose_contexts_relative_to_the_first_file(bake: Bake, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "project/compose.yml": """
services:
  app:
    build: {context: ./app}
  shared:
    extends: {file: ../common/c.yml, service: x}
""",
        "overrides/compose.yml": "services: {app: {build: {additional_contexts: {shared: ./shared}}}, bare: {build: {target: x}}}",
        "common/c.yml": "services: {x: {build: lib}}",
    }
    words = ("-f", "project/compose.yml", "-f", "overrides/compose.yml")
    found = bake(files, *words)
    assert [found[name]["context"] for name in ("app", "shared", "bare")] == ["./app", "common/lib", "."]
    monkeypatch.setenv("BUILDX_BAKE_FILE_RELATIVE_PATHS", "true")
    found = bake(files, *words)
    assert [found[name]["context"] for name in ("app", "shared", "bare")] == ["project/app", "common/lib", "project"]
    assert found["app"]["contexts"] == {"shared": "project/shared"}


def test_a_default_context_does_not_hide_one_that_is_inherited(bake: Bake) -> None:
    found = bake(
        {
            "docker-bake.hcl": """
target "a" { context = "x" }
target "b" { target = "t" }
target "app" { inherits = ["a", "b"] }
"""
        },
        "app",
    )
    assert found["app"]["context"] == "x"
