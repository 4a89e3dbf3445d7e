"""`aerogel sign`: signatures of images in registries, as cosign makes them."""

from __future__ import annotations

from contextlib import closing

from aerogel.commands.keyless import SignOptions, certified_bundle
from aerogel.commands.registries import open_registries
from aerogel.commands.result import Result
from aerogel.commands.signing import find_signatures, put_bundle, put_signatures, signing_key
from aerogel.commands.world import World
from aerogel.events import step
from aerogel.oci.attestation import statement_of
from aerogel.oci.reference import Reference
from aerogel.oci.signature import SIGNED

__all__ = ["EXAMPLES", "Sign", "SignResult", "run"]

EXAMPLES = (
    ("an image that was pushed", "aerogel sign --key cosign.key registry.example/team/app:1.2"),
    ("in CI, as the workflow that runs", "aerogel sign --keyless registry.example/team/app:1.2"),
)


class Sign(SignOptions, frozen=True, kw_only=True):
    """Sign an image in a registry with a key, or without one as who an identity token says."""


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
    options.check()
    reference = Reference.parse(options.name)
    key = signing_key(options.key, world) if options.key else None
    with closing(open_registries(world)) as registries:
        repository = registries.repository(reference)
        with step(world.sink, world.take_numbers(), f"sign {reference.familiar()}"):
            image = repository.document(reference).descriptor
            if key is None:
                signed = certified_bundle(options, statement_of(image.digest, reference.name, SIGNED, {}), world)
                return SignResult(
                    reference=str(reference),
                    digest=image.digest,
                    made=(put_bundle(repository, image, signed, SIGNED),),
                )
            known = {each.form for each in find_signatures(repository, image.digest, key.public) if each.is_right}
            made = [] if known >= {"bundle", "tag"} else put_signatures(registries, reference, image, key)
    return SignResult(reference=str(reference), digest=image.digest, made=tuple(made))
