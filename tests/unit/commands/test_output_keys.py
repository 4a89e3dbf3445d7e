"""What each key of `-o type=image|registry|oci|docker|tar|local` does to a build's result, as buildx documents it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documents import check_spdx
from images import serve_image
from loop_registry import LoopRegistry, serve_registry

from aerogel.cli import main
from aerogel.oci.validate import validate_descriptor
from aerogel.registry import endpoint
from aerogel.store.load import load_archive
from aerogel.store.store import Store

Run = Callable[..., str]

DOCKERFILE = "FROM {}\nCOPY big /big\nCOPY small /small\n"


@pytest.fixture
def server() -> Iterator[LoopRegistry]:
    with serve_registry() as running:
        running.referrers = True
        yield running


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: LoopRegistry
) -> Run:
    """The command in this process; the base has layers that another tool compressed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("SOURCE_DATE_EPOCH", "AEROGEL_PLATFORM", "AEROGEL_INSECURE_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    serve_image(server, "base", "1")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE.format(f"{server.host}/base:1"))
    (context / "big").write_text("".join(f"line {number}\n" for number in range(9000)))
    (context / "small").write_text("x")

    def call(*words: str, status: int = 0) -> str:
        assert main.main([*words, "--progress=plain"]) == status, capsys.readouterr().err
        seen = capsys.readouterr()
        return seen.out if status == 0 else seen.err

    return call


def manifest_of(tmp_path: Path, archive: str) -> dict[str, Any]:
    """The manifest of the one image of an archive, all of which is validated."""
    with (
        Store.open(tmp_path / f"d-{archive}", tmp_path / f"c-{archive}") as store,
        (tmp_path / archive).open("rb") as file,
    ):
        [loaded] = load_archive(file, store)
        assert validate_descriptor(loaded.descriptor, store.blobs) == []
        found: dict[str, Any] = json.loads(store.blobs.read(loaded.descriptor.digest))
        return found


def types_of(manifest: dict[str, Any]) -> list[str]:
    return [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]]


def test_compression(run: Run, tmp_path: Path) -> None:
    def build(keys: str, name: str) -> dict[str, Any]:
        run("build", "-q", "-t", "a:1", "-o", f"type=oci,dest={name},{keys}", "context")
        return manifest_of(tmp_path, name)

    gzip, fast, small = (build(f"compression-level={level}", f"gzip{level}.tar") for level in (0, 1, 9))
    sizes = [each["layers"][2]["size"] for each in (gzip, fast, small)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert all(types_of(each) == ["tar+gzip"] * 4 for each in (gzip, fast, small))
    # What came with the base stays as it came, unless that is forced.
    zstd = build("compression=zstd", "zstd.tar")
    forced = build("compression=zstd,force-compression=true", "forced.tar")
    assert types_of(zstd) == ["tar+gzip"] * 2 + ["tar+zstd"] * 2
    assert types_of(forced) == ["tar+zstd"] * 4
    assert zstd["layers"][:2] == gzip["layers"][:2]
    assert zstd["layers"][2:] == forced["layers"][2:]
    assert len({each["config"]["digest"] for each in (gzip, zstd, forced)}) == 1
    plain = build("compression=uncompressed,force-compression=true", "plain.tar")
    assert types_of(plain) == ["tar"] * 4


def test_media_types_and_annotations(run: Run, server: LoopRegistry, tmp_path: Path) -> None:
    run("build", "-q", "-t", "a:1", "-o", "type=docker,dest=d.tar,oci-mediatypes=false", "context")
    docker = manifest_of(tmp_path, "d.tar")
    assert docker["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert {each["mediaType"] for each in docker["layers"]} == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}
    name = f"{server.host}/app"
    keys = "oci-mediatypes=false,annotation.org.a=1,annotation-manifest-descriptor.org.b=2"
    for kind, more in (("registry", ""), ("image", ",push=true")):
        run("build", "-q", "-o", f"type={kind},name={name}:{kind},{keys}{more}", "context")
        media_type, data = server.manifests["app"][kind]
        # As BuildKit: Docker's types have no room for annotations.
        assert media_type == "application/vnd.oci.image.manifest.v1+json"
        assert json.loads(data)["annotations"] == {"org.a": "1"}
    run("build", "-q", "-o", f"type=registry,name={name}:2,oci-mediatypes=false", "context")
    assert server.manifests["app"]["2"][0] == "application/vnd.docker.distribution.manifest.v2+json"
    run(
        "build",
        "-q",
        "-t",
        "a:1",
        "-o",
        "type=oci,dest=o.tar,annotation.org.a=1,annotation-manifest-descriptor.b=2",
        "context",
    )
    assert manifest_of(tmp_path, "o.tar")["annotations"] == {"org.a": "1"}
    with tarfile.open("o.tar") as archive:
        file = archive.extractfile("index.json")
        assert file is not None
        [entry] = json.loads(file.read())["manifests"]
    assert entry["annotations"]["b"] == "2"


def test_rewrite_timestamp(run: Run, tmp_path: Path) -> None:
    words = ("build", "-q", "--timestamps=keep", "--build-arg=SOURCE_DATE_EPOCH=1000000000", "-t", "a:1")
    base_time = 0  # of the entries of the layers of the base, which stay as they are
    for keys, expected in (("", False), (",rewrite-timestamp=true", True)):
        run(*words, "-o", f"type=oci,dest=o.tar{keys}", "-o", f"type=tar,dest=t.tar{keys}", "context")
        manifest = manifest_of(tmp_path, "o.tar")
        with tarfile.open("t.tar") as archive:
            times = {member.name: member.mtime for member in archive}
        assert times["second"] == times["greeting"] == base_time
        assert (times["big"] == times["small"] == 1_000_000_000) is expected
        with tarfile.open("o.tar") as archive:
            for layer in manifest["layers"]:
                file = archive.extractfile("blobs/" + layer["digest"].replace(":", "/"))
                with tarfile.open(fileobj=file, mode="r:gz") as inner:
                    newest = max(member.mtime for member in inner)
                assert newest == base_time or (newest == 1_000_000_000) is expected


def test_names_and_pushes(run: Run, server: LoopRegistry) -> None:
    host = server.host
    run("build", "-q", "-t", "mine:1", "-o", f"type=image,name={host}/by,push-by-digest=true", "context")
    [digest] = server.manifests["by"]
    assert digest.startswith("sha256:"), "no tag"
    assert f"{host}/by" not in run("images")
    run("build", "-q", "-o", f"type=registry,dangling-name-prefix={host}/nameless", "context")
    assert set(server.manifests["nameless"]) == {digest}
    # Every image has its canonical name, in the store and at the registry.
    run("build", "-q", "-o", f"type=image,name={host}/app:1,name-canonical=true,push=true", "context")
    assert run("inspect", f"{host}/app@{digest}") == run("inspect", f"{host}/app:1")
    assert set(server.manifests["app"]) == {"1", digest}
    error = run("build", "-o", "type=image,push-by-digest=true", "context", status=2)
    assert error == "error: there is no name to push the image to\nhint: name it with `-t HOST/NAME:TAG`\n"


def test_a_registry_without_tls(run: Run, server: LoopRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    run("build", "-q", "-t", "mine:1", "context")
    monkeypatch.setattr(endpoint, "_is_loopback", lambda _: False)
    words = ("build", "-q", "-t", f"{server.host}/app:1")
    error = run(*words, "-o", "type=registry", "context", status=4)
    assert f"hint: if the registry has no TLS, allow that with `--insecure-registry {server.host}`" in error
    assert "app" not in server.manifests
    run(*words, "-o", "type=registry,registry.insecure=true", "context")
    assert "1" in server.manifests["app"]


@pytest.mark.parametrize(("output", "is_kept"), [("image,store=false", False), ("cacheonly", False), ("image", True)])
def test_what_the_store_lists(run: Run, output: str, is_kept: bool) -> None:
    found = json.loads(run("build", "-t", "app:1", "-o", f"type={output}", "--json", "context"))
    assert found["references"] == (["app:1"] if is_kept else [])
    assert (found["image_id"][7:19] in run("images", "app")) is is_kept
    again = json.loads(run("build", "-t", "app:1", "--json", "context"))
    assert again["image_id"] == found["image_id"]
    assert {step["status"] for step in again["steps"]} <= {"CACHED", "SKIPPED"}, "the cache has the steps all the same"


def test_a_push_that_the_store_does_not_list(run: Run, server: LoopRegistry) -> None:
    run("build", "-q", "-t", f"{server.host}/app:1", "-o", "type=registry,store=false", "context")
    assert "1" in server.manifests["app"]
    assert f"{server.host}/app" not in run("images")


def test_platforms_in_one_place(run: Run, tmp_path: Path) -> None:
    words = ("build", "-q", "--platform=linux/amd64,linux/arm64")
    (tmp_path / "context/Dockerfile").write_text(
        "FROM scratch\nARG TARGETARCH\nCOPY big /same\nCOPY small /d/$TARGETARCH\n"
    )
    run(*words, "-o", "type=tar,dest=one.tar,platform-split=false", "-o", "type=tar,dest=two.tar", "context")
    run(*words, "-o", "type=local,dest=out,platform-split=false", "context")
    with tarfile.open("one.tar") as archive:
        assert archive.getnames() == ["d", "d/amd64", "d/arm64", "same"]
    with tarfile.open("two.tar") as archive:
        assert [name for name in archive.getnames() if "/" not in name] == ["linux_amd64", "linux_arm64"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["amd64", "arm64", "d", "same"]
    (tmp_path / "context/Dockerfile").write_text(
        "FROM scratch AS amd64\nCOPY big /d/x\nFROM scratch AS arm64\nCOPY small /d/x\nFROM $TARGETARCH\n"
    )
    assert run(*words, "-o", "type=tar,dest=one.tar,platform-split=false", "context", status=1) == (
        "error: `/d/x` of `linux/arm64` is not the one of `linux/amd64`, and both have the same place\n"
        "hint: leave `platform-split=false` out: each platform gets a folder\n"
    )


def test_a_docker_archive_of_several_platforms(run: Run, tmp_path: Path) -> None:
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\nCOPY big /\n")
    found = json.loads(
        run(
            "build",
            "--platform=linux/amd64,linux/arm64",
            "-t",
            "a:1",
            "-o",
            "type=docker,dest=d.tar",
            "--json",
            "context",
        )
    )
    assert found["platform"] == "linux/amd64,linux/arm64"
    with tarfile.open("d.tar") as archive:
        file = archive.extractfile("manifest.json")
        assert file is not None
        [entry] = json.loads(file.read())
    assert entry["RepoTags"] == ["a:1"]
    manifest_of(tmp_path, "d.tar")


def test_attestations_of_a_registry_output(run: Run, server: LoopRegistry) -> None:
    run("build", "-q", "--sbom", "--provenance=mode=max", "-o", f"type=registry,name={server.host}/app:1", "context")
    served = server.manifests["app"]
    told = {}
    for kind, data in served.values():
        manifest = json.loads(data)
        if "subject" in manifest:
            assert manifest["subject"]["digest"] in served
            assert kind == "application/vnd.oci.image.manifest.v1+json"
            statement = json.loads(server.blobs["app"][manifest["layers"][0]["digest"]])
            told[statement["predicateType"]] = statement
    assert set(told) == {"https://spdx.dev/Document", "https://slsa.dev/provenance/v1"}
    check_spdx(json.dumps(told["https://spdx.dev/Document"]["predicate"]))
    for statement in told.values():
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert f"sha256:{statement['subject'][0]['digest']['sha256']}" in served
