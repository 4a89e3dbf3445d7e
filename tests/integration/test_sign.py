"""`aerogel sign` and `verify` against Debian's docker-registry and our own; openssl checks what was signed.

Debian packages: docker-registry, openssl.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from process import Aerogel
from real_registry import Server

pytestmark = pytest.mark.host("docker-registry", "openssl")

PREDICATE = "https://sigstore.dev/cosign/sign/v1"


def openssl(*words: str, cwd: Path) -> str:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of keys, one of them locked by the password `open-sesame`, and one of another kind."""
    folder = tmp_path_factory.mktemp("keys")
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl("genpkey", *curve, "-out", "one.key", cwd=folder)
    openssl("genpkey", *curve, "-aes-256-cbc", "-pass", "pass:open-sesame", "-out", "two.key", cwd=folder)
    openssl("genpkey", "-algorithm", "ED448", "-out", "other.key", cwd=folder)
    openssl("pkey", "-in", "one.key", "-pubout", "-out", "one.pub", cwd=folder)
    openssl("pkey", "-in", "two.key", "-passin", "pass:open-sesame", "-pubout", "-out", "two.pub", cwd=folder)
    return folder


@pytest.fixture
def aerogel(tmp_path: Path) -> Aerogel:
    made = Aerogel(tmp_path / "state")
    made.env.pop("AEROGEL_KEY_PASSWORD", None)
    return made


def pushed(aerogel: Aerogel, name: str, folder: Path, text: str = "one") -> str:
    (folder / "Dockerfile").write_text(f"FROM scratch\nLABEL text={text}\n")
    found: str = aerogel.json("build", "--push", "-t", name, str(folder))["descriptor"]["digest"]
    return found


def layout_of(aerogel: Aerogel, name: str, folder: Path) -> dict[str, Any]:
    """All documents of an image and of what belongs to it, by digest, as `copy` writes them."""
    aerogel("copy", f"docker://{name}", f"oci:{folder}:one")
    found = {}
    for path in (folder / "blobs" / "sha256").iterdir():
        try:
            found[f"sha256:{path.name}"] = json.loads(path.read_bytes())
        except ValueError:
            continue
    return found


def test_a_signature_is_found_and_right(aerogel: Aerogel, registry: Server, keys: Path, tmp_path: Path) -> None:
    name = f"{registry.host}/team/app:1"
    digest = pushed(aerogel, name, tmp_path)
    unsigned = aerogel("verify", "--key", str(keys / "one.pub"), name, check=False)
    assert unsigned.returncode == 1
    assert "none at all" in unsigned.stderr
    signed = aerogel.json("sign", "--key", str(keys / "one.key"), name)
    assert (signed["digest"], len(signed["made"])) == (digest, 2)
    found = aerogel.json("verify", "--key", str(keys / "one.pub"), name)
    assert (found["digest"], found["forms"]) == (digest, ["bundle", "tag"])
    by_digest = f"{registry.host}/team/app@{digest}"
    assert aerogel("verify", "--key", str(keys / "one.pub"), by_digest).stdout.strip().endswith(digest)
    wrong = aerogel("verify", "--key", str(keys / "two.pub"), name, check=False)
    assert (wrong.returncode, "2 of others or of other images" in wrong.stderr) == (1, True), wrong.stderr
    assert aerogel.json("sign", "--key", str(keys / "one.key"), name)["made"] == []


def test_several_keys(aerogel: Aerogel, registry: Server, keys: Path, tmp_path: Path) -> None:
    name = f"{registry.host}/team/several:1"
    pushed(aerogel, name, tmp_path)
    aerogel("sign", "--key", str(keys / "one.key"), name)
    locked = aerogel("sign", "--key", str(keys / "two.key"), name, check=False)
    assert "AEROGEL_KEY_PASSWORD" in locked.stderr
    guessed = aerogel("sign", "--key", str(keys / "two.key"), name, check=False, env={"AEROGEL_KEY_PASSWORD": "guess"})
    assert "cannot be opened with this password" in guessed.stderr
    assert "guess" not in guessed.stderr.replace("guessed", "")
    aerogel("sign", "--key", str(keys / "two.key"), name, env={"COSIGN_PASSWORD": "open-sesame"})
    for key in ("one.pub", "two.pub"):
        assert aerogel.json("verify", "--key", str(keys / key), name)["forms"] == ["bundle", "tag"]


def test_openssl_agrees(aerogel: Aerogel, registry: Server, keys: Path, tmp_path: Path) -> None:
    """Both forms, taken apart by hand: what cosign's and DSSE's specifications say is signed."""
    name = f"{registry.host}/team/forms:1"
    digest = pushed(aerogel, name, tmp_path)
    aerogel("sign", "--key", str(keys / "one.key"), name)
    documents = layout_of(aerogel, name, tmp_path / "layout")
    (bundle,) = [each for each in documents.values() if "dsseEnvelope" in each]
    (artifact,) = [each for each in documents.values() if "subject" in each and "layers" in each]
    assert artifact["subject"]["digest"] == digest
    assert artifact["artifactType"] == bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert artifact["annotations"]["dev.sigstore.bundle.predicateType"] == PREDICATE
    envelope = bundle["dsseEnvelope"]
    body = base64.b64decode(envelope["payload"])
    statement = json.loads(body)
    subject = {"name": name.removesuffix(":1"), "digest": {"sha256": digest.removeprefix("sha256:")}}
    assert statement["subject"] == [subject]
    kind = envelope["payloadType"]
    data = f"DSSEv1 {len(kind)} {kind} {len(body)} ".encode() + body
    tagged = f"{registry.host}/team/forms:{digest.replace(':', '-')}.sig"
    documents = layout_of(aerogel, tagged, tmp_path / "tagged")
    (manifest,) = [each for each in documents.values() if "layers" in each and "subject" not in each]
    (layer,) = manifest["layers"]
    assert documents[layer["digest"]]["critical"]["image"]["docker-manifest-digest"] == digest
    payload = (tmp_path / "tagged" / "blobs" / layer["digest"].replace(":", "/")).read_bytes()
    second = layer["annotations"]["dev.cosignproject.cosign/signature"]
    for signature, content in ((envelope["signatures"][0]["sig"], data), (second, payload)):
        (tmp_path / "signature").write_bytes(base64.b64decode(signature))
        (tmp_path / "data").write_bytes(content)
        words = ("dgst", "-sha256", "-verify", str(keys / "one.pub"), "-signature", "signature", "data")
        assert openssl(*words, cwd=tmp_path) == "Verified OK\n"


def test_signatures_of_another_image_say_nothing(
    aerogel: Aerogel, registry: Server, keys: Path, tmp_path: Path
) -> None:
    """The signature of one image put under the tag of another."""
    good, evil = f"{registry.host}/team/swap:good", f"{registry.host}/team/swap:evil"
    first, second = pushed(aerogel, good, tmp_path), pushed(aerogel, evil, tmp_path, "two")
    aerogel("sign", "--key", str(keys / "one.key"), good)
    tags = [f"{registry.host}/team/swap:{digest.replace(':', '-')}.sig" for digest in (first, second)]
    aerogel("copy", f"docker://{tags[0]}", f"docker://{tags[1]}")
    told = aerogel("verify", "--key", str(keys / "one.pub"), evil, check=False)
    assert (told.returncode, "1 of others or of other images" in told.stderr) == (1, True), told.stderr
    # A copy takes the signatures along.
    aerogel("copy", f"docker://{good}", f"docker://{registry.host}/mirror/swap:good")
    found = aerogel.json("verify", "--key", str(keys / "one.pub"), f"{registry.host}/mirror/swap:good")
    assert found["forms"] == ["bundle", "tag"]


def test_keys_that_cannot_be(aerogel: Aerogel, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "cosign.key").write_text(
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJrZGYi\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
    )
    (tmp_path / "text").write_text("no key")
    for key, told in (
        (keys / "other.key", "is none of the kinds ECDSA on P-256 or P-384, Ed25519 and RSA"),
        (keys / "one.pub", "is no private key in PEM"),
        (tmp_path / "cosign.key", "has the name of a key of cosign, and is damaged"),
        (tmp_path / "text", "is no private key in PEM"),
        (tmp_path / "absent", "absent"),
    ):
        done = aerogel("sign", "--key", str(key), "127.0.0.1:1/x", check=False)
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert "name one with `--key FILE`" in aerogel("sign", "x", check=False).stderr
    assert "name the public key" in aerogel("verify", "x", check=False).stderr
