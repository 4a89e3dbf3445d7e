"""Credential programs of docker and podman: `docker-credential-<name> get|store|erase`.

The one place that starts them. They get the host's environment, since each has its own way to find its keys, and
their input by a pipe, so that no secret is on a command line.
Spec: docker-credential-helpers, README "Development" (protocol on stdin and stdout).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from aerogel.errors import EXIT_HOST, AerogelError

__all__ = ["Action", "call_credential_program"]

Action = Literal["get", "store", "erase"]

TIMEOUT_S = 60.0
"""A program may ask a person to unlock a key ring, or a cloud for a token."""

_ABSENT = "credentials not found"


def call_credential_program(name: str, action: Action, data: bytes, environment: Mapping[str, str]) -> bytes | None:
    """What `docker-credential-<name>` answers to `data`; None when it has no credentials for what was asked.

    Raises `net.credential-program` when it is not installed, fails or does not answer.
    """
    import subprocess  # takes 3 ms, and few have such a program

    program = f"docker-credential-{name}"
    if not name or not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise AerogelError(f"`{name}` is no name of a credential program", code="net.credential-program")
    try:
        done = subprocess.run(
            [program, action],
            input=data,
            env=dict(environment),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise _fault(program, "is not installed", f"install `{program}`, or take it out of the configuration") from None
    except OSError as error:
        raise _fault(program, f"cannot be started: {(error.strerror or str(error)).lower()}") from None
    except subprocess.TimeoutExpired:
        raise _fault(program, f"does not answer within {TIMEOUT_S:.0f} seconds") from None
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").strip()
    if action in ("get", "erase") and _ABSENT in said.lower():
        return None
    why = said.splitlines()[0][:200] if said else f"it ends with status {done.returncode}"
    raise _fault(program, f"fails at `{action}`: {why}")


def _fault(program: str, what: str, *hints: str) -> AerogelError:
    return AerogelError(f"`{program}` {what}", code="net.credential-program", hints=hints, exit_status=EXIT_HOST)
