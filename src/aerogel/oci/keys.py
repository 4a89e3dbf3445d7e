"""Keys for signatures of images, in PEM, as cosign and openssl use them. No file is read here.

ECDSA on P-256 with SHA-256 and on P-384 with SHA-384 or SHA-256, Ed25519, and RSA (PKCS #1 v1.5, SHA-256). Spec: FIPS 186-5; RFC 8017, RFC 8032; RFC 5958 (PKCS #8), RFC 5280 (SubjectPublicKeyInfo).
"""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from aerogel.errors import AerogelError
from aerogel.oci.locked import PASSWORD_HINT, is_locked_by_cosign, lock, unlock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    _Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
    _Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

__all__ = ["KeyKind", "PublicKey", "SigningKey", "generate"]

KeyKind = Literal["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-3072"]

_LEAST_RSA = 2048


class PublicKey:
    """A key that checks. Raises `sign.key` for what is none."""

    def __init__(self, pem: bytes, what: str) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise _bad(what, "is no public key in PEM") from None
        self._key = _usable(key, what)

    def hint(self) -> str:
        """How bundles name the key: Base64 of the SHA-256 of its SubjectPublicKeyInfo."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        der = self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(sha256(der).digest()).decode()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature (DER, for ECDSA) is one of the data by this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

        hash_kinds: list[hashes.HashAlgorithm] = [hashes.SHA256()]
        if isinstance(self._key, ec.EllipticCurvePublicKey) and isinstance(self._key.curve, ec.SECP384R1):
            hash_kinds.append(hashes.SHA384())
        for kind in hash_kinds:
            try:
                if isinstance(self._key, ec.EllipticCurvePublicKey):
                    self._key.verify(signature, data, ec.ECDSA(kind))
                elif isinstance(self._key, ed25519.Ed25519PublicKey):
                    self._key.verify(signature, data)
                else:
                    self._key.verify(signature, data, padding.PKCS1v15(), kind)
            except InvalidSignature:
                continue
            return True
        return False


class SigningKey:
    """A key that signs. Raises `sign.key`, `sign.password`."""

    def __init__(self, pem: bytes, password: str, what: str) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._key = _private(pem, password, what)
        public = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public = PublicKey(public, what)

    def sign(self, data: bytes) -> bytes:
        """A signature; DER for ECDSA. SHA-256 with P-384 too: cosign 2.5 and 3.1 take nothing else of a key."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(data, ec.ECDSA(hashes.SHA256()))
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def generate(kind: KeyKind, password: str) -> tuple[bytes, bytes]:
    """A new pair: the private key as cosign locks it (also with an empty password), and the public one, both PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key: _Private
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    elif kind == "rsa-3072":
        key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    else:
        key = ec.generate_private_key(ec.SECP384R1() if kind == "ecdsa-p384" else ec.SECP256R1())
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return lock(der, password), public


def _private(pem: bytes, password: str, what: str) -> _Private:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    is_cosigns = is_locked_by_cosign(pem)
    is_locked = not is_cosigns and b"ENCRYPTED" in pem
    if is_locked and not password:
        raise _password(f"`{what}` is encrypted, and there is no password")
    try:
        if is_cosigns:
            key = load_der_private_key(unlock(pem, password, what), None)
        else:
            key = load_pem_private_key(pem, password.encode() if is_locked else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if is_locked:
            raise _password(f"`{what}` cannot be opened with this password") from None
        raise _bad(what, "is no private key in PEM") from None
    _usable(key.public_key() if hasattr(key, "public_key") else None, what)
    assert isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey)
    return key


def _usable(key: object, what: str) -> _Public:
    """Raises `sign.key` for a kind that nobody verifies."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _LEAST_RSA:
            raise _bad(what, f"is an RSA key of {key.key_size} bits, and less than {_LEAST_RSA} are not safe")
        return key
    raise _bad(what, "is none of the kinds ECDSA on P-256 or P-384, Ed25519 and RSA")


def _bad(what: str, why: str) -> AerogelError:
    return AerogelError(f"`{what}` {why}", code="sign.key", hints=["make a pair with `aerogel key generate`"])


def _password(message: str) -> AerogelError:
    return AerogelError(message, code="sign.password", hints=[PASSWORD_HINT])
