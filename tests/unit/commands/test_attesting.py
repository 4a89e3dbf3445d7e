"""`--sbom`, `--provenance`, `--attest`: artifacts that refer to the image, in the store, in archives, in registries."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from held import METADATA
from loop_registry import LoopRegistry, serve_registry
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from aerogel.cli import main
from aerogel.oci.artifact import fallback_tag, with_referrer
from aerogel.oci.digest import Digest
from aerogel.oci.image import images
from aerogel.oci.types import OCI_INDEX, Descriptor, encode
from aerogel.oci.validate import validate, validate_descriptor
from aerogel.store.store import Store

SPDX, CYCLONEDX, SLSA = "https://spdx.dev/Document", "https://cyclonedx.org/bom", "https://slsa.dev/provenance/v1"
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    for name in ("SOURCE_DATE_EPOCH", "AEROGEL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch AS one\nARG KEY\nCOPY six.dist-info /site/six.dist-info\n")
    (context / "six.dist-info").mkdir()
    (context / "six.dist-info/METADATA").write_text(METADATA.format("six", "1.16.0", "License: MIT"))

    def call(*words: str, status: int = 0) -> str:
        assert main.main([*words, "--progress=plain"]) == status, capsys.readouterr().err
        seen = capsys.readouterr()
        return seen.out if status == 0 else seen.err

    return call


@pytest.fixture
def store(run: Run, tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root/data", tmp_path / "root/cache") as opened:
        yield opened


def statements(store: Store, name: str) -> dict[str, Any]:
    """Predicate type -> statement of what refers to an image; everything is checked on the way."""
    descriptor = store.images.resolve(name)
    assert descriptor is not None
    found = {}
    for image in images(descriptor, store.blobs):
        assert validate(image) == []
        for artifact in store.referrers.of(image.digest):
            assert validate_descriptor(artifact, store.blobs) == []
            manifest = json.loads(store.blobs.read(artifact.digest))
            assert manifest["subject"]["digest"] == image.digest
            assert manifest["artifactType"] == artifact.artifact_type == "application/vnd.in-toto+json"
            assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
            statement = json.loads(store.blobs.read(manifest["layers"][0]["digest"]))
            assert statement["subject"][0]["digest"] == {"sha256": image.digest[7:]}
            assert statement["predicateType"] == manifest["annotations"]["in-toto.io/predicate-type"]
            found[statement["predicateType"]] = statement
    return found


def test_nothing_is_told_unless_asked_for(run: Run, store: Store) -> None:
    run("build", "-t", "app", "context")
    assert statements(store, "app") == {}
    run("build", "-t", "app", "--sbom=false", "--provenance=false", "context")
    assert statements(store, "app") == {}


def test_everything_is_told(run: Run, store: Store) -> None:
    plain = run("build", "-t", "app", "context")
    told = run("build", "-t", "app", "--sbom", "--attest", "type=sbom,format=cyclonedx-json", "--provenance", "context")
    # The image is the same, and no index.
    assert told == plain
    found = statements(store, "app")
    assert set(found) == {SPDX, CYCLONEDX, SLSA}
    document = JsonLikeDictParser().parse(found[SPDX]["predicate"])
    assert [one.validation_message for one in validate_full_spdx_document(document, "SPDX-2.3")] == []
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found[CYCLONEDX]["predicate"])) is None
    assert "pkg:pypi/six@1.16.0" in {one.get("purl") for one in found[CYCLONEDX]["predicate"]["components"]}
    again = run("build", "-t", "app", "--sbom", "--provenance", "--no-cache", "context")
    assert again == plain
    # The same again: nothing piles up.
    assert statements(store, "app") == found


def test_provenance_has_no_secrets_and_no_places(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "hidden").write_text("open-sesame-value")
    subprocess.run(["git", "init", "-q", "context"], check=True)
    git = ["git", "-C", "context", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://amy:pw-of-amy@git.example/app.git"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    words = ["build", "-t", "app", "--build-arg", "KEY=words", "--secret", "id=token,src=hidden", "-f"]
    run(
        *words, str(tmp_path / "context/Dockerfile"), "--provenance=mode=max,builder-id=https://ci.example/1", "context"
    )
    found = statements(store, "app")[SLSA]["predicate"]
    text = json.dumps(found)
    for word in ("open-sesame-value", "pw-of-amy", str(tmp_path), "hidden"):
        assert word not in text
    assert found["runDetails"]["builder"]["id"] == "https://ci.example/1"
    vcs = found["runDetails"]["metadata"]["buildkit_metadata"]["vcs"]
    assert vcs["revision"] == commit
    assert vcs["source"].endswith("git.example/app.git")
    request = found["buildDefinition"]["externalParameters"]["request"]
    assert request["args"]["build-arg:KEY"] == "words"
    assert request["secrets"] == [{"id": "token"}]
    run(*words, str(tmp_path / "context/Dockerfile"), "--provenance=mode=min", "context")
    text = json.dumps(statements(store, "app"))
    assert "words" not in text
    assert "token" not in text


def test_bases_are_materials(run: Run, store: Store, tmp_path: Path) -> None:
    run("build", "-t", "base:1", "context")
    base = store.images.resolve("base:1")
    assert base is not None
    (tmp_path / "child").mkdir()
    (tmp_path / "child/Dockerfile").write_text("FROM base:1\nLABEL a=b\n")
    run("build", "-t", "child", "--provenance", "--metadata-file", "meta.json", "child")
    [material] = statements(store, "child")[SLSA]["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert material["uri"].startswith("pkg:docker/base@1?platform=linux/")
    assert material["digest"] == {"sha256": base.digest[7:]}
    told = json.loads((tmp_path / "meta.json").read_text())
    assert told["buildx.build.provenance"] == statements(store, "child")[SLSA]["predicate"]


def test_archives_have_them(run: Run, store: Store, tmp_path: Path) -> None:
    run("build", "-t", "app", "--sbom", "--provenance", "-o", "type=oci,dest=a.tar", "context")
    run("save", "--format", "oci-archive", "-o", "b.tar", "app")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        file = archive.extractfile("index.json")
        assert file is not None
        entries = json.loads(file.read())["manifests"]
    assert [one.get("artifactType", "") for one in entries] == ["", *["application/vnd.in-toto+json"] * 2]
    before = statements(store, "app")
    os.rename(tmp_path / "root", tmp_path / "old")
    assert run("load", "-i", "a.tar") == "Loaded image: app:latest\n"
    with Store.open(tmp_path / "root/data", tmp_path / "root/cache") as other:
        assert statements(other, "app") == before
    # Docker's archives have no room for them.
    run("save", "-o", "c.tar", "app")
    with tarfile.open(tmp_path / "c.tar") as archive:
        assert not any("referrers" in name for name in archive.getnames())


def test_pruning_keeps_and_drops_them_with_the_image(run: Run, tmp_path: Path) -> None:
    run("build", "-t", "app", "--sbom", "context")
    run("prune", "--all")
    with Store.open(tmp_path / "root/data", tmp_path / "root/cache") as store:
        assert set(statements(store, "app")) == {SPDX}
    run("rmi", "app")
    run("prune", "--all")
    with Store.open(tmp_path / "root/data", tmp_path / "root/cache") as store:
        assert list(store.blobs.all()) == []
        assert [one for one in store.referrers.subjects() if store.referrers.of(one)] == []


@pytest.mark.parametrize("has_api", [False, True])
def test_registries_get_them(run: Run, store: Store, tmp_path: Path, has_api: bool) -> None:
    with serve_registry() as server:
        server.referrers = has_api
        name = f"{server.host}/team/app"
        run("build", "-t", f"{name}:1", "--sbom", "--push", "context")
        check_pushed(server, store, f"{name}:1", {SPDX}, has_api=has_api)
        # The image is there already: what is new of it is sent all the same, and nothing twice.
        run("build", "-t", f"{name}:1", "--sbom", "--provenance", "--push", "context")
        check_pushed(server, store, f"{name}:1", {SPDX, SLSA}, has_api=has_api)
        puts = server.count("PUT")
        run("push", f"{name}:1")
        assert server.count("PUT") == puts


@pytest.mark.parametrize("has_api", [False, True])
def test_they_are_pulled_unless_nobody_wants_them(
    run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_api: bool
) -> None:
    with serve_registry() as server:
        server.referrers = has_api
        name = f"{server.host}/team/app:1"
        run("build", "-t", name, "--sbom", "--provenance", "--push", "context")
        told = statements(store, name)
        monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "other"))
        run("pull", "--no-referrers", name)
        with Store.open(tmp_path / "other/data", tmp_path / "other/cache") as other:
            assert statements(other, name) == {}
        found = json.loads(run("pull", "--json", name))
        assert found["transferred"] == 0
        kinds = {one["annotations"]["in-toto.io/predicate-type"] for one in found["referrers"]}
        assert kinds == set(told) == {SPDX, SLSA}
        with Store.open(tmp_path / "other/data", tmp_path / "other/cache") as other:
            assert statements(other, name) == told
        # They go with the image, and a list without any is no fault.
        run("tag", name, copied := f"{server.host}/team/copy:1")
        run("push", copied)
        tag = fallback_tag(Digest(found["digest"]))
        assert {key for key in server.manifests["team/copy"] if key.startswith("sha256-")} == (
            set() if has_api else {tag}
        )
        plain = f"{server.host}/team/plain:1"
        run("build", "-t", plain, "--push", "--label=a=b", "context")
        assert json.loads(run("pull", "--referrers", "--json", plain))["referrers"] == []


def test_a_registry_that_lists_what_does_not_refer(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_registry() as server:
        server.referrers = True
        name, other = f"{server.host}/app:1", f"{server.host}/app:2"
        run("build", "-t", name, "--push", "context")
        run("build", "-t", other, "--label=a=b", "--sbom", "--push", "context")
        subjects = [store.images.resolve(each) for each in (name, other)]
        assert subjects[0] is not None
        assert subjects[1] is not None
        [artifact] = store.referrers.of(subjects[1].digest)
        server.listed[subjects[0].digest] = [json.loads(encode(artifact))]
        error = run("pull", "--referrers", name, status=4)
        expected = (
            f"error: the registry lists `{artifact.digest}` for `{subjects[0].digest}`, which it does not refer to\n"
        )
        assert expected in error
        assert store.referrers.of(subjects[0].digest) == ()
        monkeypatch.setattr("aerogel.registry.referrers._MAX_LISTED", 0)
        error = run("pull", "--referrers", name, status=4)
        assert f"the registry lists 1 artifacts for `{subjects[0].digest}`, at most 0 are looked at" in error
        run("pull", name)  # not asked for: a warning, and the image is there
        assert store.referrers.of(subjects[0].digest) == ()


def check_pushed(server: LoopRegistry, store: Store, name: str, expected: set[str], *, has_api: bool) -> None:
    assert set(statements(store, name)) == expected
    image = store.images.resolve(name)
    assert image is not None
    artifacts = {one.digest: one for one in store.referrers.of(image.digest)}
    served = server.manifests["team/app"]
    assert set(artifacts) < set(served)
    tag = fallback_tag(image.digest)
    assert (tag in served) is not has_api
    if not has_api:
        kind, data = served[tag]
        assert kind == OCI_INDEX
        listed = {one["digest"]: one for one in json.loads(data)["manifests"]}
        assert set(listed) == set(artifacts)
        assert all(
            one["artifactType"] == "application/vnd.in-toto+json" and one["annotations"] for one in listed.values()
        )


def test_a_list_that_is_none_is_not_added_to() -> None:
    new = Descriptor(media_type="m", digest=Digest("sha256:" + "1" * 64), size=1, artifact_type="t")
    for data in (None, b"{", b"[]", b'{"schemaVersion":2,"config":{}}', b'{"schemaVersion":2,"mediaType":"other"}'):
        index = with_referrer(data, new)
        assert index is not None
        assert index.manifests == (new,)
    assert with_referrer(encode(index), new) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attest", "type=sbomb"], "error: `sbomb` is no attestation type\nhint: did you mean `sbom`?\n"),
        (["--attest", "sbom"], "error: `sbom` in `--attest=sbom` has no value\n"),
        (["--provenance=mode=all"], "error: `all` is no mode of provenance\n"),
        (["--sbom=format=spdx"], "error: `spdx` is no format of an SBOM\n"),
        (["--provenance=version=v0.2"], "error: `v0.2` is no version of provenance\n"),
        (["--provenance=mod=max"], "error: `mod` is no key of `provenance`\nhint: did you mean `mode`?\n"),
    ],
)
def test_flags_that_cannot_be_read(run: Run, words: list[str], message: str) -> None:
    assert run("build", *words, "context", status=2).startswith(message)
