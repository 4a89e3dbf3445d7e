"""The one place that takes secrets out of what is shown: passwords in URLs and values that a user named secret.

Floor 1: standard library only. `redact` is pure; a `Redactor` also knows the secrets of this run.
"""

from __future__ import annotations

__all__ = ["MASK", "Redactor", "StreamRedactor", "redact"]

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

    def add(self, *secrets: str) -> None:
        """Hides the values from now on; of one with several lines each line, since output is shown by lines."""
        found = {*secrets, *(line.strip() for one in secrets for line in one.splitlines())}
        known = {*self._secrets, *(one for one in found if len(one) >= _SHORTEST)}
        self._secrets = tuple(sorted(known, key=lambda one: (-len(one), one)))

    def text(self, text: str) -> str:
        """The text without any known secret and without passwords in URLs."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return redact(text)

    def stream(self) -> StreamRedactor | None:
        """Hides the known secrets in a stream of bytes; None when there are none."""
        return StreamRedactor(self._secrets) if self._secrets else None


class StreamRedactor:
    """Hides secrets in bytes that come in pieces, however they are cut.

    A piece that ends in what may be the beginning of a secret is held back to there, until more comes.
    """

    __slots__ = ("_held", "_needles")

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._needles = tuple(one.encode("utf-8", "surrogateescape") for one in secrets)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be shown now."""
        text = self._held + data
        for needle in self._needles:
            if needle in text:
                text = text.replace(needle, MASK.encode())
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> bytes:
        """What was held back, at the end of the stream."""
        rest, self._held = self._held, b""
        return rest

    def _beginning(self, text: bytes) -> int:
        """How many bytes at the end of the text are the beginning of a secret, at most."""
        longest = 0
        for needle in self._needles:
            size = min(len(needle) - 1, len(text))
            while size > longest:
                at = text.find(needle[0], len(text) - size)
                if at < 0:
                    break
                size = len(text) - at
                if size > longest and needle.startswith(text[at:]):
                    longest = size
                    break
                size -= 1
        return longest
