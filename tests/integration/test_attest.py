"""Attestations, keys of every kind and policies, with the real cosign as judge of both directions.

Debian packages: docker-registry; cosign comes from the archive of Debian 13.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cosign
import pytest
from process import Aerogel
from real_registry import Server

pytestmark = pytest.mark.host("docker-registry")

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> cosign.Cosign:
    return cosign.fetch(tmp_path_factory.mktemp("cosign"))


@pytest.fixture
def aerogel(tmp_path: Path) -> Aerogel:
    made = Aerogel(tmp_path / "state")
    made.env |= {"AEROGEL_KEY_PASSWORD": PASSWORD, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return made


def pushed(aerogel: Aerogel, name: str, folder: Path, *words: str) -> str:
    (folder / "Dockerfile").write_text(f"FROM scratch\nLABEL name={name}\n")
    found: str = aerogel.json("build", "--push", "-t", name, *words, str(folder))["descriptor"]["digest"]
    return found


@pytest.mark.network
@pytest.mark.parametrize("kind", ["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-3072"])
def test_cosign_and_aerogel_believe_each_other(
    aerogel: Aerogel, registry: Server, real: cosign.Cosign, tmp_path: Path, kind: str
) -> None:
    ours, theirs = f"{registry.host}/ours/{kind}:1", f"{registry.host}/theirs/{kind}:1"
    for name in (ours, theirs):
        pushed(aerogel, name, tmp_path)
    aerogel("key", "generate", "--kind", kind, "-o", f"{tmp_path}/made")
    key, public = f"{tmp_path}/made.key", f"{tmp_path}/made.pub"
    (tmp_path / "said").write_text('{"scanner": {"result": "clean"}}')
    said = ("--predicate", f"{tmp_path}/said")
    aerogel("sign", "--key", key, ours)
    aerogel("attest", "--key", key, "--type", "vuln", *said, ours)
    offline = ("--key", public, "--insecure-ignore-tlog=true")
    (payload,) = json.loads(real("verify", *offline, ours).stdout)
    assert payload["critical"]["identity"]["docker-reference"] == ours.removesuffix(":1")
    envelope = json.loads(real("verify-attestation", *offline, "--type", "vuln", ours).stdout)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicate"] == {"scanner": {"result": "clean"}}
    assert real("public-key", "--key", key, password=PASSWORD).stdout == (tmp_path / "made.pub").read_text()
    real("sign", "--tlog-upload=false", "-y", "--key", key, theirs, password=PASSWORD)
    words = ("--tlog-upload=false", "-y", "--key", key, *said)
    real("attest", *words, "--type", "custom", theirs, password=PASSWORD)
    assert aerogel.json("verify", "--key", public, theirs)["forms"] == ["tag"]
    found = aerogel.json("verify", "--key", public, "--type", "custom", theirs)
    assert json.loads(found["predicates"][0]["Data"]) == {"scanner": {"result": "clean"}}


@pytest.mark.network
def test_a_key_that_cosign_made(aerogel: Aerogel, registry: Server, real: cosign.Cosign, tmp_path: Path) -> None:
    name = f"{registry.host}/key/of-cosign:1"
    pushed(aerogel, name, tmp_path)
    real("generate-key-pair", "--output-key-prefix", f"{tmp_path}/real", password=PASSWORD)
    aerogel("sign", "--key", f"{tmp_path}/real.key", name)
    assert aerogel.json("verify", "--key", f"{tmp_path}/real.pub", name)["forms"] == ["bundle", "tag"]
    wrong = aerogel("sign", "--key", f"{tmp_path}/real.key", name, check=False, env={"AEROGEL_KEY_PASSWORD": "no"})
    assert "cannot be opened with this password" in wrong.stderr


def test_what_a_build_attached_is_attested(aerogel: Aerogel, registry: Server, tmp_path: Path) -> None:
    name = f"{registry.host}/team/facts:1"
    digest = pushed(aerogel, name, tmp_path, "--sbom=true", "--provenance=mode=max")
    aerogel("key", "generate", "-o", f"{tmp_path}/k")
    aerogel("key", "generate", "-o", f"{tmp_path}/other")
    again = aerogel("key", "generate", "-o", f"{tmp_path}/k", check=False)
    assert "is there already" in again.stderr
    key, public = f"{tmp_path}/k.key", f"{tmp_path}/k.pub"
    unsigned = aerogel("verify", "--key", public, "--type", "spdx", name, check=False)
    assert (unsigned.returncode, "no attestation of type `spdx`" in unsigned.stderr) == (1, True)
    for kind in ("spdx", "slsaprovenance1"):
        assert aerogel.json("attest", "--key", key, "--type", kind, name)["digest"] == digest
    spdx = json.loads(aerogel("verify", "--key", public, "--type", "spdx", name).stdout)
    assert spdx["spdxVersion"].startswith("SPDX-")
    found = aerogel.json("verify", "--key", public, "--type", "slsaprovenance1", name)
    assert found["forms"] == ["bundle", "tag"]
    assert found["predicates"][0]["buildDefinition"]["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    # Neither is a signature, and neither is the other.
    assert "no signature" in aerogel("verify", "--key", public, name, check=False).stderr
    wrong = aerogel("verify", "--key", f"{tmp_path}/other.pub", "--type", "spdx", name, check=False)
    assert "2 of others or of other images" in wrong.stderr
    # They go along with a copy, and are of another image where they are put under its tag.
    aerogel("copy", f"docker://{name}", f"docker://{registry.host}/mirror/facts:1")
    assert aerogel.json("verify", "--key", public, "--type", "spdx", f"{registry.host}/mirror/facts:1")["predicates"]
    evil = pushed(aerogel, f"{registry.host}/team/facts:evil", tmp_path)
    tags = [f"docker://{registry.host}/team/facts:{each.replace(':', '-')}.att" for each in (digest, evil)]
    aerogel("copy", *tags)
    told = aerogel("verify", "--key", public, "--type", "spdx", f"{registry.host}/team/facts:evil", check=False)
    assert (told.returncode, "1 of others or of other images" in told.stderr) == (1, True)


def test_what_cannot_be_attested(aerogel: Aerogel, registry: Server, tmp_path: Path) -> None:
    name = f"{registry.host}/team/bare:1"
    pushed(aerogel, name, tmp_path)
    aerogel("key", "generate", "-o", f"{tmp_path}/k")
    (tmp_path / "text").write_text("no JSON")
    (tmp_path / "list").write_text("[]")
    key = ("--key", f"{tmp_path}/k.key")
    for words, told in (
        ((*key, "--type", "sbom"), "`sbom` is no type of attestation"),
        ((*key, "--type", "spdx"), "has no statement of type `spdx` that could be signed"),
        ((*key, "--type", "spdx", "--predicate", f"{tmp_path}/text"), "is no JSON"),
        ((*key, "--type", "spdx", "--predicate", f"{tmp_path}/list"), "is no JSON object"),
        ((), "there is no key to sign with"),
    ):
        done = aerogel("attest", *words, name, check=False)
        assert told in done.stderr
        assert "Traceback" not in done.stderr
