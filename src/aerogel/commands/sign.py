"""`aerogel sign`: signatures of images in registries, as cosign makes them."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.keyless import Asked, certified_bundle
from aerogel.commands.registries import open_registries
from aerogel.commands.result import Result
from aerogel.commands.signing import find_signatures, put_bundle, put_signatures, signing_key
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import step
from aerogel.flag import Flag
from aerogel.oci.attestation import statement_of
from aerogel.oci.reference import Reference
from aerogel.oci.signature import SIGNED

__all__ = ["EXAMPLES", "Sign", "SignResult", "run"]

EXAMPLES = (
    ("an image that was pushed", "aerogel sign --key cosign.key registry.example/team/app:1.2"),
    ("in CI, as the workflow that runs", "aerogel sign --keyless registry.example/team/app:1.2"),
)


class Sign(Struct, frozen=True, kw_only=True):
    """Sign an image in a registry with a key, or without one as who an identity token says."""

    name: Annotated[str, Flag("Name of an image in a registry", positional=True, metavar="NAME[:TAG|@DIGEST]")]
    key: Annotated[
        str, Flag("Private key, PEM or `cosign.key`; its password in AEROGEL_KEY_PASSWORD", metavar="FILE", complete="file")
    ] = ""  # fmt: skip
    keyless: Annotated[
        bool, Flag("Sign without a key, as who an identity token says; the name goes into a public log")
    ] = False
    identity_token: Annotated[
        str,
        Flag(
            "Identity token for `--keyless`, or a file with it; default: SIGSTORE_ID_TOKEN, what CI systems give, a browser",
            metavar="FILE|TOKEN",
            complete="file",
        ),
    ] = ""
    trusted_root: Annotated[
        str, Flag("Authorities and logs to trust; default: Sigstore's", metavar="FILE", complete="file")
    ] = ""
    signing_config: Annotated[
        str, Flag("Where authority and log are; default: Sigstore's", metavar="FILE", complete="file")
    ] = ""
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class SignResult(Result, frozen=True, kw_only=True):
    reference: str
    digest: str
    """What was signed: the index of a multi-platform image."""
    made: tuple[str, ...]
    """Digests of the manifests that hold the signatures; none when the key had signed it already."""

    def text(self) -> str:
        return f"{self.reference}@{self.digest}" if self.made else f"{self.digest} is signed by this key already"


def run(options: Sign, world: World) -> SignResult:
    """Signs. Raises `sign.*`, `verify.no-keyless`, `registry.*`, `net.*`."""
    if options.keyless == bool(options.key):
        raise AerogelError(
            "a key and `--keyless` cannot both be" if options.key else "there is no key to sign with",
            code="sign.key",
            exit_status=EXIT_USAGE,
            hints=["name one with `--key FILE` (`aerogel key generate` makes a pair), or say `--keyless`"],
        )
    reference = Reference.parse(options.name)
    key = signing_key(options.key, world) if options.key else None
    with closing(open_registries(world)) as registries:
        repository = registries.repository(reference)
        with step(world.sink, world.take_numbers(), f"sign {reference.familiar()}"):
            image = repository.document(reference).descriptor
            if key is None:
                asked = Asked(options.identity_token, options.trusted_root, options.signing_config)
                signed = certified_bundle(asked, statement_of(image.digest, reference.name, SIGNED, {}), world)
                return SignResult(
                    reference=str(reference),
                    digest=image.digest,
                    made=(put_bundle(repository, image, signed, SIGNED),),
                )
            known = {each.form for each in find_signatures(repository, image.digest, key.public) if each.is_right}
            made = [] if known >= {"bundle", "tag"} else put_signatures(registries, reference, image, key)
    return SignResult(reference=str(reference), digest=image.digest, made=tuple(made))
