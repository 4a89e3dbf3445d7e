"""Each attribute of a target, and of a service with `build`, as the option of `build` that it becomes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aerogel.cli import main
from aerogel.commands import building
from aerogel.commands.build_model import Build
from aerogel.errors import AerogelError

Bake = Callable[..., Build]

HCL = """
target "lib" { dockerfile-inline = "FROM scratch" }
target "app" {
  %s
}
"""


@pytest.fixture
def bake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bake:
    """The options of the build of `app`; nothing is built."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    for name in ("SOURCE_DATE_EPOCH", "BUILDX_BAKE_FILE", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOKEN", "hidden")
    (tmp_path / "token").write_text("hidden")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind("agent")
    found: list[Build] = []

    def caught(builders: Sequence[Any]) -> None:
        found.extend(builder.options for builder in builders)
        raise AerogelError("enough", code="test.enough")

    monkeypatch.setattr(building, "build_together", caught)

    def call(name: str, text: str, *words: str) -> Build:
        (tmp_path / name).write_text(text)
        found.clear()
        assert main.main(["bake", "app", *words]) == 1
        error = capsys.readouterr().err
        assert "error: enough" in error, error
        [options] = found
        return options

    return call


PASSED = [
    ('attest = ["type=sbom", "type=provenance,mode=max"]', "attest", ["type=sbom", "type=provenance,mode=max"]),
    ('attest = ["type=provenance,disabled=true"]', "attest", ["type=provenance,disabled=true"]),
    (
        'cache-from = ["type=registry,ref=r.example/c", "r.example/d"]',
        "cache_from",
        ["type=registry,ref=r.example/c", "type=registry,ref=r.example/d"],
    ),
    ('cache-to = [{type = "local", dest = "x", mode = "max"}]', "cache_to", ["type=local,dest=x,mode=max"]),
    (
        'output = ["type=oci,dest=a.tar,compression=zstd", "out"]',
        "output",
        ["type=oci,dest=a.tar,compression=zstd", "type=local,dest=out"],
    ),
    ('secret = ["id=a,src=token", {id = "b", env = "TOKEN"}]', "secret", ["id=a,src=token", "id=b,env=TOKEN"]),
    ('ssh = [{id = "key", paths = ["agent"]}]', "ssh", ["key=agent"]),
    ('network = "none"', "network", "none"),
    ("no-cache = true", "no_cache", True),
    ('no-cache-filter = ["one", "two"]', "no_cache_filter", ["one", "two"]),
    ('platforms = ["linux/amd64", "linux/arm64"]', "platform", "linux/amd64,linux/arm64"),
    ("pull = true", "pull", True),
    ('shm-size = "128m"', "shm_size", "128m"),
    ('ulimits = ["nofile=1024:2048"]', "ulimit", ["nofile=1024:2048"]),
    (
        'contexts = {x = "docker-image://debian", y = "./y"}',
        "build_context",
        {"x": "docker-image://debian", "y": "./y"},
    ),
    ('contexts = {x = "target:lib"}', "build_context", {}),
    ('annotations = ["org.a=1", "index:org.b=2"]', "annotation", {"org.a": "1", "index:org.b": "2"}),
    ('args = {A = "1", B = null}', "build_arg", {"A": "1"}),
    ('labels = {A = "1"}', "label", {"A": "1"}),
    ('tags = ["a", "b:1"]', "tag", ["a", "b:1"]),
    ('target = "stage"', "target", "stage"),
    ('extra-hosts = {h = "10.0.0.1"}', "add_host", ["h:10.0.0.1"]),
    ('context = "./sub"', "file", "sub/Dockerfile"),
    ('dockerfile = "other/D"', "file", "other/D"),
    ('dockerfile-inline = "FROM scratch"', "file", ""),
]


@pytest.mark.parametrize(("text", "field", "expected"), PASSED, ids=[text.partition(" ")[0] for text, *_ in PASSED])
def test_attributes(bake: Bake, text: str, field: str, expected: object) -> None:
    assert getattr(bake("docker-bake.hcl", HCL % text), field) == expected


SERVICES = [
    ("sbom: true\n      provenance: mode=max", "attest", ["type=sbom", "type=provenance,mode=max"]),
    ("cache_from: [r.example/c]", "cache_from", ["type=registry,ref=r.example/c"]),
    ("cache_to: ['type=local,dest=x']", "cache_to", ["type=local,dest=x"]),
    ("x-bake: {output: ['type=oci,dest=a.tar']}", "output", ["type=oci,dest=a.tar"]),
    ("secrets: [s]", "secret", ["id=s,src=token"]),
    ("ssh: [key=agent]", "ssh", ["key=agent"]),
    ("network: none", "network", "none"),
    ("no_cache: true", "no_cache", True),
    ("x-bake: {no-cache-filter: one}", "no_cache_filter", ["one"]),
    ("platforms: [linux/arm64]", "platform", "linux/arm64"),
    ("pull: true", "pull", True),
    ("shm_size: 128m", "shm_size", "128m"),
    ("ulimits: {nofile: {soft: 1024, hard: 2048}}", "ulimit", ["nofile=1024:2048"]),
    ("additional_contexts: {y: ./y}", "build_context", {"y": "./y"}),
    ("additional_contexts: {y: 'service:lib'}", "build_context", {}),
    ("x-bake: {annotations: ['org.a=1']}", "annotation", {"org.a": "1"}),
    ("args: {A: 1}", "build_arg", {"A": "1"}),
    ("labels: [A=1]", "label", {"A": "1"}),
    ("tags: [a]", "tag", ["a"]),
    ("target: stage", "target", "stage"),
    ("extra_hosts: ['h=10.0.0.1']", "add_host", ["h:10.0.0.1"]),
    ("dockerfile: other/D", "file", "other/D"),
    ("dockerfile_inline: FROM scratch", "file", ""),
]


@pytest.mark.parametrize(("text", "field", "expected"), SERVICES, ids=[text.partition(":")[0] for text, *_ in SERVICES])
def test_services(bake: Bake, text: str, field: str, expected: object) -> None:
    compose = f"""
services:
  lib:
    build: {{dockerfile_inline: FROM scratch}}
  app:
    build:
      context: .
      {text}
secrets:
  s: {{file: token}}
"""
    assert getattr(bake("compose.yaml", compose), field) == expected


@pytest.mark.parametrize(
    ("flag", "field", "expected"),
    [
        ("--sbom=true", "attest", ["type=sbom"]),
        ("--provenance=mode=max", "attest", ["type=provenance,mode=max"]),
        ("--no-cache", "no_cache", True),
        ("--pull", "pull", True),
        ("--set=app.cache-from=r.example/c", "cache_from", ["type=registry,ref=r.example/c"]),
        ("--set=*.secret=id=a,src=token", "secret", ["id=a,src=token"]),
        ("--set=*.platform=linux/arm64", "platform", "linux/arm64"),
        ("--set=*.shm-size=1g", "shm_size", "1g"),
    ],
)
def test_flags(bake: Bake, flag: str, field: str, expected: object) -> None:
    assert getattr(bake("docker-bake.hcl", HCL % "", flag), field) == expected


def test_a_call_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target with `call` is answered for; the others are built."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    (tmp_path / "bad").write_text("from scratch\nCOPY bad /\nCMD echo\n")
    (tmp_path / "docker-bake.hcl").write_text(
        """
group "default" { targets = ["app", "lint"] }
target "app" { dockerfile-inline = "FROM scratch\\nCOPY bad /" }
target "lint" {
  dockerfile = "bad"
  call = "check"
}
"""
    )
    assert main.main(["bake", "lint", "--progress=plain"]) == 1
    assert "JSONArgsRecommended" in capsys.readouterr().out
    assert main.main(["bake", "--json", "--progress=plain"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert list(found["targets"]) == ["app"]
    assert "JSONArgsRecommended" in found["report"]
    assert main.main(["bake", "--call=build", "app", "--progress=plain"]) == 0
    assert capsys.readouterr().out.startswith("app sha256:")
