"""Signatures that cosign 2.5.0 (Debian 13) made with a key of its own, and changes of them that must not pass."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from aerogel.oci.digest import Digest
from aerogel.oci.keys import PublicKey
from aerogel.oci.signature import bundle_names, payload_is_right, payload_name, signature_tag

PUBLIC = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtKDmwL/7h/7tuAlv+RARClYM+P4Q
px6v4f3L8soG2J0pwBRTCvt1lyINka1Vosy90cQl8t08Xx72UTpMHUFhcg==
-----END PUBLIC KEY-----
"""
OTHER = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
"""
"""The generator of the curve: a point that nobody signs with."""

SIGNED = Digest("sha256:c8aa62213456154dee1344ddfa94f59498e92ac1bc465f5439cd6925d87971f8")
PAYLOAD = (
    b'{"critical":{"identity":{"docker-reference":"127.0.0.1:35073/team/theirs"},'
    b'"image":{"docker-manifest-digest":"sha256:c8aa62213456154dee1344ddfa94f59498e92ac1bc465f5439cd6925d87971f8"},'
    b'"type":"cosign container image signature"},"optional":null}'
)
SIGNATURE = "MEUCIQDS09kyXx4QsBKRf8Swa4I6PyUTVfIwKwCv9mi7dToINQIgcTtL6dCu46tU8zTPzfKNm4Da1YcgYhOj0FTY4o1b3QY="

ATTESTED = Digest("sha256:a281dff5858f58631eddded7db913e0759a55a0d259420af14a92c8e596e326b")
STATEMENT = (
    b'{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://sigstore.dev/cosign/sign/v1",'
    b'"subject":[{"name":"127.0.0.1:35073/team/new","digest":{"sha256":'
    b'"a281dff5858f58631eddded7db913e0759a55a0d259420af14a92c8e596e326b"}}],"predicate":{}}'
)
SECOND = "MEYCIQD1+goDxqlSpwqHDEmwpz4AH+Dt3NVeAtvyzEqW4tOghQIhAPsNTtaHYRv/K1PM0X8A4FZcnGiqROqO35tf9jcTHRjH"


def key(pem: bytes = PUBLIC) -> PublicKey:
    return PublicKey(pem, "a key")


def bundle(**changes: Any) -> bytes:
    envelope = {
        "payload": base64.b64encode(STATEMENT).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": SECOND}],
        **changes,
    }
    return json.dumps({"dsseEnvelope": envelope}).encode()


def test_the_tag():
    assert signature_tag(SIGNED) == f"sha256-{SIGNED.removeprefix('sha256:')}.sig"
    assert key().hint() == "IBZX37tVIXxuTB3Nii8QxlNGJpjHShWUlU+ydbBm9LA=", "as cosign wrote it into its bundle"


def test_a_payload_of_cosign():
    assert payload_is_right(PAYLOAD, SIGNATURE, SIGNED, key())
    assert not payload_is_right(PAYLOAD, SIGNATURE, ATTESTED, key()), "of another image"
    assert not payload_is_right(PAYLOAD.replace(b"team/theirs", b"team/others"), SIGNATURE, SIGNED, key())
    assert not payload_is_right(PAYLOAD, SECOND, SIGNED, key())
    for signature in ("", "AAAA", "not base64!", SIGNATURE[:-8]):
        assert not payload_is_right(PAYLOAD, signature, SIGNED, key())


def test_a_bundle_of_cosign():
    assert bundle_names(bundle(), ATTESTED, key()) == ("127.0.0.1:35073/team/new",)
    assert bundle_names(bundle(), SIGNED, key()) is None, "of another image"
    assert bundle_names(bundle(signatures=[{"sig": SIGNATURE}, {"sig": SECOND}]), ATTESTED, key()) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"signatures": []},
        {"signatures": [{"sig": SIGNATURE}]},
        {"signatures": [{"sig": "AAAA"}]},
        {"signatures": [{}]},
        {"signatures": None},
        {"payloadType": "text/plain"},
        {"payload": base64.b64encode(STATEMENT.replace(b"v0.1", b"v1")).decode()},
        {"payload": base64.b64encode(STATEMENT + b" ").decode()},
        {"payload": "?"},
        {"payload": 5},
    ],
)
def test_bundles_that_are_not_right(changes: dict[str, Any]):
    assert bundle_names(bundle(**changes), ATTESTED, key()) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"dsseEnvelope": []}', b"[" * 100_000, b"\xff"])
def test_what_is_no_bundle(data: bytes):
    assert bundle_names(data, ATTESTED, key()) is None


def test_another_key():
    assert not payload_is_right(PAYLOAD, SIGNATURE, SIGNED, key(OTHER))
    assert bundle_names(bundle(), ATTESTED, key(OTHER)) is None


def test_names_in_payloads() -> None:
    """A payload that is signed rightly may still say anything about the name."""
    assert payload_name(b'{"critical": {"identity": {"docker-reference": "a.example/app"}}}') == "a.example/app"
    for identity in (b"null", b'"text"', b"[]", b"{}"):
        assert payload_name(b'{"critical": {"identity": %b}}' % identity) == ""
