"""Our client against Debian's docker-registry, plain and with TLS and passwords, with skopeo on the other side.

Debian packages: docker-registry, skopeo, openssl.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import ROOT, Aerogel
from real_registry import Server, start

pytestmark = pytest.mark.host("docker-registry", "skopeo", "openssl")

HTPASSWD = "amy:$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO\n"
"""The user `amy` with the password `open-sesame`."""


@pytest.fixture(scope="module")
def plain(registry: Server) -> Server:
    """Without passwords and TLS."""
    return registry


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a password for everything, and TLS by a certificate authority of its own."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "passwords").write_text(HTPASSWD)
    key, certificate = folder / "key.pem", folder / "ca.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    auth = {"auth": {"htpasswd": {"realm": "tests", "path": str(folder / "passwords")}}}
    server, process = start(folder, auth, {"tls": {"certificate": str(certificate), "key": str(key)}})
    yield server
    process.terminate()
    process.wait()


@pytest.fixture
def aerogel(tmp_path: Path) -> Aerogel:
    """A store and a configuration of its own for each test."""
    made = Aerogel(tmp_path / "state")
    made.env |= {"DOCKER_CONFIG": str(tmp_path / "docker")}
    made.env.pop("REGISTRY_AUTH_FILE", None)
    return made


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "data").write_bytes(os.urandom(3_000_000))
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY data /data\nCOPY Dockerfile /also\nLABEL a=b\n")
    return folder


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_push_by_skopeo_pull_by_us_and_back(aerogel: Aerogel, plain: Server, context: Path, tmp_path: Path) -> None:
    name = f"{plain.host}/team/app:one"
    archive = tmp_path / "app.tar"
    aerogel("build", "-q", "-o", f"type=oci,dest={archive}", str(context))
    skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{name}")
    found = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))["Digest"]
    other = Aerogel(tmp_path / "other")
    pulled = other.json("pull", name)
    assert pulled["digest"] == found
    assert pulled["transferred"] > 3_000_000
    back = f"{plain.host}/team/back:two"
    other("tag", name, back)
    pushed = other.json("push", back)["images"][0]
    assert pushed["digest"] == found
    assert pushed["transferred"] == 0, "the layers are mounted from the repository they came from"
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{back}"))["Digest"] == found


def test_page_of_the_rule_for_images_of_another_platform(aerogel: Aerogel, plain: Server, context: Path) -> None:
    page = (ROOT / "docs/lint/InvalidBaseImagePlatform.md").read_text()
    bad, good = re.findall(r"```dockerfile\n(.*?)```", page, re.DOTALL)
    name = f"{plain.host}/team/tools"
    (context / "app").write_text("x")
    aerogel("build", "-q", "--platform=linux/arm64", "--push", "-t", name, str(context))
    aerogel("rmi", name)
    words = ("build", "--progress=plain", "--platform=linux/amd64", str(context))
    (context / "Dockerfile").write_text(bad.replace("registry.example/team/tools", name))
    told = f'Base image {name} was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    assert f"warning: InvalidBaseImagePlatform: {told}" in aerogel(*words).stderr
    (context / "Dockerfile").write_text(good.replace("registry.example/team/tools", name))
    assert "InvalidBaseImagePlatform" not in aerogel(*words).stderr


@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_images_of_both_kinds(aerogel: Aerogel, plain: Server, context: Path, tmp_path: Path, form: str) -> None:
    name = f"{plain.host}/kinds:{form}"
    archive = tmp_path / "app.tar"
    aerogel("build", "-q", "-o", f"type=oci,dest={archive}", str(context))
    skopeo("copy", "--format", form, "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{name}")
    other = Aerogel(tmp_path / "other")
    other("pull", name)
    (context / "Dockerfile").write_text(f"FROM {name}\nCOPY Dockerfile /more\n")
    built = other("build", "--push", "-t", f"{plain.host}/child:{form}", "--progress=plain", str(context))
    assert f"FROM {name} -> local store" in built.stderr
    manifest = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{plain.host}/child:{form}"))
    assert len(manifest["layers"]) == 3
    skopeo("copy", "--src-tls-verify=false", f"docker://{plain.host}/child:{form}", f"oci-archive:{tmp_path}/x.tar")


def test_from_a_registry_needs_nothing_else(aerogel: Aerogel, plain: Server, context: Path, tmp_path: Path) -> None:
    name = f"{plain.host}/base:1"
    aerogel("build", "--push", "-t", name, str(context))
    other = Aerogel(tmp_path / "other")
    (context / "Dockerfile").write_text(f"FROM {name}\nCOPY Dockerfile /more\n")
    first = other("build", "--bases=registry", "--progress=plain", str(context))
    assert f"FROM {name} -> registry, sha256:" in first.stderr
    second = other("build", "--progress=plain", str(context))
    assert f"FROM {name} -> local store, sha256:" in second.stderr
    assert first.stdout == second.stdout


def test_a_push_again_moves_nothing(aerogel: Aerogel, plain: Server, context: Path) -> None:
    name = f"{plain.host}/again:1"
    aerogel("build", "--push", "-t", name, str(context))
    assert aerogel.json("push", name)["images"][0]["transferred"] == 0
    aerogel("tag", name, f"{plain.host}/again:2")
    assert aerogel.json("push", f"{plain.host}/again:2")["images"][0]["transferred"] == 0


def test_large_layers_in_chunks(aerogel: Aerogel, plain: Server) -> None:
    """The real server takes our chunks, and says how far it has got."""
    script = f"""
import hashlib, io
from aerogel.net.http import Http
from aerogel.oci.reference import Reference
from aerogel.oci.types import Descriptor
from aerogel.registry import push
from aerogel.registry.client import Registries
from aerogel.registry.credentials import Credentials
push.CHUNK = 1 << 20
data = bytes(range(256)) * 20000
blob = Descriptor(digest="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data))
uploads = push.Uploads(Registries(Http(), Credentials([], {{}})).repository(Reference.parse("{plain.host}/chunks")))
counted = push._Counted(lambda count: None)
uploads._chunked(uploads._begin(blob, ""), blob, lambda: io.BytesIO(data), counted)
location = uploads._begin(blob, "")
print(uploads._progress(location, "x")[1], uploads.blob(blob, lambda: io.BytesIO(data)))
"""
    done = subprocess.run([*aerogel.argv()[:1], "-c", script], env=aerogel.env, capture_output=True, text=True)
    assert done.stdout == "0 present\n", done.stderr


def test_login_with_tls(aerogel: Aerogel, locked: Server, context: Path, tmp_path: Path) -> None:
    name = f"{locked.host}/team/app:1"
    trusted = {"SSL_CERT_FILE": str(locked.folder / "ca.pem")}
    aerogel("build", "-t", name, str(context))
    refused = aerogel("push", name, check=False)
    assert refused.returncode == 4
    assert "certificate" in refused.stderr
    refused = aerogel("push", name, check=False, env=trusted)
    assert (refused.returncode, "aerogel login" in refused.stderr) == (4, True), refused.stderr
    refused = aerogel("login", "-u", "amy", "--password-stdin", locked.host, check=False, env=trusted, input="wrong")
    assert "refuses the credentials of `amy`" in refused.stderr
    aerogel("login", "-u", "amy", "--password-stdin", locked.host, env=trusted, input="open-sesame\n")
    aerogel("push", name, env=trusted)
    auth = tmp_path / "docker" / "config.json"
    certificates = tmp_path / "certs"
    certificates.mkdir()
    (certificates / "ca.crt").write_bytes((locked.folder / "ca.pem").read_bytes())
    words = ("--authfile", str(auth), "--cert-dir", str(certificates))
    assert json.loads(skopeo("inspect", *words, f"docker://{name}"))["Labels"] == {"a": "b"}
    aerogel("rmi", name)
    aerogel("pull", name, env=trusted)
    aerogel("logout", locked.host)
    assert aerogel("pull", name, check=False, env=trusted).returncode == 4


def test_a_missing_tag_is_told_with_the_nearest(aerogel: Aerogel, plain: Server, context: Path) -> None:
    aerogel("build", "--push", "-t", f"{plain.host}/tags:stable", str(context))
    missing = aerogel("pull", f"{plain.host}/tags:stabel", check=False)
    assert missing.returncode == 1
    assert "MANIFEST_UNKNOWN" in missing.stderr
    assert f"did you mean `{plain.host}/tags:stable`?" in missing.stderr


def test_referrers_without_the_api(aerogel: Aerogel, plain: Server, context: Path, tmp_path: Path) -> None:
    """Debian's registry has no list of referrers: they go under the tag that the specification has for that."""
    name = f"{plain.host}/told:1"
    built = aerogel.json("build", "--sbom", "--provenance", "-o", f"type=registry,name={name}", str(context))
    digest = built["descriptor"]["digest"]
    tag = f"{plain.host}/told:{digest.replace(':', '-')}"
    listed = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{tag}"))
    assert {one["artifactType"] for one in listed["manifests"]} == {"application/vnd.in-toto+json"}
    other = Aerogel(tmp_path / "other")
    found = other.json("pull", "--referrers", name)
    assert found["digest"] == digest
    assert {one["digest"] for one in found["referrers"]} == {one["digest"] for one in listed["manifests"]}
    # From there they go on with the image.
    other("tag", name, f"{plain.host}/again:1")
    other("push", f"{plain.host}/again:1")
    again = Aerogel(tmp_path / "third").json("pull", "--referrers", f"{plain.host}/again:1")
    assert again["referrers"] == found["referrers"]
    assert len(found["referrers"]) == 2
