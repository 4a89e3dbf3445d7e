"""Uploads to one repository: blobs that it lacks, then manifests.

A blob goes by mount from another repository of the registry when one is known to have it or the registry finds one,
else in one PUT; what breaks goes on in chunks from where the registry has got to. Nothing is sent that the registry has already.
Spec: OCI distribution-spec v1.1 "Push" (end-4a to end-7, end-11 with automatic content discovery, end-13), "Pushing Manifests with Subject".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import FileIO
from typing import BinaryIO, cast
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from aerogel.errors import EXIT_NETWORK, AerogelError
from aerogel.net.http import Response
from aerogel.net.parts import FilePart, parts_of
from aerogel.oci.artifact import fallback_tag, with_referrer
from aerogel.oci.digest import Digest, algorithm_of, digest_of
from aerogel.oci.types import OCI_INDEX, Descriptor, encode
from aerogel.registry.client import ACCEPT, Repository
from aerogel.registry.fault import request_line

__all__ = ["CHUNK", "MOUNTED", "PRESENT", "UPLOADED", "Uploads"]

CHUNK = 8 << 20
"""Bytes of one PATCH, unless the registry wants more."""
PRESENT, MOUNTED, UPLOADED = "present", "mounted", "uploaded"

_PIECE = 1 << 18
_SESSIONS = 3
"""How often a blob is begun anew."""
_FAILURES = 5
"""How often in one session a chunk may fail."""
_LARGEST_CHUNK = 256 << 20
_OCTETS = "application/octet-stream"
_FINAL = frozenset({"registry.unauthorized", "registry.denied", "registry.realm", "registry.token"})

OnBytes = Callable[[int], object]


class Uploads:
    """A repository to write to. Threads may share it."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository = repository.target
        self._endpoint = repository.endpoint
        self._scopes = frozenset({f"repository:{repository.name}:pull,push"})
        self._may_discover = True
        """The registry has not refused yet to look for a blob in all its repositories."""

    def is_there(self, name: str, digest: Digest) -> bool:
        """Whether a tag or digest means this manifest already. Raises `registry.*`, `net.*`."""
        try:
            url = self._repository.url("manifests", name)
            answer = self._request("HEAD", url, f"manifest `{name}`", headers={"Accept": ACCEPT})
        except AerogelError as error:
            if error.code == "registry.not-found":
                return False
            raise
        return answer.headers.get("docker-content-digest") == digest

    def blob(
        self,
        blob: Descriptor,
        open_blob: Callable[[], BinaryIO],
        *,
        mount_from: Callable[[Digest], str] = lambda _: "",
        on_bytes: OnBytes = lambda _: None,
    ) -> str:
        """Sees to it that the repository has a blob; returns `PRESENT`, `MOUNTED` or `UPLOADED`.

        `mount_from` names another repository of the registry that may have it, or nothing. `on_bytes` gets the
        bytes as they are sent, all at once when none need be, negative ones when some are sent again. Raises
        `registry.*`, `net.*`, and what `open_blob` and its stream raise.
        """
        if self._repository.has(blob.digest, self._scopes):
            on_bytes(blob.size)
            return PRESENT
        counted = _Counted(on_bytes)
        for session in range(1, _SESSIONS + 1):
            source = mount_from(blob.digest) if session == 1 else ""
            location = self._begin(blob, source, is_first=session == 1)
            if not location:
                on_bytes(blob.size)
                return MOUNTED
            try:
                if session == 1:
                    self._whole(location, blob, open_blob, counted)
                else:
                    self._chunked(location, blob, open_blob, counted)
            except AerogelError as error:
                is_ours = error.code.startswith(("registry.", "net."))
                if not is_ours or error.code in _FINAL or error.code == "registry.canceled" or session == _SESSIONS:
                    raise
                counted.back_to(0)
                continue
            return UPLOADED
        raise AssertionError("the last session returns or raises")

    def manifest(self, data: bytes, descriptor: Descriptor, name: str) -> str:
        """Puts a manifest or index under a tag or its digest. Raises `registry.*`, `net.*`.

        Returns the digest of the subject that the registry lists it for, empty where it knows nothing of referrers.
        """
        url = self._repository.url("manifests", name)
        answer = self._request(
            "PUT",
            url,
            f"manifest `{name}` of `{self._repository}`",
            headers={"Content-Type": descriptor.media_type},
            body=data,
            expect=(200, 201, 202),
        )
        found = answer.headers.get("docker-content-digest", "")
        if found.startswith(f"{algorithm_of(descriptor.digest)}:") and found != descriptor.digest:
            raise AerogelError(
                f"the registry keeps the manifest `{name}` of `{self._repository}` as something else: "
                + request_line("PUT", url, answer.status),
                code="registry.digest-mismatch",
                detail=f"expected {descriptor.digest}\nfound    {found}",
                exit_status=EXIT_NETWORK,
            )
        return answer.headers.get("oci-subject", "")

    def referrer(self, data: bytes, artifact: Descriptor, subject: Digest) -> None:
        """Puts an artifact that refers to `subject`; its blobs are there. Raises `registry.*`, `net.*`.

        A registry without the referrers API gets it into the list under the fall-back tag as well. Between reading
        and writing that list another client may write it; the specification knows no way to keep it from that.
        """
        if self.manifest(data, artifact, artifact.digest) == subject:
            return
        tag = fallback_tag(subject)
        try:
            url = self._repository.url("manifests", tag)
            known = self._request("GET", url, f"manifest `{tag}`", headers={"Accept": ACCEPT}).body
        except AerogelError as error:
            if error.code != "registry.not-found":
                raise
            known = None
        index = with_referrer(known, artifact)
        if index is not None:
            listed = encode(index)
            self.manifest(listed, Descriptor(media_type=OCI_INDEX, digest=digest_of(listed), size=len(listed)), tag)

    def _request(
        self,
        method: str,
        url: str,
        what: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | Callable[[], Iterator[bytes | memoryview | FilePart]] | None = None,
        expect: tuple[int, ...] = (200,),
        scopes: frozenset[str] | None = None,
    ) -> Response:
        return self._endpoint.request(
            self._repository.name,
            scopes or self._scopes,
            method,
            url,
            what=what,
            headers=headers,
            body=body,
            expect=expect,
            repeats=method == "POST",  # another upload that is begun and left does no harm
        )

    def _begin(self, blob: Descriptor, source: str, *, is_first: bool = False) -> str:
        """Where to upload to; empty when the blob could be mounted.

        Without a source the registry may find one itself; one that cannot just begins an upload, as without the question.
        """
        url = self._repository.url("blobs", "uploads", "")
        what = self._what(blob)
        if source:
            scopes = self._scopes | {f"repository:{source}:pull"}
            mount = f"{url}?mount={quote(blob.digest)}&from={quote(source, safe='')}"
            try:
                answer = self._request("POST", mount, what, expect=(201, 202), scopes=scopes)
            except AerogelError as error:
                # A source that may not be read, or a registry that cannot mount: then by an upload.
                if not error.code.startswith("registry."):
                    raise
            else:
                return "" if answer.status == 201 else self._location(answer, url, what)
        elif is_first and self._may_discover:
            try:
                answer = self._request("POST", f"{url}?mount={quote(blob.digest)}", what, expect=(201, 202))
            except AerogelError as error:
                if error.temporary or error.code not in ("registry.status", "registry.not-found"):
                    raise
                self._may_discover = False
            else:
                return "" if answer.status == 201 else self._location(answer, url, what)
        return self._location(self._request("POST", url, what, expect=(202,)), url, what)

    def _location(self, answer: Response, url: str, what: str, method: str = "POST") -> str:
        """The next address, which may be relative, and whose TLS a proxy in front may have lost."""
        location = answer.headers.get("location", "")
        if not location:
            raise AerogelError(
                f"the registry does not say where to upload {what}: {request_line('POST', url, answer.status)}",
                code="registry.upload",
                exit_status=EXIT_NETWORK,
            )
        found, base = urlsplit(urljoin(url, location)), urlsplit(self._endpoint.open())
        if found.scheme == "http" and base.scheme == "https":
            if found.hostname != base.hostname:
                raise AerogelError(
                    f"the registry wants {what} sent to `{found.hostname}` without TLS: "
                    + request_line(method, url, answer.status),
                    code="registry.upload",
                    exit_status=EXIT_NETWORK,
                )
            found = found._replace(scheme="https", netloc=base.netloc)
        return urlunsplit(found)

    def _whole(self, location: str, blob: Descriptor, open_blob: Callable[[], BinaryIO], counted: _Counted) -> None:
        def pieces() -> Iterator[memoryview | FilePart]:
            counted.back_to(0)
            # One buffer: a new object of this size for each piece costs as much time as the sending.
            with open_blob() as stream:
                if isinstance(stream, FileIO):
                    for part in parts_of(stream, blob.size):
                        yield part
                        counted.add(part.sent)
                    return
                view = memoryview(bytearray(_PIECE))
                read = cast("Callable[[memoryview], int]", getattr(stream, "readinto"))  # noqa: B009 - not of BinaryIO
                while count := read(view):
                    counted.add(count)
                    yield view[:count]

        headers = {"Content-Type": _OCTETS, "Content-Length": str(blob.size)}
        url = _with_digest(location, blob.digest)
        self._request("PUT", url, self._what(blob), headers=headers, body=pieces, expect=(201, 204))

    def _chunked(self, location: str, blob: Descriptor, open_blob: Callable[[], BinaryIO], counted: _Counted) -> None:
        what = self._what(blob)
        at, failures, chunk = 0, 0, CHUNK
        stream, position = open_blob(), 0
        try:
            while at < blob.size:
                if position > at:
                    stream.close()
                    stream, position = open_blob(), 0
                while position < at:
                    position += len(stream.read(min(_PIECE, at - position)))
                data = _exactly(stream, min(chunk, blob.size - at))
                position += len(data)
                headers = {"Content-Type": _OCTETS, "Content-Range": f"{at}-{at + len(data) - 1}"}
                try:
                    answer = self._request("PATCH", location, what, headers=headers, body=data, expect=(201, 202, 204))
                except AerogelError as error:
                    failures += 1
                    if failures > _FAILURES or error.code in _FINAL:
                        raise
                    answer, at = self._progress(location, what)
                else:
                    at += len(data)
                counted.back_to(at)
                chunk = max(chunk, min(_number(answer.headers.get("oci-chunk-min-length", "")), _LARGEST_CHUNK))
                location = self._location(answer, location, what, "PATCH") if "location" in answer.headers else location
        finally:
            stream.close()
        self._request("PUT", _with_digest(location, blob.digest), what, body=b"", expect=(201, 204))

    def _progress(self, location: str, what: str) -> tuple[Response, int]:
        """Asks how many bytes of an upload have arrived."""
        answer = self._request("GET", location, what, expect=(202, 204))
        last = _number(answer.headers.get("range", "").removeprefix("bytes=").partition("-")[2])
        return answer, last + 1 if last else 0

    def _what(self, blob: Descriptor) -> str:
        return f"an upload of blob `{blob.digest}` to `{self._repository}`"


class _Counted:
    """How much of one blob is on the other side; told as differences."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._count = 0

    def add(self, number: int) -> None:
        self._count += number
        self._on_bytes(number)

    def back_to(self, count: int) -> None:
        if count != self._count:
            self.add(count - self._count)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    pieces, left = [], size
    while left and (data := stream.read(min(left, _PIECE))):
        pieces.append(data)
        left -= len(data)
    if left:
        raise AerogelError(f"a blob ends {left} bytes too early", code="oci.digest-mismatch")
    return b"".join(pieces)


def _with_digest(location: str, digest: Digest) -> str:
    parts = urlsplit(location)
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=f"{query}digest={quote(digest, safe='')}"))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
