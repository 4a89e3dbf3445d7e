"""Signed statements about an image, as cosign makes them: bundles that refer to it, and DSSE envelopes under a tag.

Spec: in-toto Attestation Framework v1 (Statement), DSSE v1, sigstore bundle v0.3; cosign
`specs/ATTESTATION_SPEC.md`, `specs/COSIGN_PREDICATE_SPEC.md`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.oci.artifact import IN_TOTO
from aerogel.oci.digest import Digest
from aerogel.oci.keys import PublicKey, SigningKey

__all__ = [
    "BUNDLE",
    "ENVELOPE",
    "PREDICATE_NOTE",
    "TYPES",
    "attestation_tag",
    "bundle_of",
    "envelope",
    "envelope_in",
    "is_about",
    "opened",
    "predicate_type",
    "statement_of",
    "subject_names",
    "wrapped",
]

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""Media type of a bundle, and artifact type of what holds one."""
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
"""Media type of an envelope under a tag."""
PREDICATE_NOTE = "predicateType"
"""Annotation of such an envelope."""
TYPES = {
    "custom": "https://cosign.sigstore.dev/attestation/v1",
    "slsaprovenance": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance02": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance1": "https://slsa.dev/provenance/v1",
    "spdx": "https://spdx.dev/Document",
    "spdxjson": "https://spdx.dev/Document",
    "cyclonedx": "https://cyclonedx.org/bom",
    "link": "https://in-toto.io/Link/v1",
    "vuln": "https://cosign.sigstore.dev/attestation/vuln/v1",
    "openvex": "https://openvex.dev/ns",
}
"""cosign's words for types of predicates."""

_STATEMENT = "https://in-toto.io/Statement/v1"
_STATEMENTS = (_STATEMENT, "https://in-toto.io/Statement/v0.1")


def predicate_type(word: str) -> str:
    """The URI of a type, from cosign's word or a URI. Raises `attest.type`."""
    if word in TYPES:
        return TYPES[word]
    if "://" in word:
        return word
    guess = nearest(word, TYPES)
    known = ", ".join(f"`{one}`" for one in TYPES)
    raise AerogelError(
        f"`{word}` is no type of attestation",
        code="attest.type",
        exit_status=EXIT_USAGE,
        hints=[f"did you mean `{guess}`?" if guess else f"known are {known}, or a URI"],
    )


def attestation_tag(digest: Digest) -> str:
    """The tag of the attestations of a manifest."""
    return f"{digest.replace(':', '-')}.att"


def wrapped(text: str, when: str) -> dict[str, Any]:
    """What cosign makes of a predicate of type `custom`. `when` is RFC 3339."""
    return {"Data": text, "Timestamp": when}


def statement_of(digest: Digest, name: str, kind: str, predicate: Mapping[str, Any]) -> bytes:
    """A statement about a manifest of the repository `name`."""
    algorithm, _, encoded = digest.partition(":")
    return _json({
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {algorithm: encoded}}],
        "predicateType": kind,
        "predicate": predicate,
    })  # fmt: skip


def envelope(statement: bytes, key: SigningKey) -> dict[str, Any]:
    """A signed statement."""
    return {
        "payloadType": IN_TOTO,
        "payload": _base64(statement),
        "signatures": [{"sig": _base64(key.sign(_framed(statement)))}],
    }


def bundle_of(statement: bytes, key: SigningKey) -> bytes:
    """A bundle with a signed statement."""
    return _json({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.public.hint()}},
        "dsseEnvelope": envelope(statement, key),
    })  # fmt: skip


def envelope_in(data: bytes) -> Any:
    """The envelope of a bundle, or the envelope itself; None for anything else."""
    try:
        found = json.loads(data)
        return found.get("dsseEnvelope", found)
    except (ValueError, AttributeError, RecursionError):
        return None


def opened(signed: Any, key: PublicKey) -> dict[str, Any] | None:
    """The statement of an envelope that the key has signed; None when it has not, or when it is no statement."""
    try:
        statement = base64.b64decode(signed["payload"], validate=True)
        signatures = [base64.b64decode(each["sig"], validate=True) for each in signed["signatures"]]
        kind = signed["payloadType"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None
    if kind != IN_TOTO or not any(key.verifies(each, _framed(statement)) for each in signatures):
        return None
    try:
        found = json.loads(statement)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("_type") in _STATEMENTS else None


def is_about(statement: Mapping[str, Any], digest: Digest) -> bool:
    """Whether a manifest is among the subjects."""
    algorithm, _, encoded = digest.partition(":")
    try:
        return any(subject["digest"].get(algorithm) == encoded for subject in statement["subject"])
    except (KeyError, TypeError, AttributeError):
        return False


def subject_names(statement: Mapping[str, Any], digest: Digest) -> tuple[str, ...]:
    """What the statement, which is about the manifest, calls it; nothing when it tells no name."""
    algorithm, _, encoded = digest.partition(":")
    found = []
    for subject in statement["subject"]:
        if isinstance(subject, dict) and isinstance(subject.get("digest"), dict) and subject.get("name"):
            found += [str(subject["name"])] if subject["digest"].get(algorithm) == encoded else []
    return tuple(found)


def _framed(statement: bytes) -> bytes:
    """What a DSSE signature covers: type and body with their lengths."""
    kind = IN_TOTO.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
