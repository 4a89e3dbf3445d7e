"""Content digests: the names of all blobs, and streams that check them.

Not for cache keys of steps (`solve.keys`), although these use the same spelling. A digest is a `str` at run
time (`sha256:<64 lower-case hex digits>`): hashable, sortable, free in JSON.
Spec: OCI image-spec v1.1 descriptor.md#digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NewType, Self

from aerogel.errors import AerogelError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = [
    "ALGORITHMS",
    "PATTERN",
    "Digest",
    "VerifiedReader",
    "algorithm_of",
    "check",
    "digest_of",
    "hex_of",
    "is_digest",
    "new_hash",
    "of_hash",
    "parse",
    "short",
]

Digest = NewType("Digest", str)

ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}
"""Algorithm name -> number of hex digits; all others are refused, because they cannot be checked."""

PATTERN = r"^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$(?!\n)"

_HEX = frozenset("0123456789abcdef")


def is_digest(text: str) -> bool:
    """Whether `text` is a digest that can be checked: known algorithm, right length, lower-case hex."""
    algorithm, colon, encoded = text.partition(":")
    return bool(colon) and ALGORITHMS.get(algorithm) == len(encoded) and _HEX.issuperset(encoded)


def parse(text: str) -> Digest:
    """`text` as a digest. Raises `oci.digest` with what would be valid."""
    if is_digest(text):
        return Digest(text)
    algorithm, colon, encoded = text.partition(":")
    length = ALGORITHMS.get(algorithm)
    if not colon:
        why = "a digest is `<algorithm>:<hex>`, as `sha256:` and 64 hex digits"
    elif length is None:
        why = "known algorithms are " + ", ".join(f"`{name}`" for name in ALGORITHMS)
    elif len(encoded) != length:
        why = f"`{algorithm}` has {length} hex digits, this has {len(encoded)}"
    else:
        why = "hex digits are `0` to `9` and `a` to `f`, in lower case"
    shown = text if len(text) <= 160 else text[:157] + "..."
    raise AerogelError(f"`{shown}` is not a digest: {why}", code="oci.digest")


def algorithm_of(digest: Digest) -> str:
    return digest.partition(":")[0]


def hex_of(digest: Digest) -> str:
    return digest.partition(":")[2]


def short(digest: Digest) -> str:
    """The 12 hex digits that people see in lists."""
    return digest.partition(":")[2][:12]


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """The sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def new_hash(like: Digest | None = None) -> _Hash:
    """A fresh hash of the algorithm of `like` (sha256 without it)."""
    return hashlib.new(algorithm_of(like)) if like else hashlib.sha256()


def of_hash(state: _Hash) -> Digest:
    """The digest of what `state` was fed with."""
    return Digest(f"{state.name}:{state.hexdigest()}")


def check(data: bytes, digest: Digest, *, what: str, code: str = "oci.digest-mismatch") -> None:
    """Raises `code` with the expected and the found digest when `data` is not what `digest` names."""
    state = new_hash(digest)
    state.update(data)
    found = of_hash(state)
    if found != digest:
        raise _mismatch(what, code, f"expected {digest}\nfound    {found}")


def _mismatch(what: str, code: str, detail: str, hints: tuple[str, ...] = ()) -> AerogelError:
    return AerogelError(f"{what} is not what its digest names", code=code, detail=detail, hints=hints)


class VerifiedReader:
    """A stream that raises when, at its end, size or digest differ from what was promised.

    Never hands out more than `size` bytes. Only a reader that reaches the end has checked anything, so use
    what was read before only in ways that can be taken back. Reads forward only. Closing closes the inner stream.
    `on_mismatch` runs once before the error is raised (a store drops the blob).
    """

    __slots__ = ("_code", "_digest", "_done", "_hash", "_on_mismatch", "_read", "_size", "_stream", "_what")

    def __init__(
        self,
        stream: BinaryIO,
        digest: Digest,
        size: int | None = None,
        *,
        what: str = "blob",
        code: str = "oci.digest-mismatch",
        on_mismatch: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._digest = digest
        self._size = size
        self._what = what
        self._code = code
        self._on_mismatch = on_mismatch
        self._hash = new_hash(digest)
        self._read = 0
        self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()

    def fileno(self) -> int:
        return self._stream.fileno()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._read

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, `b""` at the end. Raises `code` on a mismatch."""
        if size is None or size < 0:
            parts = []
            while part := self.read(1 << 20):
                parts.append(part)
            return b"".join(parts)
        if size == 0:
            return b""
        data = self._stream.read(size)
        if data:
            self._took(data)
        else:
            self._finish()
        return data

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Fills `buffer` from its start and returns how many bytes; 0 at the end. Raises `code` on a mismatch."""
        view = memoryview(buffer)
        if not view:
            return 0
        count: int = self._stream.readinto(view)  # type: ignore[attr-defined]  # every binary stream that we open has it
        if count:
            self._took(view[:count])
        else:
            self._finish()
        return count

    def _took(self, data: bytes | memoryview) -> None:
        self._read += len(data)
        if self._size is not None and self._read > self._size:
            self._fail(f"expected {self._size} bytes\nfound    more")
        self._hash.update(data)
        if self._size is not None and self._read == self._size:
            # A reader that knows the size may stop here and never see the end of the file.
            self._finish()

    def _finish(self) -> None:
        if self._done:
            return
        if self._size is not None and self._read != self._size:
            self._fail(f"expected {self._size} bytes\nfound    {self._read} bytes")
        found = of_hash(self._hash)
        if found != self._digest:
            self._fail(f"expected {self._digest}\nfound    {found}")
        self._done = True

    def _fail(self, detail: str) -> None:
        if self._on_mismatch is not None:
            self._on_mismatch()
        if "sha" not in detail:
            detail = f"digest   {self._digest}\n{detail}"
        raise _mismatch(self._what, self._code, detail)
