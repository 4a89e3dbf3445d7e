"""`aerogel copy` between Debian's docker-registry, layouts, archives and the store; skopeo reads what comes out.

Debian packages: docker-registry, skopeo, umoci.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from process import Aerogel
from real_registry import Server

pytestmark = pytest.mark.host("docker-registry", "skopeo", "umoci")

PLATFORMS = "linux/amd64,linux/arm64"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, registry: Server) -> tuple[str, str, Aerogel]:
    """An image for two platforms with an SBOM for each, in the registry; its name, digest and the store it is from."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "data").write_bytes(os.urandom(400_000))
    (folder / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY data /data\nENV ARCH=$TARGETARCH\n")
    aerogel = Aerogel(folder / "state")
    name = f"{registry.host}/team/app:1"
    made = aerogel.json("build", "--platform", PLATFORMS, "--sbom", "--push", "-t", name, str(folder))
    return name, made["descriptor"]["digest"], aerogel


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def raw(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    return found


def listed(registry: Server, repository: str, digest: str) -> list[str]:
    """What a registry without the referrers API says under the fall-back tag."""
    index = raw(f"{registry.host}/{repository}:{digest.replace(':', '-')}")
    manifests = index["manifests"]
    assert isinstance(manifests, list)
    return [each["digest"] for each in manifests]


def test_between_registries_with_all_that_refers(
    image: tuple[str, str, Aerogel], registry: Server, tmp_path: Path
) -> None:
    name, digest, _ = image
    other = Aerogel(tmp_path / "state")
    target = f"{registry.host}/mirror/app:1"
    plan = other.json("copy", "--dry-run", f"docker://{name}", f"docker://{target}")
    assert plan["transferred"] > 400_000
    assert plan["manifests"] == 3
    assert plan["referrers"] == 2
    done = other.json("copy", f"docker://{name}", f"docker://{target}")
    assert done["digest"] == digest
    assert done["transferred"] == 0, "everything is mounted: it is the same registry"
    assert raw(target) == raw(name)
    manifests = raw(target)["manifests"]
    assert isinstance(manifests, list)
    for each in manifests:
        assert listed(registry, "mirror/app", each["digest"]) == listed(registry, "team/app", each["digest"])
    assert other.json("copy", "--dry-run", f"docker://{name}", f"docker://{target}")["transferred"] == 0
    assert not list((other.state / "data" / "images-v1").rglob("*.json")), "the store is not touched"


def test_through_files_and_back(image: tuple[str, str, Aerogel], registry: Server, tmp_path: Path) -> None:
    name, digest, _ = image
    other = Aerogel(tmp_path / "state")
    layout, archive = tmp_path / "layout", tmp_path / "app.tar"
    other("copy", f"docker://{name}", f"oci:{layout}:one")
    other("copy", f"oci:{layout}:one", f"oci-archive:{archive}:one")
    assert json.loads(skopeo("inspect", "--raw", f"oci:{layout}:one"))["manifests"]
    names = subprocess.run(["umoci", "ls", "--layout", str(layout)], capture_output=True, text=True, check=True).stdout
    assert names.split() == ["one"]
    third = Aerogel(tmp_path / "third")
    back = f"{registry.host}/back/app:2"
    done = third.json("copy", f"oci-archive:{archive}:one", f"docker://{back}")
    assert done["digest"] == digest
    assert done["referrers"] == 2
    assert raw(back) == raw(name)
    # Into a store, and from there for docker.
    third("copy", f"docker://{back}", "store:app:3")
    assert third.json("images")["images"][0]["digest"] == digest
    docker = tmp_path / "docker.tar"
    told = third("copy", "app:3", f"docker-archive:{docker}:example.test/app:4").stderr
    assert "2 artifacts that refer to the image stayed behind: `docker-archive:` has no room for that" in told
    again = ("copy", "--no-referrers", "app:3", f"docker-archive:{docker}:example.test/app:4")
    assert "stayed behind" not in third(*again).stderr
    config = json.loads(skopeo("inspect", "--config", f"docker-archive:{docker}:example.test/app:4"))
    assert "ARCH=amd64" in config["config"]["Env"]


def test_one_platform(image: tuple[str, str, Aerogel], registry: Server, tmp_path: Path) -> None:
    name, digest, _ = image
    target = f"{registry.host}/team/arm"
    done = Aerogel(tmp_path / "state").json(
        "copy", "--platform=linux/arm64", "--no-referrers", f"docker://{name}", f"docker://{target}"
    )
    assert done["digest"] != digest
    assert (done["manifests"], done["referrers"]) == (1, 0)
    assert (
        json.loads(skopeo("inspect", "--config", "--tls-verify=false", f"docker://{target}"))["architecture"] == "arm64"
    )


def test_tags_that_belong_to_an_image_go_with_it(
    image: tuple[str, str, Aerogel], registry: Server, tmp_path: Path
) -> None:
    """A signature as cosign names it: a tag made of the digest."""
    name, digest, aerogel = image
    tag = digest.replace(":", "-") + ".sig"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL stands=for-a-signature\n")
    signature = aerogel.json("build", "--push", "-t", f"{registry.host}/team/app:{tag}", str(tmp_path))
    done = aerogel.json("copy", f"docker://{name}", f"docker://{registry.host}/signed/app")
    assert done["referrers"] == 3
    found = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/signed/app:{tag}"))
    assert found["Digest"] == signature["descriptor"]["digest"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("dir:app", "x"), 2, "use `oci:FOLDER`, a folder"),
        (("dokcer://app", "x"), 2, "did you mean `docker://app`?"),
        (("docker:app", "x"), 2, "write `docker://app`"),
        (("oci:", "x"), 2, "write `oci:PATH`"),
        (("nobody-has-this", "docker://127.0.0.1:1/x"), 1, "there is no image `nobody-has-this`"),
        (("--dry-run", "app", "oci:x"), 2, "`--dry-run` is for copies to a registry"),
        (("oci-archive:none.tar", "x"), 3, "none.tar"),
    ],
)
def test_what_cannot_be(tmp_path: Path, words: tuple[str, ...], code: int, told: str) -> None:
    done = Aerogel(tmp_path / "state")("copy", *words, check=False, cwd=tmp_path)
    assert told in done.stderr
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
