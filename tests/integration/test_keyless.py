"""Signatures without keys, checked offline by the sigstore library against a Sigstore of our own.

Debian packages: docker-registry, openssl.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path

import pytest
from own_sigstore import OwnSigstore
from process import Aerogel
from real_registry import Server
from tls_front import with_tls

pytestmark = pytest.mark.host("docker-registry", "openssl")

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
SIGNED = "https://sigstore.dev/cosign/sign/v1"
WHO = ("--certificate-identity", "dev@team.example", "--certificate-oidc-issuer", "https://accounts.example")


def send(url: str, data: bytes, media_type: str, method: str = "PUT") -> str:
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": media_type})
    with urllib.request.urlopen(request) as answer:
        return str(answer.headers.get("Location", ""))


def put(host: str, repository: str, subject: str, size: int, bundles: list[bytes]) -> None:
    """Bundles that refer to an image, listed under the tag of registries without the API, as cosign puts them."""
    root = f"http://{host}/v2/{repository}"

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        place = send(f"{root}/blobs/uploads/", b"", kind, "POST")
        send(f"{place}&digest={digest}", data, "application/octet-stream")
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    listed = []
    for data in bundles:
        manifest = json.dumps({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": BUNDLE,
            "config": blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [blob(data, BUNDLE)],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": size},
        }).encode()  # fmt: skip
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        send(f"{root}/manifests/{digest}", manifest, MANIFEST)
        listed.append({"mediaType": MANIFEST, "digest": digest, "size": len(manifest), "artifactType": BUNDLE})
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    send(f"{root}/manifests/{subject.replace(':', '-')}", index, INDEX)


def statement(digest: str, kind: str = SIGNED, **predicate: object) -> bytes:
    subject = {"name": "", "digest": {"sha256": digest.removeprefix("sha256:")}}
    said = {"_type": "https://in-toto.io/Statement/v1", "subject": [subject], "predicateType": kind}
    return json.dumps({**said, "predicate": predicate}).encode()


def test_bundles_with_certificates(registry: Server, tmp_path: Path) -> None:
    aerogel, ours, foreign = Aerogel(tmp_path / "state"), OwnSigstore(), OwnSigstore()
    (tmp_path / "root.json").write_bytes(ours.trusted_root())
    (tmp_path / "foreign.json").write_bytes(foreign.trusted_root())
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    made = aerogel.json("build", "--push", "-t", f"{registry.host}/team/free:1", str(tmp_path))["descriptor"]
    digest, size = made["digest"], made["size"]
    who, issuer = WHO[1], WHO[3]
    spdx = statement(digest, "https://spdx.dev/Document", spdxVersion="SPDX-2.3")
    bundles = [ours.bundle(statement(digest), who, issuer), ours.bundle(spdx, who, issuer)]
    put(registry.host, "team/free", digest, size, bundles)
    trust = ("--trusted-root", f"{tmp_path}/root.json")
    name = f"{registry.host}/team/free:1"
    found = aerogel.json("verify", *WHO, *trust, name)
    assert (found["digest"], found["forms"]) == (digest, ["bundle"])
    said = aerogel.json("verify", *WHO, *trust, "--type", "spdx", name)
    assert said["predicates"] == [{"spdxVersion": "SPDX-2.3"}]
    for words in (
        ("--certificate-identity", "eve@team.example", *WHO[2:], *trust),
        (*WHO[:3], "https://evil.example", *trust),
        (*WHO, "--trusted-root", f"{tmp_path}/foreign.json"),
        (*WHO, *trust, "--type", "vuln"),
    ):
        done = aerogel("verify", *words, name, check=False)
        assert (done.returncode, "2 of others or of other images" in done.stderr) == (1, True), done.stderr
    changed = bundles[0].replace(b'"sig": "ME', b'"sig": "MF')
    other = ours.bundle(statement("sha256:" + "0" * 64), who, issuer)
    late = json.loads(bundles[0])
    late["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = 10**30
    wrong = [changed, other, b"{}", json.dumps(late).encode()]
    put(registry.host, "team/free", digest, size, wrong)
    done = aerogel("verify", *WHO, *trust, name, check=False)
    assert (done.returncode, "4 of others or of other images" in done.stderr) == (1, True), done.stderr
    # They do not keep anybody from finding the right one.
    put(registry.host, "team/free", digest, size, [*wrong, bundles[0]])
    aerogel("verify", *WHO, *trust, name)


def test_signing_and_a_policy(registry: Server, tmp_path: Path) -> None:
    aerogel, ours = Aerogel(tmp_path / "state"), OwnSigstore()
    who, issuer = WHO[1], WHO[3]
    token = ours.token(who, issuer)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL c=d\n")
    (tmp_path / "root.json").write_bytes(ours.trusted_root())
    (tmp_path / "token").write_text(f"{token}\n")
    name, other = f"{registry.host}/team/certified:1", f"{registry.host}/team/bare:1"
    for each in (name, other):
        aerogel("build", "--push", "-q", "-t", each, str(tmp_path))
    trust = ("--trusted-root", f"{tmp_path}/root.json")
    with ours.serve() as url:
        (tmp_path / "services.json").write_bytes(ours.signing_config(url))
        asked = ("--keyless", *trust, "--signing-config", f"{tmp_path}/services.json")
        done = aerogel("sign", *asked, "--identity-token", f"{tmp_path}/token", name, "--json")
        assert token not in done.stdout + done.stderr
        [made] = json.loads(done.stdout)["made"]
        with with_tls(int(url.rpartition(":")[2]), tmp_path) as (secured, certificate):
            # The same, with TLS of an authority of one's own.
            (tmp_path / "secured.json").write_bytes(ours.signing_config(secured))
            words = ("sign", "--keyless", *trust, "--signing-config", f"{tmp_path}/secured.json")
            words += ("--identity-token", token)
            refused = aerogel(*words, other, check=False)
            assert (refused.returncode, "CERTIFICATE_VERIFY_FAILED" in refused.stderr) == (4, True), refused.stderr
            aerogel(*words, name, env={"AEROGEL_CA": str(certificate)})
        (tmp_path / "said").write_text('{"spdxVersion": "SPDX-2.3"}')
        attested = ("attest", *asked, "--type=spdx", "--predicate", f"{tmp_path}/said", name)
        aerogel(*attested, env={**aerogel.env, "SIGSTORE_ID_TOKEN": token})
        # What cannot be.
        for words, told in (
            ((), "there is no identity to sign with, and no terminal"),
            (("--identity-token", "a.b.c"), "the identity token cannot be used"),
            (("--identity-token", ours.token(who, issuer, -100)), "the identity token cannot be used"),
            (("--identity-token", f"{tmp_path}/gone"), "no such file"),
            (("--key", f"{tmp_path}/x.key"), "a key and `--keyless` cannot both be"),
        ):
            failed = aerogel("sign", *asked, *words, other, check=False)
            assert (failed.returncode != 0, told in failed.stderr) == (True, True), failed.stderr
        failed = aerogel("sign", "--keyless", *trust, other, check=False)
        assert "needs both its trusted root and its signing configuration" in failed.stderr
        # A log or authority that others trust is found out before anything is put into the registry.
        (tmp_path / "foreign.json").write_bytes(OwnSigstore().trusted_root())
        foreign = ("--trusted-root", f"{tmp_path}/foreign.json", "--identity-token", token)
        failed = aerogel("sign", *asked, *foreign, other, check=False)
        assert (failed.returncode, "gave no signature" in failed.stderr) == (4, True), failed.stderr
    failed = aerogel("sign", *asked, "--identity-token", token, other, check=False)
    assert (failed.returncode, "gave no signature" in failed.stderr) == (4, True), failed.stderr
    assert token not in failed.stderr
    # Anybody can check it, without authority and log.
    found = aerogel.json("verify", *WHO, *trust, name)
    assert found["forms"] == ["bundle"]
    assert made.startswith("sha256:")
    assert aerogel.json("verify", *WHO, *trust, "--type=spdx", name)["predicates"] == [{"spdxVersion": "SPDX-2.3"}]
    project = tmp_path / "project"
    project.mkdir()
    here = {"cwd": project}

    def rule(identity: str, root: str = "../root.json") -> None:
        said = f'{{ identity = "{identity}", issuer = "{issuer}", trusted-root = "{root}" }}'
        (project / "aerogel.toml").write_text(f'[signatures]\n"{registry.host}/team" = {said}\n')

    rule(who)
    aerogel("pull", "-q", name, **here)
    assert f"has no signature by `{who}`" in aerogel("pull", other, check=False, **here).stderr
    rule("eve@team.example")
    assert "are of others" in aerogel("pull", name, check=False, **here).stderr
    rule(who, "../foreign.json")
    assert "are of others" in aerogel("pull", name, check=False, **here).stderr
    rule(who, "gone.json")
    assert "is not there" in aerogel("pull", name, check=False, **here).stderr
    rule("")
    assert "names no key" in aerogel("pull", name, check=False, **here).stderr


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    (tmp_path / "root.json").write_text("{}")
    for words, told in (
        (WHO[:2], "there is no key to check with"),
        ((*WHO, "--key", "x.pub"), "cannot both be asked for"),
    ):
        assert told in aerogel("verify", *words, "127.0.0.1:1/x", check=False).stderr
