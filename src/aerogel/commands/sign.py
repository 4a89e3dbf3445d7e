"""`aerogel sign`: signatures of images in registries, as cosign makes them."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.registries import open_registries
from aerogel.commands.result import Result
from aerogel.commands.signing import find_signatures, put_signatures, signing_key
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import step
from aerogel.flag import Flag
from aerogel.oci.reference import Reference

__all__ = ["EXAMPLES", "Sign", "SignResult", "run"]

EXAMPLES = (("an image that was pushed", "aerogel sign --key cosign.key registry.example/team/app:1.2"),)


class Sign(Struct, frozen=True, kw_only=True):
    """Sign an image in a registry with a key."""

    name: Annotated[str, Flag("Name of an image in a registry", positional=True, metavar="NAME[:TAG|@DIGEST]")]
    key: Annotated[
        str, Flag("Private key, PEM or `cosign.key`; its password in AEROGEL_KEY_PASSWORD", metavar="FILE", complete="file")
    ] = ""  # fmt: skip
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
    """Signs. Raises `sign.*`, `registry.*`, `net.*`."""
    if not options.key:
        raise AerogelError(
            "there is no key to sign with",
            code="sign.key",
            exit_status=EXIT_USAGE,
            hints=["name one with `--key FILE`; `aerogel key generate` makes a pair"],
        )
    reference = Reference.parse(options.name)
    key = signing_key(options.key, world)
    with closing(open_registries(world)) as registries:
        repository = registries.repository(reference)
        with step(world.sink, world.take_numbers(), f"sign {reference.familiar()}"):
            image = repository.document(reference).descriptor
            known = {each.form for each in find_signatures(repository, image.digest, key.public) if each.is_right}
            made = [] if known >= {"bundle", "tag"} else put_signatures(registries, reference, image, key)
    return SignResult(reference=str(reference), digest=image.digest, made=tuple(made))
