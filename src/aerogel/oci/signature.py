"""Signatures of images in cosign's two forms: bundles that refer to the image, and manifests under a tag.

What is signed is the digest of a manifest. Spec: sigstore bundle v0.3, DSSE v1, in-toto Statement v1; cosign
`specs/SIGNATURE_SPEC.md`.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from aerogel.oci.attestation import BUNDLE, bundle_of, envelope_in, is_about, opened, statement_of, subject_names
from aerogel.oci.digest import Digest
from aerogel.oci.keys import PublicKey, SigningKey

__all__ = [
    "BUNDLE",
    "SIGNATURE",
    "SIGNED",
    "SIMPLE",
    "bundle",
    "bundle_names",
    "payload",
    "payload_is_right",
    "payload_name",
    "signature_tag",
]

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
"""Media type of the payload under a tag."""
SIGNATURE = "dev.cosignproject.cosign/signature"
"""Annotation of such a payload: the signature in Base64."""
SIGNED = "https://sigstore.dev/cosign/sign/v1"
"""What a statement says that is nothing but a signature."""

_KIND = "cosign container image signature"


def signature_tag(digest: Digest) -> str:
    """The tag of the signatures of a manifest."""
    return f"{digest.replace(':', '-')}.sig"


def bundle(digest: Digest, name: str, key: SigningKey) -> bytes:
    """A bundle that signs a manifest of the repository `name`."""
    return bundle_of(statement_of(digest, name, SIGNED, {}), key)


def bundle_names(data: bytes, digest: Digest, key: PublicKey) -> tuple[str, ...] | None:
    """What a bundle that is a signature of the manifest by the key calls the image, that of cosign 3 nothing; None when
    it is none. What it says is looked at after the signature.
    """
    found = opened(envelope_in(data), key)
    if found is None or found.get("predicateType") != SIGNED or not is_about(found, digest):
        return None
    return subject_names(found, digest)


def payload(digest: Digest, name: str) -> bytes:
    """What is signed under a tag, for a manifest of the repository `name`."""
    return _json({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": _KIND,
        },
        "optional": None,
    })  # fmt: skip


def payload_is_right(data: bytes, signature: str, digest: Digest, key: PublicKey) -> bool:
    """Whether a payload names the manifest and is signed by the key."""
    try:
        if not key.verifies(base64.b64decode(signature, validate=True), data):
            return False
        critical = json.loads(data)["critical"]
        return bool(critical["image"]["docker-manifest-digest"] == digest and critical["type"] == _KIND)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        return False


def payload_name(data: bytes) -> str:
    """The name of the image that a payload was signed for."""
    identity = json.loads(data)["critical"].get("identity")
    return str(identity.get("docker-reference", "")) if isinstance(identity, dict) else ""


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
