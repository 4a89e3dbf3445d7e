"""Looks for secrets in what a step wrote, while its layer is read for its digest; and in its plain text forms.

Every layer that is written while a build has secrets is looked at, those of COPY and ADD as well: a step that sees no
secret may find one in a cache, or copy the very file.
Looked for: the bytes, base64 (both alphabets, whatever stands before: three alignments), hexadecimal, percent encoding.
Of a long secret a part from its middle stands for all, short enough that the line breaks of base64(1) and xxd(1) do not
cut it. White space at the ends of a secret does not count. Secrets of fewer than 6 bytes are not looked for: they occur
by chance. Not found: what is compressed or encrypted.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from aerogel.errors import AerogelError
from aerogel.files.entry import shown
from aerogel.files.tar import Readable, scan

__all__ = ["LeakError", "LeakScanner", "forms", "looked_for", "path_at"]

_SHORTEST = 6
_LONGEST = 1024
_BASE64_BYTES = 24
_HEX_BYTES = 12
_CHUNK = 1 << 18
_SHORTEST_ELSEWHERE = 12


def looked_for(secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    """The secrets that are looked for in the layers of steps that do not mount them: those that are no mere words."""
    return {name: secret for name, secret in secrets.items() if len(secret.strip()) >= _SHORTEST_ELSEWHERE}


def forms(secret: bytes) -> list[bytes]:
    """The byte strings that give a secret away; none for one that is too short."""
    plain = secret.strip()
    if len(plain) < _SHORTEST:
        return []
    found = dict.fromkeys([_middle(plain, _LONGEST)])
    for part in _parts(plain, _BASE64_BYTES):
        for shift in range(3):
            # Characters that also depend on what stands before or after the secret are left out.
            text = base64.b64encode(bytes(shift) + part)
            inner = text[(0, 2, 3)[shift] : (shift + len(part)) * 8 // 6]
            found |= dict.fromkeys([inner, inner.translate(bytes.maketrans(b"+/", b"-_"))])
    for part in _parts(plain, _HEX_BYTES):
        found |= dict.fromkeys([part.hex().encode(), part.hex().upper().encode()])
    if len(plain) <= _LONGEST:
        from urllib.parse import quote, quote_plus

        for escaped in (quote(plain, safe=""), quote(plain), quote_plus(plain, safe="")):
            found |= dict.fromkeys([escaped.encode(), _lower_escapes(escaped).encode()])
    return list(found)


def _lower_escapes(text: str) -> str:
    first, *rest = text.split("%")
    return "%".join([first, *(piece[:2].lower() + piece[2:] for piece in rest)])


def _middle(data: bytes, size: int) -> bytes:
    start = max(0, (len(data) - size) // 2)
    return data[start : start + size]


def _parts(data: bytes, size: int) -> list[bytes]:
    """The whole of a short secret; of a long one two neighbours, of which a line break can cut only one."""
    if len(data) <= 2 * size:
        return [data]
    start = (len(data) - 2 * size) // 2
    return [data[start : start + size], data[start + size : start + 2 * size]]


class LeakError(AerogelError):
    """A secret was seen at `offset` of a layer's tar. `name` is its id."""

    def __init__(self, offset: int, name: str, path: str = "", *, is_copied: bool = False) -> None:
        hints = (
            "anyone who gets the image could read it: name the file in .dockerignore, or copy less",
            f"a value that may be in the image needs no `--secret`: give `{name}` as a build argument or a context",
        )
        if not is_copied:
            hints = (
                "anyone who gets the image could read it: let the program read the secret from its mount instead",
                "a file that must hold it while the step runs belongs on `--mount=type=tmpfs,target=...`",
            )
        what = "copied" if is_copied else "wrote"
        super().__init__(
            f"the step {what} the secret `{name}` into its layer" + (f": `{path}`" if path else ""),
            code="solve.secret-leak",
            hints=hints,
        )
        self.offset = offset
        self.name = name


class LeakScanner:
    """Stands between a layer's tar and its reader. `secrets` are contents by id.

    At the end of a stream with a secret `LeakError` is raised instead: whoever stores the layer does not.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._needles = [(form, name) for name, secret in secrets.items() for form in forms(secret)]
        self._overlap = max((len(form) for form, _ in self._needles), default=1) - 1
        self._tail = b""
        self._offset = 0
        self.found: tuple[int, str] | None = None
        """Where the first secret was seen (offset in the tar) and its id."""

    def watch(self, stream: Readable) -> Readable:
        return _Watched(self, stream) if self._needles else stream

    def watched(self, write: Callable[[bytes | memoryview], object]) -> Callable[[bytes | memoryview], object]:
        """The function, which then shows what it is given to the scanner as well."""
        if not self._needles:
            return write

        def both(data: bytes | memoryview) -> None:
            self.feed(bytes(data))
            write(data)

        return both

    def feed(self, data: bytes) -> None:
        if self.found is None:
            window = self._tail + data
            hits = [(at, name) for form, name in self._needles if (at := window.find(form)) >= 0]
            if hits:
                at, name = min(hits)
                self.found = (self._offset - len(self._tail) + at, name)
            self._tail = window[-self._overlap :] if self._overlap else b""
        self._offset += len(data)


def path_at(stream: Readable, offset: int) -> str:
    """The path of the entry that byte `offset` of a layer's tar belongs to; reads the stream to its end."""
    found = b""
    for entry, content in scan(stream):
        # The header before a content is the entry's own too.
        found = entry.path
        if offset < content + entry.size:
            break
    while stream.read(_CHUNK):
        pass
    return f"/{shown(found)}"


class _Watched:
    def __init__(self, scanner: LeakScanner, stream: Readable) -> None:
        self._scanner = scanner
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._scanner.feed(data)
        if not data and self._scanner.found is not None:
            raise LeakError(*self._scanner.found)
        return data
