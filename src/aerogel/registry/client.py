"""Registries to read from: manifests, blobs, tags, with authentication and everything checked by digest.

Not for pushing (`registry.push`) and not for the store: a `Repository` gives `Blobs` that `oci.image.copy` and
`oci.image.load` read from. TLS is the rule; plain HTTP is spoken to loop-back addresses and to registries that the
user named as insecure. Authorization goes to the registry's own address only, also across redirects.
Spec: OCI distribution-spec v1.1 "Pull" (end-1, end-2, end-3, end-8a).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from aerogel.errors import EXIT_NETWORK, AerogelError, nearest
from aerogel.net.http import Http, HttpError, Response
from aerogel.oci.digest import Digest, check, digest_of, is_digest, new_hash, of_hash
from aerogel.oci.reference import DEFAULT_REGISTRY, Reference
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from aerogel.registry.auth import Authority
from aerogel.registry.credentials import Credential, Credentials
from aerogel.registry.fault import explain

__all__ = [
    "ACCEPT",
    "MAX_DOCUMENT",
    "MAX_MANIFEST",
    "Document",
    "Endpoint",
    "Registries",
    "Repository",
    "RepositoryBlobs",
]

MAX_MANIFEST = 4 << 20
"""Largest manifest that registries take, and that is taken from them."""
MAX_DOCUMENT = 16 << 20
"""Largest config that is taken into memory."""

ACCEPT = ", ".join((*sorted(INDEX_TYPES, reverse=True), *sorted(MANIFEST_TYPES, reverse=True)))
"""The kinds of manifests that are understood, OCI's first."""

_HUB_API = "registry-1.docker.io"
_ANSWERS = frozenset(range(200, 500)) - {408, 425, 429}
"""Any of these to `/v2/` says that a registry is there."""
_TRIES = 3
"""How often a request is sent when each answer is 401: without token, with a kept one, with a new one."""
_SPOOL = 1 << 20

Body = bytes | Callable[[], Iterable[bytes]]
_T = TypeVar("_T")


class Document(msgspec.Struct, frozen=True):
    """A manifest or index as it was served, and its checked descriptor."""

    descriptor: Descriptor
    data: bytes


class Registries:
    """All registries of one run, each opened on first use. Threads may share it.

    `insecure` names registries (`host` or `host:port`) that may be spoken to without TLS.
    """

    def __init__(
        self,
        http: Http,
        credentials: Credentials,
        *,
        insecure: Container[str] = (),
        clock: Callable[[], float] = time.monotonic,
        on_secret: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._insecure = insecure
        self._clock = clock
        self._on_secret = on_secret
        self._endpoints: dict[str, Endpoint] = {}
        self._lock = threading.Lock()

    def endpoint(self, registry: str, *, credential: Credential | None = None) -> Endpoint:
        """A registry by its name; with `credential` a fresh one that uses this instead of what is configured."""
        if credential is not None:
            return self._open(registry, lambda _: credential)
        with self._lock:
            if registry not in self._endpoints:
                self._endpoints[registry] = self._open(
                    registry, lambda repository: self._credentials.find(registry, repository)
                )
            return self._endpoints[registry]

    def repository(self, reference: Reference) -> Repository:
        """The repository of an image; nothing is asked yet."""
        return Repository(self.endpoint(reference.registry), reference.repository)

    def _open(self, registry: str, credential: Callable[[str], Credential | None]) -> Endpoint:
        return Endpoint(
            self._http,
            registry,
            credential,
            is_insecure=registry in self._insecure,
            clock=self._clock,
            on_secret=self._on_secret,
        )

    def close(self) -> None:
        self._http.close()


class Endpoint:
    """One registry: where its API is, and requests to it with authorization."""

    def __init__(
        self,
        http: Http,
        registry: str,
        credential: Callable[[str], Credential | None],
        *,
        is_insecure: bool,
        clock: Callable[[], float],
        on_secret: Callable[[str], object],
    ) -> None:
        self.registry = registry
        self.http = http
        self._host = _HUB_API if registry == DEFAULT_REGISTRY else registry
        self._is_insecure = is_insecure
        self._base = ""
        self._lock = threading.Lock()
        self._authority = Authority(
            http,
            registry,
            credential,
            is_plain=is_insecure or _is_loopback(registry),
            clock=clock,
            on_secret=on_secret,
        )

    def open(self) -> str:
        """The address of the registry; the first call finds out whether it has TLS, and how it authenticates.

        Raises `net.*`, `registry.*`.
        """
        with self._lock:
            if not self._base:
                self._base = self._find()
            return self._base

    def _find(self) -> str:
        schemes = ["https"]
        if _is_loopback(self.registry):
            schemes = ["http", "https"]
        elif self._is_insecure:
            schemes = ["https", "http"]
        refused: HttpError | None = None
        for number, scheme in enumerate(schemes, 1):
            base = f"{scheme}://{self._host}"
            try:
                answer = self._ping(base)
            except HttpError as error:
                has_port = urlsplit(base).port is not None
                if number < len(schemes) and (error.code != "net.unreachable" or not has_port):
                    refused = error
                    continue
                if error.code in ("net.tls", "net.cut") and scheme == "https" and number == 1:
                    hint = f"if the registry has no TLS, allow that with `--insecure-registry {self.registry}`"
                    error.hints = (*error.hints, hint)
                raise explain(error, "its API", registry=self.registry) from None
            if answer.status == 400 and scheme == "http" and number < len(schemes):
                continue  # what Go's servers with TLS answer to plain HTTP
            if answer.status == 400 and refused is not None:
                raise refused  # it has TLS, with a certificate that is not trusted
            self._authority.learn(answer.headers.get("www-authenticate", "") if answer.status == 401 else "")
            return base
        raise AssertionError("the last scheme returns or raises")

    def _ping(self, base: str) -> Response:
        return self.http.request("GET", f"{base}/v2/", expect=_ANSWERS, redirect=False, limit=1 << 20)

    def user(self, repository: str) -> str | None:
        return self._authority.user(repository)

    def sign_in(self) -> None:
        """Asks the registry whether it takes the credentials. Raises `registry.unauthorized`, `net.*`."""
        base = self.open()
        self.request("", frozenset(), "GET", f"{base}/v2/", what="a login", limit=1 << 20)

    def request(
        self,
        repository: str,
        scopes: frozenset[str],
        method: str,
        url: str,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        expect: Container[int] = (200,),
        limit: int = MAX_MANIFEST,
        repeats: bool = False,
    ) -> Response:
        """Sends a request, with a new token when one has ended; `repeats` as for `Http.request`. Raises `registry.*`, `net.*` about `what`."""

        def send(authorization: dict[str, str]) -> Response:
            given = {**(headers or {}), **authorization}
            return self.http.request(method, url, headers=given, body=body, expect=expect, limit=limit, repeats=repeats)

        return self.authorized(repository, scopes, url, what, send)

    def authorized(
        self, repository: str, scopes: frozenset[str], url: str, what: str, send: Callable[[dict[str, str]], _T]
    ) -> _T:
        """Calls `send` with the headers of authorization, again with others after a 401, three times at most."""
        is_ours = self._is_ours(url)
        header = self._authority.header(repository, scopes) if is_ours else ""
        for number in range(1, _TRIES + 1):
            try:
                return send({"Authorization": header} if header else {})
            except HttpError as error:
                again = header
                if error.status == 401 and is_ours and number < _TRIES:
                    if not self._authority.knows_a_challenge:
                        self._learn_from(url)
                    challenge = error.headers.get("www-authenticate", "")
                    again = self._authority.again(repository, scopes, header, challenge)
                if again == header:
                    raise explain(error, what, registry=self.registry, user=self.user(repository)) from None
                header = again
        raise AssertionError("the last try returns or raises")

    def _learn_from(self, url: str) -> None:
        """The challenge of a registry whose `/v2/` wants nothing; only its own answer counts, no redirect's."""
        with suppress(HttpError):
            answer = self.http.request("HEAD", url, expect=_ANSWERS, redirect=False)
            if answer.status == 401:
                self._authority.learn(answer.headers.get("www-authenticate", ""))

    def _is_ours(self, url: str) -> bool:
        return _origin(url) == _origin(self.open())


class Repository:
    """One repository of a registry, to read from."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint = endpoint
        self.name = name
        self.scopes = frozenset({f"repository:{name}:pull"})

    def __str__(self) -> str:
        return f"{self.endpoint.registry}/{self.name}"

    def url(self, *parts: str) -> str:
        return "/".join((self.endpoint.open(), "v2", self.name, *parts))

    def document(self, reference: Reference) -> Document:
        """The manifest or index of a tag or digest; the digest wins.

        Raises `registry.not-found` with the nearest tag, `registry.digest-mismatch`, `registry.no-manifest`,
        `registry.*`, `net.*`.
        """
        wanted = reference.digest or reference.tag or "latest"
        what = f"image `{reference.familiar()}`"
        try:
            answer = self.endpoint.request(
                self.name,
                self.scopes,
                "GET",
                self.url("manifests", wanted),
                what=what,
                headers={"Accept": ACCEPT},
                limit=MAX_MANIFEST,
            )
        except AerogelError as error:
            if error.code == "registry.not-found" and not error.hints:
                error.hints = self._advice(reference)
            raise
        return _checked(answer, reference.digest, what, self.endpoint.registry)

    def _advice(self, reference: Reference) -> tuple[str, ...]:
        """What else could have been meant; asked of the registry, which may not say."""
        if reference.tag is None:
            return ()
        tags: list[str] = []
        with suppress(AerogelError):
            tags = self.tags()
        near = nearest(reference.tag, tags)
        if near:
            return (f"did you mean `{reference.with_tag(near).familiar()}`?",)
        return (f"tags there: {', '.join(f'`{tag}`' for tag in tags[-8:])}",) if tags else ()

    def tags(self) -> list[str]:
        """Tags of the repository, at most the first 1000, in the registry's order. Raises `registry.*`, `net.*`."""
        answer = self.endpoint.request(
            self.name, self.scopes, "GET", self.url("tags", "list?n=1000"), what=f"tags of `{self}`"
        )
        try:
            return [str(tag) for tag in json.loads(answer.body).get("tags") or []]
        except (ValueError, AttributeError, RecursionError):
            return []

    def has(self, digest: Digest, scopes: frozenset[str] | None = None) -> bool:
        """Whether the repository has a blob. Raises `registry.*`, `net.*`."""
        try:
            self.endpoint.request(
                self.name, scopes or self.scopes, "HEAD", self.url("blobs", digest), what=f"blob `{digest}`"
            )
        except AerogelError as error:
            if error.code == "registry.not-found":
                return False
            raise
        return True

    def fetch(
        self,
        digest: Digest,
        size: int | None,
        file: BinaryIO,
        *,
        limit: int | None = None,
        on_bytes: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Writes a blob into a seekable file that is empty, continues what breaks, and checks size and digest.

        Content that is wrong is fetched once more. Raises `registry.digest-mismatch`, `registry.*`, `net.*`.
        """
        target = _Hashed(file, digest, on_bytes)
        url = self.url("blobs", digest)

        def send(authorization: dict[str, str]) -> Response:
            target.forget_count()
            return self.endpoint.http.download(
                url,
                cast("BinaryIO", target),  # the four methods that a download uses
                headers=authorization,
                size=size,
                limit=limit,
                resume=True,
                on_bytes=target.count,
            )

        for number in (1, 2):
            self.endpoint.authorized(self.name, self.scopes, url, f"blob `{digest}` of `{self}`", send)
            if target.digest() == digest:
                return
            found = target.digest()
            if number == 1:
                target.clear()
        raise _mismatch(f"blob `{digest}`", str(self), digest, found)

    def blobs(self) -> RepositoryBlobs:
        return RepositoryBlobs(self)


class RepositoryBlobs:
    """A repository as a place to read blobs from; manifests are blobs too, known from the documents that name them."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._held: dict[Digest, bytes] = {}
        self._manifests: set[Digest] = set()

    def resolve(self, reference: Reference) -> Descriptor:
        """The manifest or index that a name means, to begin with. Raises as `Repository.document`."""
        found = self.repository.document(reference)
        self._hold(found.descriptor.digest, found.data)
        return found.descriptor

    def has(self, digest: Digest, /) -> bool:
        """Raises `registry.*`, `net.*`."""
        return digest in self._held or digest in self._manifests or self.repository.has(digest)

    def open(self, digest: Digest, size: int | None = None, /) -> BinaryIO:
        """The blob, whole and checked, from a temporary file. Raises `registry.*`, `net.*`."""
        spool: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the caller closes it
        try:
            if digest in self._held or digest in self._manifests:
                spool.write(self.read(digest, size))
            else:
                self.repository.fetch(digest, size, cast("BinaryIO", spool))
            spool.seek(0)
        except BaseException:
            spool.close()
            raise
        return cast("BinaryIO", spool)

    def read(self, digest: Digest, size: int | None = None, /) -> bytes:
        """A document. Raises `registry.too-large`, `registry.*`, `net.*`."""
        import io

        data = self._held.get(digest)
        if data is not None:
            return data
        if size is not None and size > MAX_DOCUMENT:
            raise AerogelError(
                f"blob `{digest}` has {size} bytes, too many for a document",
                code="registry.too-large",
                exit_status=EXIT_NETWORK,
            )
        if digest in self._manifests:
            name = Reference(self.repository.endpoint.registry, self.repository.name, None, digest)
            data = self.repository.document(name).data
        else:
            file = io.BytesIO()
            self.repository.fetch(digest, size, file, limit=MAX_DOCUMENT)
            data = file.getvalue()
        if size is not None and len(data) != size:
            detail = f"expected {size} bytes\nfound    {len(data)} bytes"
            raise AerogelError(
                f"`{digest}` has another size than its descriptor says",
                code="registry.digest-mismatch",
                detail=detail,
                exit_status=EXIT_NETWORK,
            )
        self._hold(digest, data)
        return data

    def _hold(self, digest: Digest, data: bytes) -> None:
        self._held[digest] = data
        with suppress(ValueError, AttributeError, TypeError, RecursionError):
            for each in json.loads(data).get("manifests") or []:
                self._manifests.add(Digest(str(each.get("digest"))))


class _Hashed:
    """A file on its way in, hashed as it grows; what is thrown away is forgotten."""

    def __init__(self, file: BinaryIO, digest: Digest, on_bytes: Callable[[int], object]) -> None:
        self._file = file
        self._like = digest
        self._on_bytes = on_bytes
        self._counted = 0
        self._hash = new_hash(digest)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(data)
        return len(data)

    def truncate(self) -> None:
        """Called at the beginning only: a download starts anew."""
        self._file.truncate()
        self._hash = new_hash(self._like)

    def flush(self) -> None:
        self._file.flush()

    def clear(self) -> None:
        self._file.seek(0)
        self.truncate()

    def count(self, number: int) -> None:
        self._counted += number
        self._on_bytes(number)

    def forget_count(self) -> None:
        """What the file holds is counted again when the download continues."""
        if self._counted:
            self.count(-self._counted)

    def digest(self) -> Digest:
        return of_hash(self._hash)


def _checked(answer: Response, digest: Digest | None, what: str, registry: str) -> Document:
    served = answer.headers.get("docker-content-digest", "")
    for expected in {digest, Digest(served) if is_digest(served) else None}:
        if expected is not None:
            try:
                check(answer.body, expected, what=what)
            except AerogelError as error:
                raise AerogelError(
                    f"{what} of the registry `{registry}` is not what its digest names",
                    code="registry.digest-mismatch",
                    detail=error.detail,
                    exit_status=EXIT_NETWORK,
                    hints=["a proxy or the registry changes what it serves"],
                ) from None
    said = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("schemaVersion"), int):
        raise AerogelError(
            f"the registry `{registry}` answers with `{said or 'no type'}` for {what}, which is no manifest",
            code="registry.no-manifest",
            exit_status=EXIT_NETWORK,
            hints=["is there a proxy or a login page between?"],
        )
    own = body.get("mediaType")
    kind = own if isinstance(own, str) and own else said if said in INDEX_TYPES | MANIFEST_TYPES else ""
    name = digest or (Digest(served) if is_digest(served) else digest_of(answer.body))
    return Document(Descriptor(media_type=kind, digest=name, size=len(answer.body)), answer.body)


def _mismatch(what: str, where: str, expected: Digest, found: Digest) -> AerogelError:
    return AerogelError(
        f"{what} of `{where}` is not what its digest names",
        code="registry.digest-mismatch",
        detail=f"expected {expected}\nfound    {found}",
        exit_status=EXIT_NETWORK,
        hints=["a proxy or the registry changes what it serves"],
    )


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def _is_loopback(registry: str) -> bool:
    host = urlsplit(f"//{registry}").hostname or ""
    return host == "localhost" or host.endswith(".localhost") or host == "::1" or host.startswith("127.")
