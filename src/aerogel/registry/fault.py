"""What a registry can refuse, in words: `registry.*` with method, redacted URL, status and the registry's own code.

Faults of the network itself keep their `net.*` codes.
Spec: OCI distribution-spec v1.1 "Error Codes".
"""

from __future__ import annotations

import json

from aerogel.errors import EXIT_FAILED, EXIT_NETWORK, AerogelError
from aerogel.net.http import HttpError
from aerogel.net.proxy import redact

__all__ = ["explain", "registry_codes", "request_line"]


def request_line(method: str, url: str, status: int) -> str:
    """A request that was answered, for the end of an error's message: what was answered is of no use."""
    return f"{method} {redact(url)}: {status}"


def registry_codes(body: bytes) -> tuple[tuple[str, str], ...]:
    """The codes and messages of an error document; empty when the body is something else."""
    try:
        errors = json.loads(body)["errors"]
        return tuple((str(each.get("code", "")), str(each.get("message", ""))) for each in errors[:5])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def explain(error: HttpError, what: str, *, registry: str, user: str | None = None) -> AerogelError:
    """The error of a request as one about `what` (`image "x"`). `user` is None for an anonymous request."""
    if error.code != "net.status":
        return error
    said = f"{error.message}{_said(registry_codes(error.body))}"
    login = f"log in with `aerogel login {registry}`"

    def made(message: str, *hints: str, code: str, exit_status: int = EXIT_NETWORK) -> AerogelError:
        return AerogelError(
            f"{message}: {said}",
            code=code,
            hints=[*hints, *error.hints],
            exit_status=exit_status,
            temporary=error.temporary,
        )

    match error.status:
        case 401 if user is None:
            return made(
                f"the registry `{registry}` does not give {what} to anonymous users, or has none",
                f"check the name, or {login}",
                code="registry.unauthorized",
            )
        case 401:
            return made(
                f"the registry `{registry}` refuses the credentials of `{user}` for {what}",
                login,
                code="registry.unauthorized",
            )
        case 403:
            hint = f"check the name, or {login}" if user is None else f"`{user}` may lack the right to do this"
            return made(f"the registry `{registry}` denies {what}", hint, code="registry.denied")
        case 404:
            return made(
                f"{what} is not in the registry `{registry}`", code="registry.not-found", exit_status=EXIT_FAILED
            )
        case 429:
            wait = f", and it asks to wait {error.retry_after_s:.0f} seconds" if error.retry_after_s else ""
            hint = f"{login}: users have higher limits" if user is None else "try again later"
            return made(
                f"the rate limit of the registry `{registry}` is reached{wait}", hint, code="registry.rate-limit"
            )
    return made(f"the registry `{registry}` fails at {what}", code="registry.status")


def _said(codes: tuple[tuple[str, str], ...]) -> str:
    parts = [f"{code} ({message})" if message and message != code else code or message for code, message in codes]
    text = "; ".join(part for part in parts if part)[:300]
    return f", {text}" if text else ""
