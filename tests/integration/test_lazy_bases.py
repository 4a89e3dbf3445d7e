"""Bases of registries: what is fetched of them, seen in the log of Debian's docker-registry.

Debian packages: docker-registry, skopeo, busybox-static.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from process import Aerogel
from real_registry import Server, start

pytestmark = pytest.mark.host("docker-registry", "skopeo", "busybox")


@pytest.fixture(scope="module")
def base(registry: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """An image of three layers in the registry, and their blobs."""
    folder = tmp_path_factory.mktemp("base")
    shutil.copy(str(shutil.which("busybox")), folder / "busybox")
    (folder / "data").write_bytes(os.urandom(500_000))
    (folder / "more").write_bytes(os.urandom(500_000))
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY busybox /bin/sh\nCOPY data /data\nCOPY more /more\n")
    name = f"{registry.host}/team/base:1"
    made = Aerogel(folder / "state").json("build", "--push", "-t", name, str(folder))
    return name, [layer["digest"] for layer in made["layers"]]


def fetched(registry: Server, since: int = 0) -> set[str]:
    """The blobs that were read from the registry."""
    return set(re.findall(r'"GET /v2/[^ ]*/blobs/(sha256:[0-9a-f]+)', registry.log[since:]))


def test_a_pushed_image_leaves_the_layers_of_its_base_where_they_are(
    registry: Server, base: tuple[str, list[str]], tmp_path: Path
) -> None:
    name, layers = base
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nCOPY --link Dockerfile /d\nLABEL a=b\n")
    aerogel = Aerogel(tmp_path / "state")
    before = len(registry.log)
    target = f"{registry.host}/team/child:1"
    made = aerogel.json("build", "--push", "-t", target, str(tmp_path))
    assert not fetched(registry, before) & set(layers), "manifest and config are enough"
    asked = Counter(re.findall(r'"(POST|PUT|PATCH) /v2/team/child/([a-z]+)/', registry.log[before:]))
    mounted = {f"mount={each.replace(':', '%3A')}" for each in layers}
    assert all(registry.log[before:].count(each) == 1 for each in mounted), registry.log[before:]
    # Three mounts, and an upload of its own layer and of the config.
    assert asked == {("POST", "blobs"): 5, ("PUT", "blobs"): 2, ("PUT", "manifests"): 1}
    assert [each["digest"] for each in made["layers"][:3]] == layers
    assert json.loads(subprocess.check_output(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{target}"]
    ))["Labels"] == {"a": "b"}  # fmt: skip
    # Again, and with another name: nothing is fetched either.
    aerogel("tag", target, f"{registry.host}/other/child:1")
    assert aerogel.json("push", f"{registry.host}/other/child:1")["images"][0]["transferred"] == 0
    assert not fetched(registry, before) & set(layers)
    # Whoever needs the bytes gets them, each once.
    archive = tmp_path / "child.tar"
    aerogel("save", "-o", str(archive), target)
    assert set(layers) <= fetched(registry, before)
    got = subprocess.run(
        ["skopeo", "copy", f"docker-archive:{archive}", f"oci:{tmp_path}/layout"], capture_output=True, text=True
    )
    assert got.returncode == 0, got.stderr
    same = Aerogel(tmp_path / "plain").json("build", str(tmp_path))
    assert same["image_id"] == made["image_id"]


def test_layers_that_the_other_registry_has(
    registry: Server, base: tuple[str, list[str]], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A child in another registry whose repository has the layers of the base: nobody sends or fetches them."""
    name, layers = base
    other, process = start(tmp_path_factory.mktemp("other"), {}, {})
    try:
        (tmp_path / "Dockerfile").write_text(f"FROM {name}\nCOPY --link Dockerfile /one\n")
        Aerogel(tmp_path / "first")("build", "--push", "-t", f"{other.host}/app:1", str(tmp_path))
        (tmp_path / "Dockerfile").write_text(f"FROM {name}\nCOPY --link Dockerfile /two\n")
        before, since = len(registry.log), len(other.log)
        Aerogel(tmp_path / "second")("build", "--push", "-t", f"{other.host}/app:2", str(tmp_path))
        assert not fetched(registry, before) & set(layers)
        assert Counter(re.findall(r'"(POST|PUT|PATCH) /v2/app/([a-z]+)/', other.log[since:])) == {
            ("POST", "blobs"): 2,
            ("PUT", "blobs"): 2,
            ("PUT", "manifests"): 1,
        }
        for layer in layers:
            assert f'"HEAD /v2/app/blobs/{layer} ' in other.log[since:]
    finally:
        process.terminate()
        process.wait()


def test_an_image_that_stays_here_is_whole(registry: Server, base: tuple[str, list[str]], tmp_path: Path) -> None:
    name, layers = base
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nCOPY Dockerfile /d\n")
    aerogel = Aerogel(tmp_path / "state")
    before = len(registry.log)
    aerogel("build", "-t", "child", str(tmp_path))
    assert set(layers) <= fetched(registry, before)
    after = len(registry.log)
    aerogel("save", "-o", str(tmp_path / "child.tar"), "child")
    assert aerogel("run", "child", "/bin/sh", "-c", "echo works").stdout == "works\n"
    assert len(registry.log) == after, "no question to the registry"


def test_only_the_layers_of_stages_that_work(registry: Server, base: tuple[str, list[str]], tmp_path: Path) -> None:
    name, layers = base
    (tmp_path / "Dockerfile").write_text(
        f'FROM {name} AS tools\nRUN ["/bin/sh", "-c", "echo made > /made"]\n'
        f"FROM scratch\nCOPY --from=tools /made /made\n"
    )  # fmt: skip
    cache = f"{registry.host}/team/cache"
    first = Aerogel(tmp_path / "one").json("build", "--cache-to", cache, str(tmp_path))
    before = len(registry.log)
    second = Aerogel(tmp_path / "two").json("build", "--cache-from", cache, str(tmp_path))
    assert second["image_id"] == first["image_id"]
    assert {each["status"] for each in second["steps"]} <= {"CACHED", "SKIPPED"}
    assert not fetched(registry, before) & set(layers), "the base of a stage that does not run is not fetched"


@pytest.mark.damage
def test_a_layer_that_is_not_what_the_base_says(registry: Server, base: tuple[str, list[str]], tmp_path: Path) -> None:
    """The blob is what its digest says, and not what the config says: found when it is needed."""
    name, _ = base
    layout = tmp_path / "layout"
    subprocess.run(
        ["skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:one"],
        check=True,
        capture_output=True,
    )
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads((layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")).read_bytes())
    manifest["layers"][1], manifest["layers"][2] = manifest["layers"][2], manifest["layers"][1]
    data = json.dumps(manifest).encode()
    liar = f"{registry.host}/team/base:liar"
    script = (
        "import sys, urllib.request as u\n"
        "u.urlopen(u.Request(sys.argv[1], sys.stdin.buffer.read(), method='PUT',"
        " headers={'Content-Type': 'application/vnd.oci.image.manifest.v1+json'}))"
    )
    url = f"http://{registry.host}/v2/team/base/manifests/liar"
    subprocess.run(["python3", "-c", script, url], input=data, check=True)
    (tmp_path / "Dockerfile").write_text(f"FROM {liar}\nCOPY Dockerfile /d\n")
    aerogel = Aerogel(tmp_path / "state")
    told = aerogel("build", "-t", "child", str(tmp_path), check=False)
    assert told.returncode == 1
    assert "is not what the config of its image says" in told.stderr
    assert "child" not in aerogel("images").stdout
