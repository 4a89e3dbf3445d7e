"""Keys for signatures of images: ECDSA on P-256 with SHA-256, in PEM, as cosign and openssl use them.

No file is read here. Spec: FIPS 186-5; RFC 5958 (PKCS #8), RFC 5280 (SubjectPublicKeyInfo).
"""

from __future__ import annotations

import base64
from hashlib import sha256

from aerogel.errors import AerogelError

__all__ = ["PublicKey", "SigningKey"]

_COSIGN = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")


class PublicKey:
    """A key that checks. Raises `sign.key` for what is none."""

    def __init__(self, pem: bytes, what: str) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise _bad(what, "is no public key in PEM") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise _bad(what, "is no key of the curve P-256")
        self._key = key

    def hint(self) -> str:
        """How bundles name the key: Base64 of the SHA-256 of its SubjectPublicKeyInfo."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        der = self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(sha256(der).digest()).decode()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature (DER) is one of the data by this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            self._key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A key that signs. Raises `sign.key`, `sign.password`."""

    def __init__(self, pem: bytes, password: str, what: str) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_private_key,
        )

        if any(mark in pem for mark in _COSIGN):
            raise _bad(what, "is a key in cosign's own encryption, which is not read here")
        is_locked = b"ENCRYPTED" in pem
        if is_locked and not password:
            raise _password(f"`{what}` is encrypted, and there is no password")
        try:
            key = load_pem_private_key(pem, password.encode() if is_locked else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            if is_locked:
                raise _password(f"`{what}` cannot be opened with this password") from None
            raise _bad(what, "is no private key in PEM") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise _bad(what, "is no key of the curve P-256")
        self._key = key
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public = PublicKey(public, what)

    def sign(self, data: bytes) -> bytes:
        """A signature, DER."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


def _bad(what: str, why: str) -> AerogelError:
    return AerogelError(
        f"`{what}` {why}",
        code="sign.key",
        hints=["make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out sign.key`"],
    )


def _password(message: str) -> AerogelError:
    return AerogelError(message, code="sign.password", hints=["give it in the variable `AEROGEL_KEY_PASSWORD`"])
