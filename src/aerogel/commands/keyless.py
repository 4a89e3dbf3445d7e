"""Signatures without keys: bundles whose certificate names who signed, judged by the sigstore library.

Bundles are made here too: the library asks the authority for a certificate with an identity token, and the log for an
entry. It is there with `pip install 'aerogel[keyless]'`. The certificate's authority, the logs and their keys come from a
file with a trusted root, else from Sigstore's own, which the library fetches. Spec: sigstore bundle v0.3, client spec.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Annotated, Any

from msgspec import Struct

from aerogel.commands.signing import Attested
from aerogel.commands.transport import trusted_file
from aerogel.commands.world import World
from aerogel.errors import EXIT_NETWORK, EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.artifact import IN_TOTO
from aerogel.oci.attestation import is_about
from aerogel.oci.digest import Digest
from aerogel.settings import lend_environment
from aerogel.store.disk import disk_errors

__all__ = ["SignOptions", "certified_bundle", "find_certified"]


class SignOptions(Struct, frozen=True, kw_only=True):
    """What `sign` and `attest` take: an image, and who signs."""

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

    def check(self) -> None:
        """Raises `sign.key` unless it is either a key or none."""
        if self.keyless == bool(self.key):
            raise AerogelError(
                "a key and `--keyless` cannot both be" if self.key else "there is no key to sign with",
                code="sign.key",
                exit_status=EXIT_USAGE,
                hints=["name one with `--key FILE` (`aerogel key generate` makes a pair), or say `--keyless`"],
            )


def find_certified(
    bundles: Iterable[tuple[Digest, str, bytes]],
    digest: Digest,
    kind: str,
    identity: str,
    issuer: str,
    root: str,
    world: World,
) -> list[Attested]:
    """Judges bundles that refer to a manifest (`bundles_of`); `statement` is None where the check fails.

    `kind` is the type of the predicate, `root` a file with a trusted root. Raises `verify.no-keyless`, `verify.root`,
    `registry.*`, `net.*`.
    """
    _need_library()
    from sigstore.verify.policy import Identity

    verifier, policy = _verifier(root, world), Identity(identity=identity, issuer=issuer)
    found = []
    for holder, _, data in bundles:
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


def certified_bundle(asked: SignOptions, statement: bytes, world: World) -> bytes:
    """A statement signed with a key that is thrown away, the certificate of who signed, and the entry of a log.

    It is checked as who verifies it does, before anybody gets it. Raises `verify.no-keyless`, `sign.config`, `sign.token`,
    `sign.keyless`.
    """
    _need_library()
    from sigstore.dsse import Statement
    from sigstore.sign import SigningContext
    from sigstore.verify import Verifier
    from sigstore.verify.policy import UnsafeNoOp

    root, services = _services(asked, world)
    token = _token(asked, services, world)
    try:
        context = SigningContext(
            fulcio=services.get_fulcio(),
            rekor=services.get_tlogs()[0],
            trusted_root=root,
            tsa_clients=services.get_tsas(),
        )
        with _trust(world), context.signer(token) as signer:
            made = signer.sign_dsse(Statement(statement))
        # Who signed is the authority's to say; that all fits together is looked at here.
        Verifier(trusted_root=root).verify_dsse(made, UnsafeNoOp())
    except Exception as error:
        raise AerogelError(
            f"the authority or the log gave no signature: {_why(error)}",
            code="sign.keyless",
            exit_status=EXIT_NETWORK,
            hints=["is the identity token for this authority, and can both be reached from here?"],
        ) from error
    return str(made.to_json()).encode()


def _services(asked: SignOptions, world: World) -> tuple[Any, Any]:
    """The trusted root, and where authority and log are."""
    from sigstore.models import ClientTrustConfig, SigningConfig, TrustedRoot

    if bool(asked.trusted_root) != bool(asked.signing_config):
        raise AerogelError(
            "an authority of one's own needs both its trusted root and its signing configuration",
            code="sign.config",
            exit_status=EXIT_USAGE,
            hints=["give `--trusted-root FILE` and `--signing-config FILE`; without both it is Sigstore's own"],
        )
    folder = world.settings.directory
    try:
        if asked.trusted_root:
            root = TrustedRoot.from_file(str(folder / asked.trusted_root))
            return root, SigningConfig.from_file(str(folder / asked.signing_config))
        with _trust(world):
            config = ClientTrustConfig.production()
        return config.trusted_root, config.signing_config
    except Exception as error:
        own = bool(asked.trusted_root)
        what = f"`{asked.trusted_root}` and `{asked.signing_config}` are" if own else "Sigstore's configuration is"
        raise AerogelError(
            f"{what} not usable: {_why(error)}",
            code="sign.config",
            exit_status=EXIT_USAGE if own else EXIT_NETWORK,
            hints=["they are `trusted_root.json` and `signing_config.v0.2.json` of whoever runs the authority"],
        ) from error


def _token(asked: SignOptions, services: Any, world: World) -> Any:
    """The identity: as it is given, as the environment has it, as CI systems give it, else by a browser."""
    from sigstore.oidc import IdentityToken, Issuer, detect_credential

    text = asked.identity_token
    if text and text.count(".") != 2:  # no token has fewer parts, and files of keys and tokens rarely have such names
        path = world.settings.directory / text
        with disk_errors(str(path)):
            text = path.read_text(encoding="utf-8", errors="replace").strip()
    elif text and (world.settings.directory / text[:200]).is_file():
        text = (world.settings.directory / text).read_text(encoding="utf-8", errors="replace").strip()
    try:
        text = text or world.settings.environment.get("SIGSTORE_ID_TOKEN", "")
        if not text:
            with _trust(world):
                text = detect_credential() or ""
        if text:
            world.redactor.add(text)
            return IdentityToken(text)
        if os.isatty(world.streams.stdin) and os.isatty(world.streams.stderr):
            with _trust(world):
                return Issuer(services.get_oidc_url()).identity_token()
    except Exception as error:
        raise _no_token(f"the identity token cannot be used: {_why(error)}") from error
    raise _no_token("there is no identity to sign with, and no terminal to ask for one")


def _no_token(message: str) -> AerogelError:
    return AerogelError(
        message,
        code="sign.token",
        exit_status=EXIT_USAGE,
        hints=["give a token for `sigstore` with `--identity-token FILE` or in SIGSTORE_ID_TOKEN; CI systems give one"],
    )


def _trust(world: World) -> AbstractContextManager[None]:
    """The library and those below it look for the certificates that they trust in the environment only."""
    return lend_environment(
        {
            variable: path
            for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
            if (path := trusted_file(world, variable)) is not None
        }
    )


def _why(error: BaseException) -> str:
    """The first line that says something, of an error or what it came from."""
    cause: BaseException | None = error
    while cause is not None:
        if words := str(cause).strip():
            return words.splitlines()[0][:200]
        cause = cause.__cause__
    return type(error).__name__


def _verifier(root: str, world: World) -> Any:
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig, TrustedRoot
    from sigstore.verify import Verifier

    try:
        if root:
            return Verifier(trusted_root=TrustedRoot.from_file(str(world.settings.directory / root)))
        with _trust(world):
            return Verifier(trusted_root=ClientTrustConfig.production().trusted_root)
    except (Error, OSError, ValueError) as error:
        why = _why(error)
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
