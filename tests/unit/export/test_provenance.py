"""SLSA provenance and in-toto statements, field by field as the specifications have them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from aerogel.export.provenance import BuildFacts, Material, predicate, statement
from aerogel.oci.digest import Digest
from aerogel.oci.reference import Reference

FACTS = BuildFacts(
    builder_id="pkg:pypi/aerogel@1.0",
    builder_platform="linux/amd64",
    dockerfile="Dockerfile",
    target="app",
    args={"build-arg:VERSION": "1.2", "label:a": "b"},
    contexts=["context"],
    secrets=["token"],
    ssh=["default"],
    materials=[
        Material("https://files.example/x.tar", (("sha256", "b" * 64),)),
        Material("pkg:docker/debian@bookworm?platform=linux/amd64", (("sha256", "a" * 64),)),
        Material("https://files.example/x.tar", (("sha256", "b" * 64),)),
    ],
    vcs_source="https://git.example/app.git",
    vcs_revision="c" * 40,
    steps=["RUN true"],
    started="2024-01-01T00:00:00Z",
    finished="2024-01-01T00:00:01Z",
    invocation="some-id",
)


def check_slsa(found: dict[str, Any]) -> None:
    """slsa.dev/spec/v1.0/provenance: what is required, and the types of what is there."""
    assert set(found) == {"buildDefinition", "runDetails"}
    definition, details = found["buildDefinition"], found["runDetails"]
    assert set(definition) <= {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert urlsplit(definition["buildType"]).scheme
    assert isinstance(definition["externalParameters"], dict)
    for one in definition["resolvedDependencies"]:
        # ResourceDescriptor: at least one of uri, digest, content.
        assert set(one) <= {"uri", "digest", "name", "downloadLocation", "mediaType", "content", "annotations"}
        assert urlsplit(one["uri"]).scheme
        assert all(re.fullmatch("[0-9a-f]+", value) for value in one["digest"].values())
    assert set(details) <= {"builder", "metadata", "byproducts"}
    assert urlsplit(details["builder"]["id"]).scheme
    for name in ("startedOn", "finishedOn"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", details["metadata"].get(name, "2024-01-01T00:00:00Z"))


def check_statement(data: bytes, digest: str) -> dict[str, Any]:
    """The in-toto Statement v1 layer."""
    found = json.loads(data)
    assert set(found) == {"_type", "subject", "predicateType", "predicate"}
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert urlsplit(found["predicateType"]).scheme
    assert found["subject"]
    names = [one["name"] for one in found["subject"]]
    assert len(names) == len(set(names))
    assert all(one["digest"] == {"sha256": digest.partition(":")[2]} for one in found["subject"])
    return found


def test_little_is_told_by_default() -> None:
    found = predicate(FACTS, "min")
    check_slsa(found)
    text = json.dumps(found)
    for word in ("1.2", "token", "RUN true", "some-id", "2024", "ssh"):
        assert word not in text
    assert found["buildDefinition"]["externalParameters"] == {  # type: ignore[index]
        "configSource": {"path": "Dockerfile"},
        "request": {"frontend": "dockerfile.v0", "args": {"target": "app"}, "locals": [{"name": "context"}]},
    }
    assert found["runDetails"]["metadata"]["buildkit_metadata"]["vcs"]["revision"] == "c" * 40  # type: ignore[index]
    assert len(found["buildDefinition"]["resolvedDependencies"]) == 2  # type: ignore[index]
    assert predicate(FACTS, "min") == found


def test_more_is_told_when_asked_for() -> None:
    found = predicate(FACTS, "max")
    check_slsa(found)
    request = found["buildDefinition"]["externalParameters"]["request"]  # type: ignore[index]
    assert request["args"] == {"build-arg:VERSION": "1.2", "label:a": "b", "target": "app"}
    assert request["secrets"] == [{"id": "token"}]
    assert found["runDetails"]["metadata"]["invocationId"] == "some-id"  # type: ignore[index]
    assert found["buildDefinition"]["internalParameters"]["steps"] == ["RUN true"]  # type: ignore[index]


@pytest.mark.parametrize("names", [[], ["example.com/team/app:1", "app"]])
def test_a_statement_names_the_image(names: list[str]) -> None:
    digest = Digest("sha256:" + "d" * 64)
    data = statement(
        "https://slsa.dev/provenance/v1", {"a": 1}, digest, list(map(Reference.parse, names)), "linux/amd64"
    )
    found = check_statement(data, digest)
    expected = ["pkg:docker/app@latest?platform=linux/amd64", "pkg:docker/example.com/team/app@1?platform=linux/amd64"]
    assert [one["name"] for one in found["subject"]] == (expected if names else ["_"])
