"""Signatures without keys: bundles whose certificate names who signed, judged by the sigstore library.

It is there with `pip install 'aerogel[keyless]'`. The certificate's authority, the logs and their keys come from a
file with a trusted root, else from Sigstore's own, which the library fetches. Spec: sigstore bundle v0.3, client spec.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from aerogel.commands.signing import Attested, bundles_of
from aerogel.commands.world import World
from aerogel.errors import EXIT_NETWORK, EXIT_USAGE, AerogelError
from aerogel.oci.artifact import IN_TOTO
from aerogel.oci.attestation import is_about
from aerogel.oci.digest import Digest
from aerogel.registry.client import Repository

__all__ = ["find_certified"]


def find_certified(
    repository: Repository, digest: Digest, kind: str, identity: str, issuer: str, root: str, world: World
) -> list[Attested]:
    """All bundles with a certificate that refer to a manifest; `statement` is None where the check fails.

    `kind` is the type of the predicate, `root` a file with a trusted root. Raises `verify.no-keyless`, `verify.root`,
    `registry.*`, `net.*`.
    """
    _need_library()
    from sigstore.verify.policy import Identity

    verifier, policy = _verifier(root, world), Identity(identity=identity, issuer=issuer)
    found = []
    for holder, _, data in bundles_of(repository, digest):
        statement = _statement(data, verifier, policy)
        if statement is None or statement.get("predicateType") != kind or not is_about(statement, digest):
            statement = None
        found.append(Attested(holder, "bundle", statement))
    return found


def _statement(data: bytes, verifier: Any, policy: Any) -> dict[str, Any] | None:
    """What a bundle says, when all of it is right: certificate, identity, log, signature."""
    from sigstore.models import Bundle

    try:
        media_type, payload = verifier.verify_dsse(Bundle.from_json(data), policy)
        found = json.loads(payload) if media_type == IN_TOTO else None
    except Exception:  # noqa: BLE001 - anybody may put a bundle there, and the library lets faults of many kinds through
        return None  # of a key, of somebody else, or damaged: whoever asks says how many there are
    return found if isinstance(found, dict) else None


def _verifier(root: str, world: World) -> Any:
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig, TrustedRoot
    from sigstore.verify import Verifier

    try:
        if root:
            return Verifier(trusted_root=TrustedRoot.from_file(str(world.settings.directory / root)))
        return Verifier(trusted_root=ClientTrustConfig.production().trusted_root)
    except (Error, OSError, ValueError) as error:
        words = str(error).strip().splitlines()
        why = words[0][:200] if words else type(error).__name__
        raise AerogelError(
            f"`{root}` is no trusted root: {why}" if root else f"Sigstore's trusted root cannot be had: {why}",
            code="verify.root",
            exit_status=EXIT_USAGE if root else EXIT_NETWORK,
            hints=["`--trusted-root FILE` takes a `trusted_root.json`, as `cosign trusted-root create` writes it"],
        ) from None


def _need_library() -> None:
    if importlib.util.find_spec("sigstore") is None:
        raise AerogelError(
            "signatures without keys need the sigstore library, which is not installed",
            code="verify.no-keyless",
            exit_status=EXIT_USAGE,
            hints=["install it with `pip install 'aerogel[keyless]'`"],
        )
