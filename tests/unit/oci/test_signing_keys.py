"""Keys of every kind: pairs that are made, locked as cosign locks them, and files that are no keys."""

from __future__ import annotations

import base64
import json

import pytest

from aerogel.errors import AerogelError
from aerogel.oci.attestation import bundle_of, envelope_in, is_about, opened, predicate_type, statement_of
from aerogel.oci.digest import Digest
from aerogel.oci.keys import KeyKind, PublicKey, SigningKey, generate

KINDS: tuple[KeyKind, ...] = ("ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-3072")
DIGEST = Digest("sha256:" + "a" * 64)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_signs_and_checks(kind: KeyKind) -> None:
    private, public = generate(kind, "open sesame")
    assert private.startswith(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    key, checking = SigningKey(private, "open sesame", "it"), PublicKey(public, "it")
    assert key.public.hint() == checking.hint()
    other = PublicKey(generate(kind, "")[1], "other")
    signature = key.sign(b"text")
    assert checking.verifies(signature, b"text")
    assert not checking.verifies(signature, b"Text")
    assert not checking.verifies(signature[:-1], b"text")
    assert not other.verifies(signature, b"text")


def test_sha384_with_p384_is_taken_too() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = ec.generate_private_key(ec.SECP384R1())
    checking = PublicKey(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "it")
    for kind in (hashes.SHA256(), hashes.SHA384()):
        assert checking.verifies(key.sign(b"text", ec.ECDSA(kind)), b"text")
    assert not checking.verifies(key.sign(b"text", ec.ECDSA(hashes.SHA512())), b"text")


@pytest.mark.parametrize("kind", KINDS)
def test_a_statement_is_of_its_image_and_its_key(kind: KeyKind) -> None:
    private, public = generate(kind, "")
    key = SigningKey(private, "", "it")
    data = bundle_of(statement_of(DIGEST, "a.example/b", predicate_type("vuln"), {"x": "\u00e9"}), key)
    found = opened(envelope_in(data), PublicKey(public, "it"))
    assert found is not None
    assert found["predicate"] == {"x": "\u00e9"}
    assert found["predicateType"] == "https://cosign.sigstore.dev/attestation/vuln/v1"
    assert is_about(found, DIGEST)
    assert not is_about(found, Digest("sha256:" + "b" * 64))
    assert opened(envelope_in(data), PublicKey(generate(kind, "")[1], "other")) is None
    changed = json.loads(data)
    said = base64.b64decode(changed["dsseEnvelope"]["payload"]).replace(b"aaaa", b"bbbb")
    changed["dsseEnvelope"]["payload"] = base64.b64encode(said).decode()
    assert opened(envelope_in(json.dumps(changed).encode()), PublicKey(public, "it")) is None


def test_passwords() -> None:
    private, _ = generate("ecdsa-p256", "right")
    for password, told in (("wrong", "cannot be opened with this password"), ("", "there is no password")):
        with pytest.raises(AerogelError, match=told) as caught:
            SigningKey(private, password, "a.key")
        assert caught.value.code == "sign.password"


def box(**changes: object) -> bytes:
    content = {
        "kdf": {"name": "scrypt", "params": {"N": 65536, "r": 8, "p": 1}, "salt": "AAAA"},
        "cipher": {"name": "nacl/secretbox", "nonce": "AAAA"},
        "ciphertext": "AAAA",
    }
    for name, value in changes.items():
        place: dict[str, object] = content  # type: ignore[assignment] # the form is that of the file
        *path, last = name.split("__")
        for one in path:
            place = place[one]  # type: ignore[assignment] # as above
        place[last] = value
    text = base64.b64encode(json.dumps(content).encode())
    return b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n" + text + b"\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        (box(kdf__params__N=1 << 30), "locked in a way that cosign does not use"),
        (box(kdf__params__r=1 << 20), "locked in a way that cosign does not use"),
        (box(kdf__params__N="many"), "is damaged"),
        (box(cipher__name="rot13"), "locked in a way that cosign does not use"),
        (box(ciphertext=5), "is damaged"),
        (box(kdf=[]), "is damaged"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n[]", "is damaged"),
        (b"nothing", "is no private key in PEM"),
    ],
)
def test_files_that_are_no_keys(pem: bytes, told: str) -> None:
    with pytest.raises(AerogelError, match=told) as caught:
        SigningKey(pem, "x", "a.key")
    assert caught.value.code == "sign.key"


def test_short_keys_of_rsa_are_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(AerogelError, match="1024 bits"):
        PublicKey(pem, "short.pub")


def test_types_of_attestations() -> None:
    assert predicate_type("slsaprovenance") == "https://slsa.dev/provenance/v0.2"
    assert predicate_type("https://an.example/type") == "https://an.example/type"
    with pytest.raises(AerogelError) as caught:
        predicate_type("spdxx")
    assert caught.value.hints == ("did you mean `spdx`?",)
