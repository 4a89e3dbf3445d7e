"""`aerogel manifest`: lists made from images here and in a registry, pushed, and read by skopeo and podman's rules.

Debian packages: docker-registry, skopeo.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from process import Aerogel
from real_registry import Server

pytestmark = pytest.mark.host("docker-registry", "skopeo")


def built(aerogel: Aerogel, folder: Path, name: str, platform: str, *words: str) -> str:
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY Dockerfile /{platform.replace('/', '-')}\n")
    made = aerogel.json("build", "--platform", platform, "-t", name, *words, str(folder))
    found: str = made["descriptor"]["digest"]
    return found


def test_a_list_of_images_from_two_places(registry: Server, tmp_path: Path) -> None:
    other, aerogel = Aerogel(tmp_path / "other"), Aerogel(tmp_path / "state")
    name = f"{registry.host}/team/app"
    far = built(other, tmp_path, f"{name}:arm", "linux/arm64", "--push")
    near = built(aerogel, tmp_path, f"{name}:amd", "linux/amd64")
    made = aerogel.json("manifest", "create", f"{name}:1", f"{name}:amd", f"{name}:arm")
    assert made["members"] == [near, far]
    again = aerogel("manifest", "create", f"{name}:1", f"{name}:amd", check=False)
    assert "is there already" in again.stderr
    third = built(aerogel, tmp_path, f"{name}:odd", "linux/riscv64")
    aerogel("manifest", "create", "--amend", f"{name}:1", f"{name}:odd")
    aerogel("manifest", "annotate", "--arch=arm", "--variant=v7", "--annotation", "a=b", f"{name}:1", f"{name}:odd")
    printed = json.loads(aerogel("manifest", f"{name}:1").stdout)
    assert [each["digest"] for each in printed["manifests"]] == [near, far, third]
    assert printed["manifests"][1]["platform"] == {"architecture": "arm64", "os": "linux"}
    assert printed["manifests"][2]["platform"] == {"architecture": "arm", "os": "linux", "variant": "v7"}
    assert printed["manifests"][2]["annotations"] == {"a": "b"}
    (pushed,) = aerogel.json("manifest", "push", "--purge", f"{name}:1")["images"]
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}:1"], capture_output=True, check=True
    )
    assert json.loads(raw.stdout) == printed
    remote = aerogel.json("manifest", "inspect", f"{name}:1")
    assert (remote["digest"], remote["document"]) == (pushed["digest"], printed)
    # All images of it are whole there, in another repository too, where the layers of the far one had never been here.
    aerogel("manifest", "create", "mine", f"{name}:1")
    aerogel("manifest", "push", "mine", f"{registry.host}/else/where:1")
    for architecture in ("amd64", "arm64"):
        words = ["skopeo", "copy", "--override-arch", architecture, "--src-tls-verify=false"]
        target = f"oci:{tmp_path}/{architecture}:x"
        subprocess.run([*words, f"docker://{registry.host}/else/where:1", target], capture_output=True, check=True)
    assert aerogel("manifest", "rm", "mine").stdout == "Untagged: mine:latest\n"
    assert "no image" in aerogel("manifest", "rm", "mine", check=False).stderr


def test_what_is_no_list(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    built(aerogel, tmp_path, "one:1", "linux/amd64")
    built(aerogel, tmp_path, "two:1", "linux/arm64")
    aerogel("manifest", "create", "both", "one:1")
    for words, told in (
        (("rm", "one:1"), "`one:1` is one image and no list"),
        (("push", "one:1"), "is one image and no list"),
        (("create", "--amend", "one:1", "two:1"), "is one image and no list"),
        (("create", "three"), "a list needs an image"),
        (("annotate", "--os=linux", "both", "two:1"), "`two:1` is not in the list `both`"),
        (("create", "x@sha256:" + "0" * 64, "one:1"), "has a digest; a list has a name"),
    ):
        done = aerogel("manifest", *words, check=False)
        assert told in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_pull_brings_all_platforms_and_what_refers_to_them(registry: Server, tmp_path: Path) -> None:
    maker, aerogel = Aerogel(tmp_path / "maker"), Aerogel(tmp_path / "state")
    name = f"{registry.host}/team/wide:1"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
    platforms = "linux/amd64,linux/arm64"
    made = maker.json("build", "--platform", platforms, "--sbom=true", "--push", "-t", name, str(tmp_path))
    pulled = aerogel.json("pull", "--all-platforms", name)
    assert (pulled["digest"], pulled["platform"]) == (made["descriptor"]["digest"], platforms)
    assert len(pulled["referrers"]) == 2
    assert json.loads(aerogel("manifest", name).stdout)["manifests"][1]["platform"]["architecture"] == "arm64"
    one = Aerogel(tmp_path / "one").json("pull", name)
    assert len(one["referrers"]) == 1, "without being asked for"
    assert Aerogel(tmp_path / "bare").json("pull", "--no-referrers", name)["referrers"] == []
    by_digest = aerogel("pull", "--all-platforms", f"{registry.host}/team/wide@{pulled['digest']}", check=False)
    assert "has a digest" in by_digest.stderr
