"""Registries to read from: manifests, blobs, tags, with authentication and everything checked by digest.

Not for pushing (`registry.push`) and not for the store: a `Repository` gives `Blobs` that `oci.image.copy` and
`oci.image.load` read from. Mirrors are asked first where the user has some (`registry.hosts`). TLS is the rule; plain
HTTP is spoken to loop-back addresses and to registries that the user named as insecure. Authorization, headers and
certificates of ours go to the registry's own address only, also across redirects.
Spec: OCI distribution-spec v1.1 "Pull" (end-1, end-2, end-3, end-8a).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import BinaryIO, TypeVar, cast
from urllib.parse import quote

import msgspec

from aerogel.errors import EXIT_NETWORK, AerogelError, nearest
from aerogel.net.http import Http, Response
from aerogel.oci.digest import Digest, check, digest_of, is_digest, new_hash, of_hash
from aerogel.oci.reference import Reference
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from aerogel.registry.credentials import Credential, Credentials
from aerogel.registry.endpoint import MAX_MANIFEST, Endpoint
from aerogel.registry.fault import request_line
from aerogel.registry.hosts import BLOBS, PULL, RESOLVE, Hosts, Place, Source

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

MAX_DOCUMENT = 16 << 20
"""Largest config that is taken into memory."""

ACCEPT = ", ".join((*sorted(INDEX_TYPES, reverse=True), *sorted(MANIFEST_TYPES, reverse=True)))
"""The kinds of manifests that are understood, OCI's first."""

_SPOOL = 1 << 20
_DOWN = frozenset({"net.unreachable", "net.tls", "net.timeout", "net.proxy"})

_T = TypeVar("_T")


class Document(msgspec.Struct, frozen=True):
    """A manifest or index as it was served, and its checked descriptor."""

    descriptor: Descriptor
    data: bytes


class Registries:
    """All registries of one run, each opened on first use. Threads may share it.

    `hosts` says where each is asked; without it `insecure` names registries (`host` or `host:port`) that may be spoken
    to without TLS. `tell` gets a line for each mirror that could not help.
    """

    def __init__(
        self,
        http: Http,
        credentials: Credentials,
        *,
        hosts: Hosts | None = None,
        insecure: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
        on_secret: Callable[[str], object] = lambda _: None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._hosts = hosts or Hosts(insecure=frozenset(insecure))
        self._clock = clock
        self._on_secret = on_secret
        self._tell = tell
        self._endpoints: dict[Place, Endpoint] = {}
        self._lock = threading.Lock()

    def endpoint(self, registry: str, *, credential: Credential | None = None) -> Endpoint:
        """A registry by its name; with `credential` a fresh one that uses this instead of what is configured.

        Raises `registry.blocked`, `registry.config`.
        """
        place = self._hosts.place(registry)
        return self._at(place) if credential is None else self._open(place, lambda _: credential)

    def repository(self, reference: Reference) -> Repository:
        """The repository of an image; nothing is asked yet. Raises `registry.blocked`, `registry.config`."""
        route = self._hosts.route(reference)
        label = f"{reference.registry}/{reference.repository}"
        target = None if route.target is route.origin else self._repository(route.target, label)
        mirrors = tuple(self._repository(each, label, is_mirror=True) for each in route.mirrors)
        return self._repository(route.origin, label, mirrors=mirrors, target=target)

    def _repository(
        self,
        source: Source,
        label: str,
        *,
        is_mirror: bool = False,
        mirrors: tuple[Repository, ...] = (),
        target: Repository | None = None,
    ) -> Repository:
        place = source.place
        if is_mirror:
            # Others are there to be asked: none is waited for.
            place = msgspec.structs.replace(place, peer=msgspec.structs.replace(place.peer, attempts=1))
        return Repository(
            self._at(place),
            source.repository,
            label=label,
            namespace=source.namespace,
            can=source.can,
            mirrors=mirrors,
            target=target,
            tell=self._tell,
        )

    def _at(self, place: Place) -> Endpoint:
        with self._lock:
            if place not in self._endpoints:
                self._endpoints[place] = self._open(
                    place, lambda repository: self._credentials.find(place.registry, repository)
                )
            return self._endpoints[place]

    def _open(self, place: Place, credential: Callable[[str], Credential | None]) -> Endpoint:
        for _, value in place.peer.headers:
            self._on_secret(value)
        return Endpoint(self._http, place, credential, clock=self._clock, on_secret=self._on_secret)

    def close(self) -> None:
        self._http.close()


class Repository:
    """One repository of a registry, to read from. `target` is where uploads to it go.

    `name` is the repository's name where it is asked, `label` how users know it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        *,
        label: str = "",
        namespace: str = "",
        can: frozenset[str] = frozenset({PULL, RESOLVE, BLOBS}),
        mirrors: tuple[Repository, ...] = (),
        target: Repository | None = None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.endpoint = endpoint
        self.name = name
        self.scopes = frozenset({f"repository:{name}:pull"})
        self.target = target or self
        self._label = label or f"{endpoint.registry}/{name}"
        self._namespace = namespace
        self._can = can
        self._mirrors = mirrors
        self._tell = tell

    def __str__(self) -> str:
        return self._label

    def url(self, *parts: str) -> str:
        found = "/".join((self.endpoint.api(), self.name, *parts))
        if not self._namespace:
            return found
        return f"{found}{'&' if '?' in found else '?'}ns={quote(self._namespace, safe='')}"

    def ask(self, what: str, get: Callable[[Repository], _T]) -> _T:
        """The answer of the first mirror that may be asked for `what` and has one, else of the registry itself.

        Raises what `get` raises for the registry, with what the mirrors said as hints; `registry.no-host`.
        """
        refused: list[str] = []
        for mirror in self._mirrors:
            if what not in mirror._can or mirror.endpoint.is_down:
                continue
            try:
                return get(mirror)
            except AerogelError as error:
                if not error.code.startswith(("registry.", "net.")) or error.code == "registry.canceled":
                    raise
                mirror.endpoint.is_down = mirror.endpoint.is_down or error.code in _DOWN
                refused.append(f"the mirror `{mirror.endpoint.registry}` was asked first: {error.message}")
                if error.code != "registry.not-found":
                    self._tell(refused[-1])
        if what not in self._can:
            raise AerogelError(
                f"`{self}` may be asked for nowhere else",
                code="registry.no-host",
                exit_status=EXIT_NETWORK,
                hints=refused or ["the configuration of its host gives no host the capability for that"],
            )
        try:
            return get(self)
        except AerogelError as error:
            error.hints = (*error.hints, *refused)
            raise

    def document(self, reference: Reference) -> Document:
        """The manifest or index of a tag or digest; the digest wins.

        Raises `registry.not-found` with the nearest tag, `registry.digest-mismatch`, `registry.no-manifest`,
        `registry.*`, `net.*`.
        """
        try:
            return self.ask(PULL if reference.digest else RESOLVE, lambda place: place._document(reference))
        except AerogelError as error:
            if error.code == "registry.not-found":
                error.hints = error.hints or self._advice(reference)
            raise

    def _document(self, reference: Reference) -> Document:
        what = f"image `{reference.familiar()}`"
        url = self.url("manifests", reference.digest or reference.tag or "latest")
        answer = self.endpoint.request(
            self.name,
            self.scopes,
            "GET",
            url,
            what=what,
            headers={"Accept": ACCEPT},
            limit=MAX_MANIFEST,
        )
        line = request_line("GET", url, answer.status)
        return _checked(answer, reference.digest, what, self.endpoint.registry, line)

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
        return self.ask(RESOLVE, lambda place: place._tags())

    def _tags(self) -> list[str]:
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
        """Writes a blob into a seekable file, continues what breaks, and checks size and digest.

        What the file holds is a first part, maybe a wrong one. Content that is wrong is fetched once more. Raises `registry.digest-mismatch`, `registry.*`, `net.*`.
        """
        target = _Hashed(file, digest, on_bytes)
        target.take_in(size)
        self.ask(BLOBS, lambda place: place._fetch(digest, size, target, limit))

    def _fetch(self, digest: Digest, size: int | None, target: _Hashed, limit: int | None) -> None:
        url = self.url("blobs", digest)
        peer = self.endpoint.peer(url)

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
                peer=peer,
            )

        found, line = digest, ""
        for _ in range(2):
            answer = self.endpoint.authorized(self.name, self.scopes, url, f"blob `{digest}` of `{self}`", send)
            found = target.digest()
            if found == digest:
                return
            line = request_line("GET", url, answer.status)
            target.clear()
        raise _mismatch(f"blob `{digest}`", f"{self.endpoint.registry}/{self.name}", digest, found, line)

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
        from tempfile import SpooledTemporaryFile

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
            kind = "manifests" if digest in self._manifests else "blobs"
            line = request_line("GET", self.repository.url(kind, digest), 200)
            raise AerogelError(
                f"`{digest}` has another size than its descriptor says: {line}",
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

    def take_in(self, size: int | None) -> None:
        """Hashes what is there already; more than `size` bytes are no part of it."""
        if size is not None and self._file.seek(0, 2) > size:
            self.clear()
        self._file.seek(0)
        while data := self._file.read(_SPOOL):
            self._hash.update(data)

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


def _checked(answer: Response, digest: Digest | None, what: str, registry: str, line: str) -> Document:
    """The document of an answer; `line` says which request it was."""
    served = answer.headers.get("docker-content-digest", "")
    for expected in {digest, Digest(served) if is_digest(served) else None}:
        if expected is not None:
            try:
                check(answer.body, expected, what=what)
            except AerogelError as error:
                raise AerogelError(
                    f"{what} of the registry `{registry}` is not what its digest names: {line}",
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
            f"the registry `{registry}` answers with `{said or 'no type'}` for {what}, which is no manifest: {line}",
            code="registry.no-manifest",
            exit_status=EXIT_NETWORK,
            hints=["is there a proxy or a login page between?"],
        )
    own = body.get("mediaType")
    kind = own if isinstance(own, str) and own else said if said in INDEX_TYPES | MANIFEST_TYPES else ""
    name = digest or (Digest(served) if is_digest(served) else digest_of(answer.body))
    return Document(Descriptor(media_type=kind, digest=name, size=len(answer.body)), answer.body)


def _mismatch(what: str, where: str, expected: Digest, found: Digest, line: str) -> AerogelError:
    return AerogelError(
        f"{what} of `{where}` is not what its digest names: {line}",
        code="registry.digest-mismatch",
        detail=f"expected {expected}\nfound    {found}",
        exit_status=EXIT_NETWORK,
        hints=["a proxy or the registry changes what it serves"],
    )
