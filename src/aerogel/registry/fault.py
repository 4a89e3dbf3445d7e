"""What a registry can refuse, in words: `registry.*` with method, redacted URL, status and the registry's own code.

Faults of the network itself keep their `net.*` codes.
Spec: OCI distribution-spec v1.1 "Error Codes".
"""

from __future__ import annotations

import json

from aerogel.errors import EXIT_FAILED, EXIT_NETWORK, AerogelError
from aerogel.net.http import HttpError

__all__ = ["explain", "registry_codes"]


def registry_codes(body: bytes) -> tuple[tuple[str, str], ...]:
    """The codes and messages of an error document; empty when the body is something else."""
    try:
        errors = json.loads(body)["errors"]
        return tuple((str(each.get("code", "")), str(each.get("message", ""))) for each in errors[:5])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def explain(error: HttpError, what: str, *, registry: str, user: str | None = None) -> AerogelError:
    """The error of a request as one about `what` (`image "x"`). `user` is None for an anonymous request."""
    if error.status == 0 or error.code != "net.status":
        return error
    codes = registry_codes(error.body)
    said = f"{error.message}{_said(codes)}"
    login = f"log in with `aerogel login {registry}`"
    hints: list[str] = []
    status = EXIT_NETWORK
    match error.status:
        case 401:
            code = "registry.unauthorized"
            if user is None:
                message = f"the registry `{registry}` does not give {what} to anonymous users, or has none: {said}"
                hints = [f"check the name, or {login}"]
            else:
                message = f"the registry `{registry}` refuses the credentials of `{user}` for {what}: {said}"
                hints = [login]
        case 403:
            code = "registry.denied"
            message = f"the registry `{registry}` denies {what}: {said}"
            hints = [f"check the name, or {login}" if user is None else f"`{user}` may lack the right to do this"]
        case 404:
            code = "registry.not-found"
            status = EXIT_FAILED
            message = f"{what} is not in the registry `{registry}`: {said}"
        case 429:
            code = "registry.rate-limit"
            wait = f"; it asks to wait {error.retry_after_s:.0f} seconds" if error.retry_after_s else ""
            message = (
                f"the registry `{registry}` takes no more requests for now, its rate limit is reached{wait}: {said}"
            )
            hints = [f"{login}: users have higher limits" if user is None else "try again later"]
        case _:
            code = "registry.status"
            message = f"the registry `{registry}` fails at {what}: {said}"
    return AerogelError(message, code=code, hints=[*hints, *error.hints], exit_status=status, temporary=error.temporary)


def _said(codes: tuple[tuple[str, str], ...]) -> str:
    parts = [f"{code} ({message})" if message and message != code else code or message for code, message in codes]
    text = "; ".join(part for part in parts if part)[:300]
    return f", {text}" if text else ""
