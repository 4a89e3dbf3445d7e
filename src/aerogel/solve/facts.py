"""An operation as records have it: without what is secret.

Values that look like secrets by their name stand in no record: only whether they changed can be told.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import msgspec

from aerogel.graph.ops import Op
from aerogel.redact import redact

__all__ = ["facts_of", "is_secret_name"]

_SECRET = re.compile(r"(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|pwd|secret|token)(?:_|$)")


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is taken to hold a secret."""
    return _SECRET.search(name) is not None


def facts_of(op: Op, salt: bytes) -> dict[str, Any]:
    """An operation as a record has it. `salt` is what the store alone knows: nobody can try what a hidden value is."""
    found: dict[str, Any] = _redacted(msgspec.to_builtins(op))
    if "env" in found:
        found["env"] = [[name, _hidden(value, salt) if _SECRET.search(name) else value] for name, value in found["env"]]
    return found


def _hidden(value: str, salt: bytes) -> str:
    return f"(hidden {sha256(salt + value.encode('utf-8', 'surrogateescape')).hexdigest()[:6]})"


def _redacted(value: Any) -> Any:
    """Without the passwords of URLs, and without bytes that are no text."""
    match value:
        case str():
            return redact(value.encode("utf-8", "replace").decode())
        case dict():
            return {name: _redacted(each) for name, each in value.items()}
        case list() | tuple():
            return [_redacted(each) for each in value]
        case _:
            return value
