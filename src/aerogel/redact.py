"""The one place that takes secrets out of what is shown: passwords in URLs and values that a user named secret.

Floor 1: standard library only. `redact` is pure; a `Redactor` also knows the secrets of this run.
"""

from __future__ import annotations

__all__ = ["MASK", "Redactor", "redact"]

MASK = "***"

_SHORTEST = 4
"""Values shorter than this are not looked for: hiding every `1` would hide the output."""


def redact(text: str) -> str:
    """The text with the user information of every URL in it replaced by `***`: `https://***@host/path`."""
    at = text.find("://")
    if at < 0:
        return text
    parts: list[str] = []
    done = 0
    while at >= 0:
        start = at + 3
        end = start
        while end < len(text) and text[end] not in "/?# \t\r\n\"'<>`":
            end += 1
        sign = text.rfind("@", start, end)
        if sign >= 0:
            parts += [text[done:start], MASK]
            done = sign
        at = text.find("://", end)
    return "".join([*parts, text[done:]])


class Redactor:
    """Knows the secret values of one run. `add` may be called from any thread, before the secret is used."""

    __slots__ = ("_secrets",)

    def __init__(self) -> None:
        self._secrets: tuple[str, ...] = ()

    def add(self, secret: str) -> None:
        """Hides the value from now on; of a value with several lines each line, since output is shown by lines."""
        found = {line.strip() for line in secret.splitlines()} | {secret}
        known = {*self._secrets, *(one for one in found if len(one) >= _SHORTEST)}
        self._secrets = tuple(sorted(known, key=lambda one: (-len(one), one)))

    def text(self, text: str) -> str:
        """The text without any known secret and without passwords in URLs."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return redact(text)
