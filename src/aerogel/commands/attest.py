"""`aerogel attest`: signed statements about an image in a registry (SBOM, provenance, scans), as cosign makes them."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated, Any

from aerogel.commands.keyless import SignOptions, certified_bundle
from aerogel.commands.registries import open_registries
from aerogel.commands.result import Result
from aerogel.commands.signing import find_statement, put_attestation, put_bundle, signing_key
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import step
from aerogel.flag import Flag
from aerogel.oci.attestation import TYPES, predicate_type, statement_of, wrapped
from aerogel.oci.digest import Digest
from aerogel.oci.reference import Reference
from aerogel.oci.types import timestamp
from aerogel.registry.client import Repository
from aerogel.store.disk import disk_errors

__all__ = ["EXAMPLES", "Attest", "AttestResult", "run"]

EXAMPLES = (
    ("an SBOM", "aerogel attest --key cosign.key --type spdx --predicate sbom.json registry.example/team/app:1"),
    (
        "what the build attached, signed",
        "aerogel attest --key cosign.key --type slsaprovenance1 registry.example/team/app:1",
    ),
)
_MOST = 64 << 20


class Attest(SignOptions, frozen=True, kw_only=True):
    """Sign a statement about an image in a registry with a key, or without one as who an identity token says."""

    type: Annotated[
        str,
        Flag(f"What it is about: {', '.join(f'`{word}`' for word in TYPES)}, or a URI", metavar="TYPE"),
    ] = "custom"
    predicate: Annotated[
        str,
        Flag(
            "What is said, JSON (any text for `custom`); without it, the unsigned statement of this type that was pushed "
            "with the image",
            metavar="FILE",
            complete="file",
        ),
    ] = ""


class AttestResult(Result, frozen=True, kw_only=True):
    reference: str
    digest: str
    """What it is about: the index of a multi-platform image."""
    predicate_type: str
    made: tuple[str, ...]
    """Digests of the manifests that hold it: a bundle that refers to the image, and what is under cosign's tag."""

    def text(self) -> str:
        return f"{self.reference}@{self.digest}"


def run(options: Attest, world: World) -> AttestResult:
    """Signs a statement. Raises `attest.*`, `sign.*`, `registry.*`, `net.*`, `store.*`."""
    options.check()
    kind = predicate_type(options.type)
    reference = Reference.parse(options.name)
    said = _predicate(options, world) if options.predicate else None
    key = signing_key(options.key, world) if options.key else None
    with closing(open_registries(world)) as registries:
        repository = registries.repository(reference)
        with step(world.sink, world.take_numbers(), f"attest {reference.familiar()}"):
            image = repository.document(reference).descriptor
            if said is None:
                said = _attached(options, repository, image.digest, kind)
            statement = statement_of(image.digest, reference.name, kind, said)
            if key is None:
                made = [put_bundle(repository, image, certified_bundle(options, statement, world), kind)]
            else:
                made = put_attestation(repository, image, kind, statement, key)
    return AttestResult(reference=str(reference), digest=image.digest, predicate_type=kind, made=tuple(made))


def _attached(options: Attest, repository: Repository, digest: Digest, kind: str) -> dict[str, Any]:
    found = find_statement(repository, digest, kind)
    if found is None:
        raise AerogelError(
            f"`{options.name}` has no statement of type `{options.type}` that could be signed",
            code="attest.nothing",
            exit_status=EXIT_USAGE,
            hints=[
                "name what is to be said with `--predicate FILE`, or build with `--sbom` or `--provenance` and push"
            ],
        )
    return found


def _predicate(options: Attest, world: World) -> dict[str, Any]:
    path = world.settings.directory / options.predicate
    with disk_errors(str(path)), path.open("rb") as file:
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise _bad(options, f"has more than {_MOST >> 20} MiB")
    if options.type == "custom":
        when = world.settings.source_date_epoch
        text = data.decode("utf-8", "replace")
        return wrapped(text, timestamp(int(world.clock()) if when is None else when))
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise _bad(options, "is no JSON") from None
    if not isinstance(found, dict):
        raise _bad(options, "is no JSON object")
    return found


def _bad(options: Attest, why: str) -> AerogelError:
    return AerogelError(
        f"`{options.predicate}` {why}",
        code="attest.predicate",
        exit_status=EXIT_USAGE,
        hints=["give the predicate alone, without statement and signature; `--type custom` takes any text"],
    )
