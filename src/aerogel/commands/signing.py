"""Signatures of images in registries: put there, found there. Nothing is asked of any other service."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.oci.artifact import IN_TOTO, PREDICATE_TYPE, create_artifact
from aerogel.oci.attestation import (
    BUNDLE,
    ENVELOPE,
    PREDICATE_NOTE,
    attestation_tag,
    bundle_of,
    envelope,
    envelope_in,
    is_about,
    opened,
)
from aerogel.oci.digest import Digest
from aerogel.oci.image import MemoryBlobs
from aerogel.oci.keys import PublicKey, SigningKey
from aerogel.oci.reference import Reference
from aerogel.oci.signature import (
    SIGNATURE,
    SIGNED,
    SIMPLE,
    bundle,
    bundle_names,
    payload,
    payload_is_right,
    payload_name,
    signature_tag,
)
from aerogel.oci.types import OCI_CONFIG, OCI_MANIFEST, Descriptor, ImageConfig, Manifest, RootFS, decode, encode
from aerogel.registry.client import MAX_DOCUMENT, Registries, Repository
from aerogel.registry.push import Uploads
from aerogel.registry.referrers import list_referrers
from aerogel.store.disk import disk_errors
from aerogel.store.store import Store

__all__ = [
    "Attested",
    "Found",
    "bundles_of",
    "find_attestations",
    "find_signatures",
    "find_statement",
    "key_password",
    "public_key",
    "put_attestation",
    "put_bundle",
    "put_signatures",
    "signing_key",
    "stored_bundles",
    "stored_signatures",
]

_MOST = 1 << 20
"""Bytes of a signature."""
_MOST_STATEMENT = MAX_DOCUMENT
"""Bytes of an attestation: SBOMs are long."""
_CONTENT = "dev.sigstore.bundle.content"
_PREDICATE = "dev.sigstore.bundle.predicateType"


class Found(NamedTuple):
    """A signature that was found: the digest of what holds it, its form, and whether it is right."""

    digest: Digest
    form: str
    is_right: bool
    names: tuple[str, ...] = ()
    """Of the image that was signed, where the form tells them; there are none when it is not right."""


class Attested(NamedTuple):
    """A statement about an image that the key has signed; `statement` is None for those of others."""

    digest: Digest
    form: str
    statement: dict[str, Any] | None


def key_password(world: World) -> str:
    """The password of private keys; nothing when there is none."""
    environment = world.settings.environment
    password = environment.get("AEROGEL_KEY_PASSWORD") or environment.get("COSIGN_PASSWORD") or ""
    if password:
        world.redactor.add(password)
    return password


def signing_key(text: str, world: World) -> SigningKey:
    """Raises `sign.key`, `sign.password`, `store.*`."""
    return SigningKey(_read(text, world), key_password(world), text)


def public_key(text: str, world: World) -> PublicKey:
    """Raises `sign.key`, `store.*`."""
    return PublicKey(_read(text, world), text)


def _read(text: str, world: World) -> bytes:
    path = world.settings.directory / text
    with disk_errors(str(path)), path.open("rb") as file:
        return file.read(_MOST)


def find_signatures(repository: Repository, digest: Digest, key: PublicKey) -> list[Found]:
    """All signatures of a manifest in both forms, whoever made them. Raises `registry.*`, `net.*`, `oci.malformed`."""
    found = _judged(bundles_of(repository, digest, _MOST), digest, key)
    tagged = _tagged(repository, signature_tag(digest))
    for part in tagged.layers if tagged is not None else ():
        if part.media_type == SIMPLE and part.size <= _MOST:
            data = repository.blobs().read(part.digest, part.size)
            is_right = payload_is_right(data, part.annotations.get(SIGNATURE, ""), digest, key)
            names = (payload_name(data),) if is_right else ()
            found.append(Found(part.digest, "tag", is_right, names))
    return found


def stored_signatures(store: Store, digest: Digest, key: PublicKey) -> list[Found]:
    """Those of a manifest that came along with it into the store, as bundles do. Raises `store.*`."""
    return _judged(stored_bundles(store, digest, _MOST), digest, key)


def _judged(bundles: Iterable[tuple[Digest, str, bytes]], digest: Digest, key: PublicKey) -> list[Found]:
    found = []
    for holder, predicate, data in bundles:
        names = bundle_names(data, digest, key)
        if names is not None or predicate in ("", SIGNED):
            found.append(Found(holder, "bundle", names is not None, names or ()))
    return found


def find_attestations(repository: Repository, digest: Digest, kind: str, key: PublicKey) -> list[Attested]:
    """All attestations of a manifest of one type in both forms, whoever made them.

    Raises `registry.*`, `net.*`, `oci.malformed`.
    """
    found = []

    def judge(holder: Digest, form: str, data: bytes, told: str) -> None:
        statement = opened(envelope_in(data), key)
        if statement is not None and (statement.get("predicateType") != kind or not is_about(statement, digest)):
            statement = None
        if statement is not None or told in ("", kind):
            found.append(Attested(holder, form, statement))

    for holder, predicate, data in bundles_of(repository, digest):
        judge(holder, "bundle", data, predicate)
    tagged = _tagged(repository, attestation_tag(digest))
    for part in tagged.layers if tagged is not None else ():
        if part.media_type == ENVELOPE and part.size <= _MOST_STATEMENT:
            data = repository.blobs().read(part.digest, part.size)
            judge(part.digest, "tag", data, part.annotations.get(PREDICATE_NOTE, ""))
    return found


def bundles_of(
    repository: Repository, digest: Digest, most: int = _MOST_STATEMENT
) -> Iterator[tuple[Digest, str, bytes]]:
    """Bundles that refer to a manifest: who holds it, what it is said to be about, its bytes, which are `most`.

    None is kept when the next one is read.
    """
    for listed in list_referrers(repository, digest):
        # What the list says of the kind is not always so (sigstore/cosign#4641).
        manifest = decode(_document(repository, listed.digest), Manifest)
        if manifest.subject is None or manifest.subject.digest != digest:
            continue
        for part in manifest.layers:
            if part.media_type == BUNDLE and part.size <= most:
                data = repository.blobs().read(part.digest, part.size)
                yield listed.digest, manifest.annotations.get(_PREDICATE, ""), data


def stored_bundles(store: Store, digest: Digest, most: int = _MOST_STATEMENT) -> Iterator[tuple[Digest, str, bytes]]:
    """The same of those that are in the store. What is not all there is left out."""
    for listed in store.referrers.of(digest):
        try:
            manifest = decode(store.blobs.read(listed.digest, listed.size), Manifest)
            if manifest.subject is None or manifest.subject.digest != digest:
                continue
            for part in manifest.layers:
                if part.media_type == BUNDLE and part.size <= most:
                    data = store.blobs.read(part.digest, part.size)
                    yield listed.digest, manifest.annotations.get(_PREDICATE, ""), data
        except AerogelError as error:
            if not error.code.startswith(("oci.", "store.corrupt", "store.missing", "store.too-large")):
                raise


def find_statement(repository: Repository, digest: Digest, kind: str) -> dict[str, Any] | None:
    """What an unsigned statement that refers to a manifest says, as builds attach them; None when there is none."""
    blobs = repository.blobs()
    for listed in list_referrers(repository, digest):
        manifest = decode(_document(repository, listed.digest), Manifest)
        for part in manifest.layers:
            if part.media_type != IN_TOTO or part.size > _MOST_STATEMENT:
                continue
            try:
                said = json.loads(blobs.read(part.digest, part.size))
                if said["predicateType"] == kind and is_about(said, digest):
                    return dict(said["predicate"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
    return None


def put_attestation(
    repository: Repository, image: Descriptor, kind: str, statement: bytes, key: SigningKey
) -> list[Digest]:
    """Signs a statement and puts it beside the image in both forms; returns what was put.

    Raises `attest.too-large`, `registry.*`, `net.*`.
    """
    uploads = Uploads(repository)
    bundled = put_bundle(repository, image, bundle_of(statement, key), kind)
    made = MemoryBlobs()
    plain = made.put(json.dumps(envelope(statement, key), separators=(",", ":")).encode(), ENVELOPE)
    notes = {SIGNATURE: "", PREDICATE_NOTE: kind}
    tagged = _put_tagged(repository, uploads, attestation_tag(image.digest), made, plain, notes)
    return [bundled, tagged]


def put_signatures(registries: Registries, reference: Reference, image: Descriptor, key: SigningKey) -> list[Digest]:
    """Signs a manifest in both forms; returns what was put. Raises `registry.*`, `net.*`."""
    repository = registries.repository(reference)
    uploads = Uploads(repository)
    bundled = put_bundle(repository, image, bundle(image.digest, reference.name, key), SIGNED)
    data = payload(image.digest, reference.name)
    made = MemoryBlobs()
    notes = {SIGNATURE: base64.b64encode(key.sign(data)).decode()}
    return [
        bundled,
        _put_tagged(repository, uploads, signature_tag(image.digest), made, made.put(data, SIMPLE), notes),
    ]


def put_bundle(repository: Repository, image: Descriptor, data: bytes, kind: str) -> Digest:
    """Puts a bundle that refers to the image; the digest of its manifest. Raises `attest.too-large`, `registry.*`, `net.*`."""
    if len(data) > _MOST_STATEMENT:
        raise AerogelError(
            f"the signed statement has {len(data)} bytes, and {_MOST_STATEMENT} are read at most",
            code="attest.too-large",
            hints=["attest something shorter: an SBOM without its files, say"],
        )
    uploads = Uploads(repository)
    made = MemoryBlobs()
    layer = made.put(data, BUNDLE)
    notes = {_CONTENT: "dsse-envelope", _PREDICATE: kind, PREDICATE_TYPE: kind}
    artifact = create_artifact(BUNDLE, [layer], image, made, notes)
    manifest = decode(made.read(artifact.digest), Manifest)
    for part in (manifest.config, *manifest.layers):
        uploads.blob(part, partial(made.open, part.digest, part.size))
    uploads.referrer(made.read(artifact.digest), artifact, image.digest)
    return artifact.digest


def _put_tagged(
    repository: Repository, uploads: Uploads, tag: str, made: MemoryBlobs, plain: Descriptor, notes: dict[str, str]
) -> Digest:
    """Adds a part, which is in `made`, to those under a tag."""
    layer = Descriptor(media_type=plain.media_type, digest=plain.digest, size=plain.size, annotations=notes)
    known = _tagged(repository, tag)
    layers = (*(known.layers if known is not None else ()), layer)
    diff_ids = tuple(each.digest for each in layers)
    config = made.put(encode(ImageConfig(rootfs=RootFS(diff_ids=diff_ids))), OCI_CONFIG)
    manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=layers)
    placed = made.put(encode(manifest), OCI_MANIFEST)
    for part in (config, layer):
        uploads.blob(part, partial(made.open, part.digest, part.size))
    uploads.manifest(made.read(placed.digest), placed, tag)
    return placed.digest


def _tagged(repository: Repository, tag: str) -> Manifest | None:
    """What is under a tag of signatures or attestations."""
    name = Reference(repository.endpoint.registry, repository.name, tag, None)
    try:
        return decode(repository.document(name).data, Manifest)
    except AerogelError as error:
        if error.code != "registry.not-found":
            raise
        return None


def _document(repository: Repository, digest: Digest) -> bytes:
    return repository.document(Reference(repository.endpoint.registry, repository.name, None, digest)).data
