"""Signatures of images in registries: put there, found there. Nothing is asked of any other service."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.oci.artifact import PREDICATE_TYPE, create_artifact
from aerogel.oci.digest import Digest
from aerogel.oci.image import MemoryBlobs
from aerogel.oci.keys import PublicKey, SigningKey
from aerogel.oci.reference import Reference
from aerogel.oci.signature import (
    BUNDLE,
    SIGNATURE,
    SIGNED,
    SIMPLE,
    bundle,
    bundle_is_right,
    payload,
    payload_is_right,
    signature_tag,
)
from aerogel.oci.types import OCI_CONFIG, OCI_MANIFEST, Descriptor, ImageConfig, Manifest, RootFS, decode, encode
from aerogel.registry.client import Registries, Repository
from aerogel.registry.push import Uploads
from aerogel.registry.referrers import list_referrers
from aerogel.store.disk import disk_errors

__all__ = ["Found", "find_signatures", "public_key", "put_signatures", "signing_key"]

_MOST = 1 << 20
"""Bytes of a signature."""
_CONTENT = "dev.sigstore.bundle.content"
_PREDICATE = "dev.sigstore.bundle.predicateType"


class Found(NamedTuple):
    """A signature that was found: the digest of what holds it, its form, and whether it is right."""

    digest: Digest
    form: str
    is_right: bool


def signing_key(text: str, world: World) -> SigningKey:
    """Raises `sign.key`, `sign.password`, `store.*`."""
    environment = world.settings.environment
    password = environment.get("AEROGEL_KEY_PASSWORD") or environment.get("COSIGN_PASSWORD") or ""
    if password:
        world.redactor.add(password)
    return SigningKey(_read(text, world), password, text)


def public_key(text: str, world: World) -> PublicKey:
    """Raises `sign.key`, `store.*`."""
    return PublicKey(_read(text, world), text)


def _read(text: str, world: World) -> bytes:
    path = world.settings.directory / text
    with disk_errors(str(path)), path.open("rb") as file:
        return file.read(_MOST)


def find_signatures(repository: Repository, digest: Digest, key: PublicKey) -> list[Found]:
    """All signatures of a manifest in both forms, whoever made them. Raises `registry.*`, `net.*`, `oci.malformed`."""
    found = []
    blobs = repository.blobs()
    for listed in list_referrers(repository, digest):
        # What the list says of the kind is not always so (sigstore/cosign#4641).
        manifest = decode(_document(repository, listed.digest), Manifest)
        if manifest.subject is None or manifest.subject.digest != digest:
            continue
        for part in manifest.layers:
            if part.media_type == BUNDLE and part.size <= _MOST:
                is_right = bundle_is_right(blobs.read(part.digest, part.size), digest, key)
                if is_right or manifest.annotations.get(_PREDICATE, SIGNED) == SIGNED:
                    found.append(Found(listed.digest, "bundle", is_right))
    tagged = _tagged(repository, digest)
    for part in tagged.layers if tagged is not None else ():
        if part.media_type == SIMPLE and part.size <= _MOST:
            data = blobs.read(part.digest, part.size)
            signature = part.annotations.get(SIGNATURE, "")
            found.append(Found(part.digest, "tag", payload_is_right(data, signature, digest, key)))
    return found


def put_signatures(registries: Registries, reference: Reference, image: Descriptor, key: SigningKey) -> list[Digest]:
    """Signs a manifest in both forms; returns what was put. Raises `registry.*`, `net.*`."""
    repository = registries.repository(reference)
    uploads = Uploads(repository)
    made = MemoryBlobs()
    layer = made.put(bundle(image.digest, key), BUNDLE)
    notes = {_CONTENT: "dsse-envelope", _PREDICATE: SIGNED, PREDICATE_TYPE: SIGNED}
    artifact = create_artifact(BUNDLE, [layer], image, made, notes)
    manifest = decode(made.read(artifact.digest), Manifest)
    for part in (manifest.config, *manifest.layers):
        uploads.blob(part, partial(made.open, part.digest, part.size))
    uploads.referrer(made.read(artifact.digest), artifact, image.digest)
    return [artifact.digest, _put_tagged(repository, uploads, reference, image.digest, key)]


def _put_tagged(
    repository: Repository, uploads: Uploads, reference: Reference, digest: Digest, key: SigningKey
) -> Digest:
    """Adds a signature to those under the tag."""
    import base64

    data = payload(digest, reference.name)
    made = MemoryBlobs()
    plain = made.put(data, SIMPLE)
    signature = base64.b64encode(key.sign(data)).decode()
    layer = Descriptor(media_type=SIMPLE, digest=plain.digest, size=plain.size, annotations={SIGNATURE: signature})
    known = _tagged(repository, digest)
    layers = (*(known.layers if known is not None else ()), layer)
    diff_ids = tuple(each.digest for each in layers)
    config = made.put(encode(ImageConfig(rootfs=RootFS(diff_ids=diff_ids))), OCI_CONFIG)
    manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=layers)
    placed = made.put(encode(manifest), OCI_MANIFEST)
    for part in (config, layer):
        uploads.blob(part, partial(made.open, part.digest, part.size))
    uploads.manifest(made.read(placed.digest), placed, signature_tag(digest))
    return placed.digest


def _tagged(repository: Repository, digest: Digest) -> Manifest | None:
    """What is under the tag of the signatures."""
    name = Reference(repository.endpoint.registry, repository.name, signature_tag(digest), None)
    try:
        return decode(repository.document(name).data, Manifest)
    except AerogelError as error:
        if error.code != "registry.not-found":
            raise
        return None


def _document(repository: Repository, digest: Digest) -> bytes:
    return repository.document(Reference(repository.endpoint.registry, repository.name, None, digest)).data
