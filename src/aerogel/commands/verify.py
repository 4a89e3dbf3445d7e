"""`aerogel verify`: whether an image in a registry is signed by a key. Only the registry is asked."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated, Any

from msgspec import Struct

from aerogel.commands.registries import open_registries
from aerogel.commands.result import Result
from aerogel.commands.signing import Attested, bundles_of, find_attestations, find_signatures, public_key
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.attestation import predicate_type
from aerogel.oci.digest import Digest
from aerogel.oci.keys import PublicKey
from aerogel.oci.reference import Reference
from aerogel.oci.signature import SIGNED
from aerogel.registry.client import Repository

__all__ = ["EXAMPLES", "VerifiedResult", "Verify", "run"]

EXAMPLES = (
    ("before it is used", "aerogel verify --key cosign.pub registry.example/team/app:1.2"),
    (
        "without a key",
        "aerogel verify --certificate-identity me@example.org --certificate-oidc-issuer https://accounts.example app:1",
    ),
    ("the SBOM that was attested", "aerogel verify --key cosign.pub --type spdx registry.example/team/app:1.2"),
)


class Verify(Struct, frozen=True, kw_only=True):
    """Check that an image in a registry is signed by a key, or that a key attested something of it."""

    name: Annotated[str, Flag("Name of an image in a registry", positional=True, metavar="NAME[:TAG|@DIGEST]")]
    key: Annotated[str, Flag("Public key, PEM", metavar="FILE", complete="file")] = ""
    type: Annotated[
        str, Flag("An attestation of this type, not a signature; `aerogel attest` lists the types", metavar="TYPE")
    ] = ""
    certificate_identity: Annotated[
        str, Flag("Who signed without a key: the e-mail address or URI in the certificate", metavar="NAME")
    ] = ""
    certificate_oidc_issuer: Annotated[str, Flag("Who says so: the URL of the issuer", metavar="URL")] = ""
    trusted_root: Annotated[
        str, Flag("Authorities and logs to trust; default: Sigstore's", metavar="FILE", complete="file")
    ] = ""
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class VerifiedResult(Result, frozen=True, kw_only=True):
    reference: str
    digest: str
    forms: tuple[str, ...]
    """`bundle` (refers to the image) and `tag`, as far as there is a right signature."""
    predicates: tuple[dict[str, Any], ...] = ()
    """With `--type`: what is attested, each once."""

    def text(self) -> str:
        if self.predicates:
            return "\n".join(json.dumps(each, ensure_ascii=False) for each in self.predicates)
        return f"{self.reference}@{self.digest}"


def run(options: Verify, world: World) -> VerifiedResult:
    """The digest that is signed. Raises `attest.type`, `verify.unsigned` when there is no signature by the key, `sign.key`,
    `registry.*`, `net.*`.
    """
    is_keyless = bool(options.certificate_identity)
    if is_keyless == bool(options.key) or is_keyless != bool(options.certificate_oidc_issuer):
        raise AerogelError(
            "there is no key to check with" if not options.key else "a key and a certificate cannot both be asked for",
            code="sign.key",
            exit_status=EXIT_USAGE,
            hints=[
                "name the public key with `--key FILE`, or `--certificate-identity` and `--certificate-oidc-issuer`"
            ],
        )
    kind = predicate_type(options.type) if options.type else ""
    reference = Reference.parse(options.name)
    key = None if is_keyless else public_key(options.key, world)
    with closing(open_registries(world)) as registries:
        repository = registries.repository(reference)
        image = repository.document(reference).descriptor
        if key is not None:
            judged, predicates = _judged(repository, image.digest, kind, key)
        else:
            judged, predicates = _certified(options, world, repository, image.digest, kind)
    right = sorted({form for form, is_right in judged if is_right})
    if not right:
        others = f"{len(judged)} of others or of other images" if judged else "none at all"
        what = f"attestation of type `{options.type}`" if kind else "signature"
        raise AerogelError(
            f"`{reference.familiar()}` (`{image.digest}`) has no {what} by `{options.key or options.certificate_identity}`, {others}",
            code="verify.unsigned",
            hints=["is it the right key? Do not run what should be signed and is not"],
        )
    return VerifiedResult(
        reference=str(reference), digest=image.digest, forms=tuple(right), predicates=tuple(predicates)
    )


def _judged(
    repository: Repository, digest: Digest, kind: str, key: PublicKey
) -> tuple[list[tuple[str, bool]], list[dict[str, Any]]]:
    """The form of each signature, or attestation of a kind, and whether it is right; what the right ones say."""
    if not kind:
        return [(each.form, each.is_right) for each in find_signatures(repository, digest, key)], []
    return _told(find_attestations(repository, digest, kind, key))


def _certified(
    options: Verify, world: World, repository: Repository, digest: Digest, kind: str
) -> tuple[list[tuple[str, bool]], list[dict[str, Any]]]:
    from aerogel.commands.keyless import find_certified

    asked = (options.certificate_identity, options.certificate_oidc_issuer, options.trusted_root)
    judged, said = _told(find_certified(bundles_of(repository, digest), digest, kind or SIGNED, *asked, world))
    return judged, said if kind else []


def _told(found: list[Attested]) -> tuple[list[tuple[str, bool]], list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    for each in found:
        predicate = each.statement.get("predicate") if each.statement is not None else None
        if isinstance(predicate, dict) and predicate not in said:
            said.append(predicate)
    return [(each.form, each.statement is not None) for each in found], said
