"""pull, push, login, logout and FROM through the entry point, against a registry in this process."""

from __future__ import annotations

import json
import os
import random
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from images import serve_image, serve_index
from loop_registry import Answer, LoopRegistry, Request, serve_registry, sha
from shell import Shell, make_shell

from aerogel.cli import main as entry
from aerogel.oci.image import load
from aerogel.oci.platform import Platform
from aerogel.oci.validate import validate
from aerogel.store.load import record_layers
from aerogel.store.store import Store


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    return make_shell(tmp_path, monkeypatch, capfd)


@pytest.fixture
def server() -> Iterator[LoopRegistry]:
    with serve_registry() as running:
        yield running


def check_store(folder: Path, name: str) -> None:
    """The image is what it says, down to the last layer."""
    with Store.open(folder / "root/data", folder / "root/cache") as store:
        record = store.images.find(name)
        assert record is not None
        image = load(record.descriptor, store.blobs, Platform.host())
        assert validate(image) == []
        record_layers(image, store)
        for layer in image.layers():
            known = store.layers.record(layer.diff_id)
            assert known is not None
            assert known.index


def test_pull(shell: Shell, server: LoopRegistry) -> None:
    digest = serve_image(server, "team/app", "one")
    name = f"{server.host}/team/app:one"
    assert shell("pull", name) == f"{name}\n"
    assert f"#1 pull {name}" in shell.err
    check_store(shell.folder, name)
    assert digest in shell("images", "--digests")
    assert json.loads(shell("pull", "--json", name))["transferred"] == 0
    assert shell("pull", "-q", name) == f"{name}\n"


def test_the_medium_begins_while_a_layer_still_comes(
    shell: Shell, server: LoopRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = random.Random(1).randbytes(20 << 20)
    serve_image(server, "team/app", "one", files={"noise": noise})
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, at, size, __: told.append((at, size)))
    shell("pull", f"{server.host}/team/app:one")
    assert len(told) == 2
    assert told[1][0] == told[0][1] >= 8 << 20


def test_a_copy_into_the_store_is_gone_on_with(shell: Shell, server: LoopRegistry) -> None:
    serve_image(server, "team/app", "one", files={"data": random.Random(2).randbytes(300_000)})
    digest, data = max(server.blobs["team/app"].items(), key=lambda each: len(each[1]))
    half = len(data) // 2
    server.fail("GET", digest, Answer(200, data, cut_at=half))
    server.fail("GET", digest, Answer(500), times=4)
    words = ("copy", f"docker://{server.host}/team/app:one", "here:1")
    shell(*words, status=4)
    server.seen.clear()
    shell(*words)
    assert [each.headers.get("range") for each in server.seen if digest in each.path] == [f"bytes={half}-"]
    check_store(shell.folder, "here:1")


def test_pull_takes_the_platform(shell: Shell, server: LoopRegistry) -> None:
    here = Platform.host()
    digests = {
        str(here): serve_image(server, "app"),
        "linux/s390x": serve_image(server, "app", platform="linux/s390x", files={"other": b"cpu"}),
    }
    index = serve_index(server, "app", "many", digests)
    found = json.loads(shell("pull", "--json", f"{server.host}/app:many"))
    assert (found["digest"], found["platform"]) == (index, str(here))
    found = json.loads(shell("pull", "--json", "--platform", "linux/s390x", f"{server.host}/app@{index}"))
    assert found["platform"] == "linux/s390x"
    error = shell.fails("pull", "--platform", "linux/riscv64", f"{server.host}/app:many")
    assert "has no image for `linux/riscv64`" in error
    assert f"hint: it has `{here}`, `linux/s390x`" in error


def test_one_name_for_several_platforms(shell: Shell, server: LoopRegistry) -> None:
    here = str(Platform.host())
    files = {"linux/s390x": {"other": b"cpu"}, "linux/riscv64": {"third": b"cpu"}}
    digests = {here: serve_image(server, "app")}
    digests |= {where: serve_image(server, "app", platform=where, files=held) for where, held in files.items()}
    serve_index(server, "app", "many", digests)
    name = f"{server.host}/app:many"
    dockerfile(shell, f"FROM {name}\nCOPY Dockerfile /x\n")
    build = ("build", "-t", "mine", "--platform", f"{here},linux/s390x", "context")
    shell(*build)
    assert shell.err.count("-> registry") == 2
    asked = len(server.seen)
    shell("prune")
    shell(*build, "--label=a=b")
    assert len(server.seen) == asked, "both are here"
    lines = {row["Platform"]: row for row in map(json.loads, shell("images", name, "--format=json").splitlines())}
    assert set(lines) == {here, "linux/s390x"}
    # A third one joins them; what another index has under the name takes their place.
    shell("pull", "--platform", "linux/riscv64", name)
    assert len(shell("images", "-q", name).split()) == 3
    digests["linux/s390x"] = serve_image(server, "app", platform="linux/s390x", files={"other": b"new"})
    serve_index(server, "app", "many", digests)
    shell("pull", name)
    lines = {row["Platform"]: row for row in map(json.loads, shell("images", name, "--format=json").splitlines())}
    assert set(lines) == {here, "linux/riscv64"}
    # Removed by id, one goes; by name, all.
    shell("rmi", lines["linux/riscv64"]["ID"])
    assert len(shell("images", "-q", name).split()) == 1
    shell("pull", "--platform", "linux/s390x", name)
    assert shell("rmi", name).startswith(f"Untagged: {name}\nDeleted: sha256:")
    assert shell("images", "-q", name) == ""


def test_push_of_a_name_with_several_platforms(shell: Shell, server: LoopRegistry) -> None:
    here = str(Platform.host())
    digests = {here: serve_image(server, "app"), "linux/s390x": serve_image(server, "app", platform="linux/s390x")}
    serve_index(server, "app", "many", digests)
    name = f"{server.host}/app:many"
    shell("pull", "--platform", "linux/s390x", name)
    shell("pull", name)
    [pushed] = json.loads(shell("push", "--all-tags", "--json", f"{server.host}/app"))["images"]
    assert pushed["digest"] == digests[here], "the one that was pulled last"


def manifests_of(folder: Path, archive: str) -> list[str]:
    """The digests that an archive's index lists, their names aside."""
    with tarfile.open(folder / archive) as tar:
        member = tar.extractfile("index.json")
        assert member is not None
        return [each["digest"] for each in json.load(member)["manifests"]]


def test_one_platform_or_all_of_an_index(shell: Shell, server: LoopRegistry) -> None:
    here, other = str(Platform.host()), "linux/s390x"
    digests = {here: serve_image(server, "app"), other: serve_image(server, "app", platform=other)}
    index = serve_index(server, "app", "many", digests)
    name = f"{server.host}/app:many"
    shell("pull", "--all-platforms", name)

    def pushed(*words: str) -> str:
        [found] = json.loads(shell("push", "--json", *words, name))["images"]
        return str(found["digest"])

    assert pushed("--platform", other) == digests[other]
    assert pushed() == pushed("--all-platforms") == index, "all, when nothing is said"
    for words, held in (((), index), (("--all-platforms",), index), (("--platform", other), digests[other])):
        shell("save", "--format=oci-archive", "-o", "x.tar", *words, name)
        assert manifests_of(shell.folder, "x.tar") == [held]
        shell("copy", *words, name, "oci-archive:y.tar:1")
        assert manifests_of(shell.folder, "y.tar") == [held]
    shell("save", "-o", "x.tar", name)
    assert manifests_of(shell.folder, "x.tar") == [digests[here]], "docker's archives have room for one"
    for command in (("save", "-o", "z.tar", name), ("copy", name, "docker-archive:z.tar")):
        assert "room for one platform" in shell.fails(*command, "--all-platforms", status=2)
        assert "no room for what refers" in shell.fails(*command, "--referrers", status=2)
    for command in (("pull", name), ("push", name), ("save", "-o", "z.tar", name), ("copy", name, "oci:z")):
        told = shell.fails(*command, "--all-platforms", "--platform", other, status=2)
        assert "`--platform` and `--all-platforms` cannot both be" in told
        assert "has no image for `linux/riscv64`" in shell.fails(*command, "--platform=linux/riscv64")
    assert not list(shell.folder.glob("z*"))


def test_all_platforms_of_images_that_no_index_joins(shell: Shell, server: LoopRegistry) -> None:
    here, other = str(Platform.host()), "linux/s390x"
    digests = {here: serve_image(server, "app"), other: serve_image(server, "app", platform=other)}
    serve_index(server, "app", "many", digests)
    name = f"{server.host}/app:many"
    shell("pull", name)
    shell("pull", "--platform", other, name)
    assert "means 2 images of one platform each here" in shell.fails("push", "--all-platforms", name, status=2)
    [found] = json.loads(shell("push", "--json", "--platform", here, name))["images"]
    assert found["digest"] == digests[here], "though the other one came last"


def test_what_refers_to_an_image_may_stay_behind(shell: Shell, server: LoopRegistry) -> None:
    dockerfile(shell, "FROM scratch\nLABEL a=b\n")
    name = f"{server.host}/app:1"
    shell("build", "--provenance", "-t", name, "context")
    shell("push", "--no-referrers", name)
    shell("save", "--format=oci-archive", "--no-referrers", "-o", "bare.tar", name)
    shell("save", "--format=oci-archive", "-o", "full.tar", name)
    assert len(manifests_of(shell.folder, "bare.tar")) == 1
    [_, told] = manifests_of(shell.folder, "full.tar")
    assert told not in server.manifests["app"]
    shell("push", name)
    assert told in server.manifests["app"]


def test_progress_of_each_blob(shell: Shell, server: LoopRegistry) -> None:
    sizes = {}
    for tag in ("one", "two"):
        serve_image(server, "app", tag, files={"big": random.Random(tag).randbytes(2 << 20)})
        layer = json.loads(server.manifests["app"][tag][1])["layers"][0]
        sizes[tag] = (layer["digest"], layer["size"])
    one, two = (f"{server.host}/app:{tag}" for tag in sizes)

    def told(*words: str) -> list[dict[str, Any]]:
        assert entry.main([*words, "--progress", "json"]) == 0
        return [json.loads(line) for line in shell.errors().splitlines()]

    for tag, words in (
        ("one", ("copy", f"docker://{one}", "oci-archive:x.tar")),
        ("one", ("copy", f"docker://{one}", "other:1")),
        ("one", ("copy", "other:1", "docker-archive:y.tar")),
        ("one", ("copy", "other:1", f"docker://{server.host}/new:1")),
        ("two", ("pull", two)),
        ("two", ("push", two)),
    ):
        server.mounts = False
        if words[0] == "push":
            server.blobs["app"].clear()
            server.manifests["app"].clear()
        events = told(*words)
        begun = {event["step"] for event in events if event["event"] == "started"}
        blobs = [event for event in events if event["event"] == "progress" and event["blob"]]
        assert {event["step"] for event in blobs} <= begun, "nobody shows what belongs to no step"
        digest, size = sizes[tag]
        steps = [event["done"] for event in blobs if event["blob"] == digest]
        assert steps == sorted(steps), words
        assert (len(steps) > 2, steps[-1]) == (True, size), words


def test_progress_goes_back_with_an_upload_that_is_lost(shell: Shell, server: LoopRegistry) -> None:
    """What a registry has thrown away is not there any more, and is told so: the one case of going back."""
    serve_image(server, "app", "one", files={"big": random.Random(3).randbytes(2 << 20)})
    name = f"{server.host}/app:one"
    layer = json.loads(server.manifests["app"]["one"][1])["layers"][0]
    shell("pull", name)
    server.blobs["app"].clear()
    server.manifests["app"].clear()
    plain, lost = server._upload, [Answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')]

    def upload(request: Request, name: str, key: str) -> Answer:
        """Loses the layer once, whatever else comes at the same time."""
        is_layer = request.method == "PUT" and request.query["digest"] == layer["digest"]
        return lost.pop() if is_layer and lost else plain(request, name, key)

    server._upload = upload  # type: ignore[method-assign]  # this server is odd
    assert entry.main(["push", name, "--progress", "json"]) == 0
    events = [json.loads(line) for line in shell.errors().splitlines()]
    steps = [each["done"] for each in events if each["event"] == "progress" and each["blob"] == layer["digest"]]
    again = steps.index(0)
    assert steps[again - 1] == steps[-1] == layer["size"]
    for part in (steps[:again], steps[again:]):
        assert part == sorted(part)
    check_store(shell.folder, name)


def test_uploads_at_the_same_time_have_places_of_their_own(server: LoopRegistry) -> None:
    """The server of these tests: one upload that ends must not give its place to the next while others go on."""

    def ask(method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        address = f"http://{server.host}{path}"
        with urllib.request.urlopen(urllib.request.Request(address, method=method, data=body)) as answer:
            return answer.status, answer.headers["Location"]

    begun = [ask("POST", "/v2/app/blobs/uploads/")[1] for _ in range(2)]
    for number in range(3):
        data = b"%d" % number
        begun.append(ask("POST", "/v2/app/blobs/uploads/")[1])
        assert ask("PUT", f"{begun[number]}&digest={sha(data)}", data)[0] == 201
    assert len(set(begun)) == len(begun) == 5
    assert len(server.uploads) == 2


def test_a_failed_pull_leaves_no_image(shell: Shell, server: LoopRegistry) -> None:
    serve_image(server, "app", "one")
    server.fail("GET", "/blobs/", Answer(500, b'{"errors":[{"code":"UNKNOWN"}]}'), times=50)
    shell.fails("pull", f"{server.host}/app:one", status=4)
    assert shell("images", "-q") == ""
    server.faults.clear()
    shell("pull", f"{server.host}/app:one")
    check_store(shell.folder, f"{server.host}/app:one")


@pytest.mark.damage
def test_a_layer_that_is_not_its_diff_id_is_refused(shell: Shell, server: LoopRegistry) -> None:
    digest = serve_image(server, "app", "one")
    kind, data = server.manifests["app"][digest]
    manifest = json.loads(data)
    manifest["layers"].reverse()
    server.add_manifest("app", json.dumps(manifest).encode(), kind, "mixed")
    name = f"{server.host}/app:mixed"
    # Straight from the registry to other programs, which are not asked before the layers are right.
    for end in ("docker-archive:x.tar", "containers-storage:app:1", "docker-daemon:app:1"):
        assert "is not what the config of its image says" in shell.fails("copy", f"docker://{name}", end)
    # Each blob is what its digest says; what it holds is looked at when it is needed.
    shell("pull", name)
    assert "is not what the config of its image says" in shell.fails("inspect", name)
    dockerfile(shell, f"FROM {name}\nCOPY Dockerfile /\n")
    told = shell.fails("build", str(shell.folder / "context"))
    assert "a layer is not what its image says: expected diff id" in told
    # Other programs do not get it either.
    for words in (("save", "-o", "x.tar", name), ("copy", name, "docker-archive:x.tar"), ("k8s", name)):
        assert "is not what the config of its image says" in shell.fails(*words)
    assert not (shell.folder / "x.tar").exists()


def test_copy_from_a_registry_to_a_docker_archive(shell: Shell, server: LoopRegistry) -> None:
    """Through the store, where it gets no name; of an index it is the image for this machine."""
    digest = serve_image(server, "app", "one")
    other = serve_image(server, "app", platform="linux/s390x", files={"other": b"cpu"})
    serve_index(server, "app", "many", {str(Platform.host()): digest, "linux/s390x": other})
    for tag in ("one", "many"):
        shell("copy", f"docker://{server.host}/app:{tag}", f"docker-archive:{tag}.tar:app:1")
        archive = shell.folder / f"{tag}.tar"
        assert f"s {archive.stat().st_size} bytes\n" in shell.err
        assert manifests_of(shell.folder, archive.name) == [digest]
    assert server.count("GET", "/blobs/") == 4, "layers that came once do not come again, nor does the other machine's"
    assert shell("images", "-q") == ""
    shell("load", "-i", "many.tar")
    check_store(shell.folder, "app:1")


def test_copy_of_a_platform_that_is_not_there(shell: Shell, server: LoopRegistry) -> None:
    serve_image(server, "app", "one", platform="linux/s390x")
    name = f"docker://{server.host}/app:one"
    assert f"image `{name}` is for `linux/s390x`" in shell.fails("copy", "--platform=linux/arm64", name, "oci:x")
    shell("copy", "--platform=linux/s390x", name, "oci:x")


def test_words_for_the_ends_of_a_copy(shell: Shell) -> None:
    for text, hint in (
        ("oci-archve:x.tar", "did you mean `oci-archive:x.tar`?"),
        ("docker-demon:app:1", "did you mean `docker-daemon:app:1`?"),
        ("dockr://a.example/x", "did you mean `docker://a.example/x`?"),
        ("dir:x", "use `oci:FOLDER`, a folder"),
    ):
        for ends in ((text, "oci:x"), ("store:a", text)):
            assert hint in shell.fails("copy", *ends, status=2)
    told = shell.fails("copy", "docker-archive:gone.tar", "oci:x", status=3)
    assert "gone.tar`: no such file or directory" in told
    assert "AEROGEL_ROOT" not in told
    (shell.folder / "words").write_text("no archive\n")
    assert "`words` is no tar archive" in shell.fails("copy", "oci-archive:words", "oci:x")


def dockerfile(shell: Shell, text: str) -> None:
    (shell.folder / "context").mkdir(exist_ok=True)
    (shell.folder / "context" / "Dockerfile").write_text(text)


def test_from_takes_the_registry_last(shell: Shell, server: LoopRegistry) -> None:
    digest = serve_image(server, "app", "one")
    name = f"{server.host}/app:one"
    dockerfile(shell, f"FROM {name}\nCOPY Dockerfile /x\n")
    shell("build", "-t", "mine", "context")
    assert f"FROM {name} -> registry, {digest}" in shell.err
    check_store(shell.folder, "mine")
    asked = len(server.seen)
    shell("build", "context")
    assert f"FROM {name} -> local store, {digest}" in shell.err
    assert len(server.seen) == asked
    newer = serve_image(server, "app", "one", files={"new": b"content"})
    shell("build", "--pull", "--bases=registry", "context")
    assert f"FROM {name} -> registry, {newer}" in shell.err


def test_from_by_the_digest_of_an_index_is_asked_for_once(shell: Shell, server: LoopRegistry) -> None:
    index = serve_index(server, "app", "many", {str(Platform.host()): serve_image(server, "app")})
    dockerfile(shell, f"FROM {server.host}/app@{index}\nCOPY Dockerfile /x\n")
    shell("build", "context")
    asked = len(server.seen)
    shell("build", "context")
    assert len(server.seen) == asked


def test_a_base_without_history(shell: Shell, server: LoopRegistry) -> None:
    serve_image(server, "app", "one", history=False)
    dockerfile(shell, f"FROM {server.host}/app:one\nCOPY Dockerfile /x\n")
    shell("build", "-t", "mine", "context")
    check_store(shell.folder, "mine")


def test_builtin_asks_no_registry(shell: Shell, server: LoopRegistry) -> None:
    serve_image(server, "app", "one")
    dockerfile(shell, f"FROM {server.host}/app:one\n")
    assert "was not found" in shell.fails("build", "--bases=builtin", "context")
    assert server.seen == []


def test_from_what_is_nowhere(shell: Shell, server: LoopRegistry) -> None:
    serve_image(server, "app", "one")
    dockerfile(shell, f"FROM {server.host}/app:onee\n")
    error = shell.fails("build", "context")
    assert f"error: base image `{server.host}/app:onee` was not found" in error
    assert "404 Not Found, MANIFEST_UNKNOWN (manifest unknown)" in error
    assert f"hint: did you mean `{server.host}/app:one`?" in error
    assert "Dockerfile:1:6" in error


def test_from_when_the_network_is_down(shell: Shell) -> None:
    with serve_registry() as gone:
        pass
    dockerfile(shell, f"FROM {gone.host}/app\n")
    error = shell.fails("build", "context", status=4)
    assert f"error: base image `{gone.host}/app` cannot be fetched: GET http://{gone.host}/v2/" in error
    assert "hint: the registry was asked last: " in error
    assert "is not in the local store, the aliases and the built-in bases" in error


def test_pull_of_a_base_that_is_only_here_says_so(shell: Shell, server: LoopRegistry) -> None:
    dockerfile(shell, "FROM scratch\nCOPY Dockerfile /y\n")
    shell("build", "-t", f"{server.host}/mine", "context")
    dockerfile(shell, f"FROM {server.host}/mine\nCOPY Dockerfile /x\n")
    shell("build", "--pull", "context")
    assert "was not brought up to date" in shell.err
    assert f"FROM {server.host}/mine -> local store" in shell.err


def test_push_and_pull_back(shell: Shell, server: LoopRegistry) -> None:
    name = f"{server.host}/team/mine:1"
    dockerfile(shell, "FROM scratch\nCOPY Dockerfile /y\n")
    shell("build", "-t", name, "context")
    pushed = json.loads(shell("push", "--json", name))["images"][0]
    assert pushed["transferred"] > 0
    assert server.manifests["team/mine"]["1"]
    assert json.loads(shell("push", "--json", name))["images"][0]["transferred"] == 0
    assert "it is there" in shell.err
    shell("rmi", name)
    assert json.loads(shell("pull", "--json", name))["digest"] == pushed["digest"]
    check_store(shell.folder, name)


def test_the_layers_of_the_base_are_mounted(shell: Shell, server: LoopRegistry) -> None:
    serve_image(server, "base", "one", files={"large": bytes(range(256)) * 4000})
    dockerfile(shell, f"FROM {server.host}/base:one\nCOPY Dockerfile /y\n")
    shell("build", "--push", "-t", f"{server.host}/mine:1", "context")
    assert "2 mounted, 2 uploaded" in shell.err
    assert server.manifests["mine"]["1"]


def test_build_pushes_to_every_name(shell: Shell, server: LoopRegistry) -> None:
    dockerfile(shell, "FROM scratch\nCOPY Dockerfile /y\n")
    shell("build", "-o", f'type=registry,"name={server.host}/a:1,{server.host}/b:2"', "context")
    assert server.manifests["a"]["1"] == server.manifests["b"]["2"]
    shell("build", "-t", f"{server.host}/c", "-o", "type=image,push=true", "context")
    assert server.manifests["c"]["latest"]
    error = shell.fails("build", "--push", "context", status=2)
    assert "there is no name to push the image to" in error


def test_push_of_all_tags(shell: Shell, server: LoopRegistry) -> None:
    dockerfile(shell, "FROM scratch\nCOPY Dockerfile /y\n")
    shell("build", "-t", f"{server.host}/a:1", "-t", f"{server.host}/a:2", "-t", f"{server.host}/b:3", "context")
    shell("push", "--all-tags", f"{server.host}/a")
    assert {key for key in server.manifests["a"] if ":" not in key} == {"1", "2"}
    assert "b" not in server.manifests


@pytest.mark.damage
def test_a_damaged_blob_does_not_get_into_a_registry(shell: Shell, server: LoopRegistry) -> None:
    digest = serve_image(server, "app", "one")
    shell("pull", f"{server.host}/app:one")
    layer = json.loads(server.manifests["app"][digest][1])["layers"][0]["digest"]
    path = shell.folder / "root/data/blobs" / layer.replace(":", "/")
    path.chmod(0o600)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    server.mounts = False
    shell("tag", f"{server.host}/app:one", f"{server.host}/copy:one")
    told = shell.fails("push", f"{server.host}/copy:one")
    assert f"blob `{layer}` in the store" in told
    assert layer not in server.blobs.get("copy", {})
    assert server.manifests.get("copy") is None


def test_push_of_what_is_not_here(shell: Shell, server: LoopRegistry) -> None:
    assert f"there is no image `{server.host}/a:latest`" in shell.fails("push", f"{server.host}/a")
    assert server.seen == []


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_login_push_logout(shell: Shell, server: LoopRegistry, auth: str) -> None:
    server.auth = auth
    name = f"{server.host}/mine:1"
    dockerfile(shell, "FROM scratch\nCOPY Dockerfile /y\n")
    shell("build", "-t", name, "context")
    error = shell.fails("push", name, status=4)
    assert f"hint: check the name, or log in with `aerogel login {server.host}`" in error
    error = shell.fails("login", "-u", "amy", "-p", "wrong-word", server.host, status=4)
    assert "refuses the credentials of `amy`" in error
    assert "wrong-word" not in error
    assert not (shell.folder / "docker/config.json").exists()
    assert "Login Succeeded" in shell("login", "-u", "amy", "-p", "open-sesame", server.host)
    told = json.loads(shell("login", "--json", "-u", "amy", "-p", "open-sesame", server.host))
    assert told == {"registry": server.host, "where": str(shell.folder / "docker/config.json")}
    shell("push", name)
    assert "open-sesame" not in shell.err
    assert shell("logout", server.host).startswith(f"Removed the credentials of {server.host}")
    assert shell("logout", server.host) == f"Not logged in to {server.host}\n"
    shell.fails("pull", name, status=4)
