"""`aerogel verify`: whether an image in a registry is signed by a key. Only the registry is asked."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.registries import open_registries
from aerogel.commands.result import Result
from aerogel.commands.signing import find_signatures, public_key
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.reference import Reference

__all__ = ["EXAMPLES", "VerifiedResult", "Verify", "run"]

EXAMPLES = (("before it is used", "aerogel verify --key sign.pub registry.example/team/app:1.2"),)


class Verify(Struct, frozen=True, kw_only=True):
    """Check that an image in a registry is signed by a key."""

    name: Annotated[str, Flag("Name of an image in a registry", positional=True, metavar="NAME[:TAG|@DIGEST]")]
    key: Annotated[str, Flag("Public key, PEM (ECDSA on P-256)", metavar="FILE", complete="file")] = ""
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class VerifiedResult(Result, frozen=True, kw_only=True):
    reference: str
    digest: str
    forms: tuple[str, ...]
    """`bundle` (refers to the image) and `tag`, as far as there is a right signature."""

    def text(self) -> str:
        return f"{self.reference}@{self.digest}"


def run(options: Verify, world: World) -> VerifiedResult:
    """The digest that is signed. Raises `verify.unsigned` when there is no signature by the key, `sign.key`,
    `registry.*`, `net.*`.
    """
    if not options.key:
        raise AerogelError(
            "there is no key to check with",
            code="sign.key",
            exit_status=EXIT_USAGE,
            hints=["name the public key with `--key FILE`"],
        )
    reference = Reference.parse(options.name)
    key = public_key(options.key, world)
    with closing(open_registries(world)) as registries:
        repository = registries.repository(reference)
        image = repository.document(reference).descriptor
        found = find_signatures(repository, image.digest, key)
    right = sorted({each.form for each in found if each.is_right})
    if not right:
        others = f"{len(found)} of others or of other images" if found else "none at all"
        raise AerogelError(
            f"`{reference.familiar()}` (`{image.digest}`) has no signature by `{options.key}`, {others}",
            code="verify.unsigned",
            hints=["is it the right key? Do not run what should be signed and is not"],
        )
    return VerifiedResult(reference=str(reference), digest=image.digest, forms=tuple(right))
