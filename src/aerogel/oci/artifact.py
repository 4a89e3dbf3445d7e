"""Artifacts that belong to an image: manifests with a `subject`, and the fall-back list of registries without an API.

Spec: OCI image-spec v1.1 manifest.md#guidelines-for-artifact-usage; distribution-spec v1.1 "Referrers Tag Schema".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.image import WritableBlobs
from aerogel.oci.types import (
    EMPTY_JSON,
    INDEX_TYPES,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    decode,
    encode,
)

__all__ = ["IN_TOTO", "PREDICATE_TYPE", "create_artifact", "fallback_tag", "with_referrer"]

IN_TOTO = "application/vnd.in-toto+json"
"""Media type of an in-toto statement, and the artifact type of what holds one."""

PREDICATE_TYPE = "in-toto.io/predicate-type"
"""Annotation that says what a statement is about, as BuildKit writes it."""


def create_artifact(
    artifact_type: str,
    layers: Sequence[Descriptor],
    subject: Descriptor,
    blobs: WritableBlobs,
    annotations: Mapping[str, str],
) -> Descriptor:
    """Puts an artifact manifest about `subject` in `blobs`, where the layers are already.

    The descriptor is as a list of referrers has it: with the artifact's type and annotations.
    """
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        artifact_type=artifact_type,
        config=blobs.put(EMPTY_JSON, OCI_EMPTY),
        layers=tuple(layers),
        subject=Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size),
        annotations=dict(annotations),
    )
    placed = blobs.put(encode(manifest), OCI_MANIFEST)
    return Descriptor(
        media_type=OCI_MANIFEST,
        digest=placed.digest,
        size=placed.size,
        artifact_type=artifact_type,
        annotations=dict(annotations),
    )


def fallback_tag(subject: Digest) -> str:
    """The tag under which the referrers of an image are listed where the registry has no API for it."""
    return subject.replace(":", "-")


def with_referrer(data: bytes | None, referrer: Descriptor) -> Index | None:
    """The list of referrers with one more; None when it has it already.

    `data` is what the registry has under the fall-back tag. What is no index there is not taken for one: some
    registries give the subject itself.
    """
    known: tuple[Descriptor, ...] = ()
    if data is not None:
        try:
            index = decode(data, Index, what="the list of referrers")
        except AerogelError:
            index = None
        if index is not None and (not index.media_type or index.media_type in INDEX_TYPES) and index.subject is None:
            known = index.manifests
    if any(each.digest == referrer.digest for each in known):
        return None
    return Index(schema_version=2, media_type=OCI_INDEX, manifests=(*known, referrer))
