"""A registry over the local store: what HTTP requests mean. No sockets here (`net.server`), no files (`store`).

A repository shows what was pushed to it and, of the images of the store, those of its name: `app` is the store's `app`
(docker.io/library/app), `registry.example/team/app` the image that was pulled from there.
Spec: OCI distribution-spec v1.1, all four workflows: pull, push, content discovery, content management.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from aerogel.errors import AerogelError
from aerogel.net.server import Answer, BadBody, Request
from aerogel.oci.digest import Digest, digest_of, is_digest, new_hash, of_hash
from aerogel.oci.image import walk
from aerogel.oci.reference import Reference
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, Descriptor, Index, encode
from aerogel.store.blobs import BlobWriter
from aerogel.store.repositories import Stored
from aerogel.store.store import Store

__all__ = ["RegistryService"]

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_NAME = 255
_MAX_MANIFEST = 4 << 20
_PAGE = 1000
_UPLOADS = 256
_UPLOAD_IDLE_S = 3600.0
_PIECE = 1 << 18
_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
_ROUTES = (
    ("blobs", re.compile(r"/v2/(?P<name>.+)/blobs/(?P<what>[^/]+)")),
    ("uploads", re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<what>[^/]*)")),
    ("manifests", re.compile(r"/v2/(?P<name>.+)/manifests/(?P<what>[^/]+)")),
    ("tags", re.compile(r"/v2/(?P<name>.+)/tags/(?P<what>list)")),
    ("referrers", re.compile(r"/v2/(?P<name>.+)/referrers/(?P<what>[^/]+)")),
)


class _Refused(Exception):
    """An answer that is an error of the specification."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def answer(self) -> Answer:
        body = json.dumps({"errors": [{"code": self.code, "message": self.message}]}).encode()
        return Answer(self.status, {**_VERSION, "Content-Type": "application/json", **self.headers}, body)


class _Upload:
    """A blob on its way."""

    def __init__(self, repository: str, writer: BlobWriter) -> None:
        self.repository = repository
        self.writer = writer
        self.lock = threading.Lock()
        self.touched_s = time.monotonic()


class RegistryService:
    """Answers requests. Threads may share it. `users` are names and passwords; without any, everybody may come.

    `on_request` is told method, path and status of each.
    """

    def __init__(
        self,
        store: Store,
        *,
        is_writable: bool = False,
        users: Mapping[str, str] | None = None,
        on_request: Callable[[str, str, int], object] = lambda *_: None,
    ) -> None:
        self._store = store
        self._is_writable = is_writable
        self._users = dict(users or {})
        self._on_request = on_request
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}
        self._reached: dict[Digest, frozenset[Digest]] = {}

    def handle(self, request: Request) -> Answer:
        """One request; every fault is an answer."""
        try:
            answer = self._answer(request)
        except _Refused as refused:
            answer = refused.answer()
        except BadBody as error:
            answer = _Refused(400, "BLOB_UPLOAD_INVALID", str(error)).answer()
        except AerogelError as error:
            answer = _refused_by_store(error).answer()
        self._on_request(request.method, request.path, answer.status)
        return answer

    def close(self) -> None:
        """Throws away what was begun."""
        with self._lock:
            for upload in self._uploads.values():
                upload.writer.abort()
            self._uploads.clear()

    def _answer(self, request: Request) -> Answer:
        self._authorize(request)
        if request.path in ("/v2/", "/v2"):
            return _json(200, {})
        if request.path == "/v2/_catalog" and request.method in ("GET", "HEAD"):
            return self._catalog(request)
        for kind, pattern in _ROUTES:
            found = pattern.fullmatch(request.path)
            if found is None:
                continue
            name, what = found["name"], unquote(found["what"])
            if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
                raise _Refused(400, "NAME_INVALID", f"{name} is no name of a repository")
            method: Callable[[Request, str, str], Answer] | None = getattr(
                self, f"_{request.method.lower()}_{kind}", None
            )
            if request.method == "HEAD":
                method = getattr(self, f"_get_{kind}", None)
            if method is None:
                raise _Refused(405, "UNSUPPORTED", f"{request.method} is not for {kind}")
            if request.method not in ("GET", "HEAD") and not self._is_writable:
                raise _Refused(405, "UNSUPPORTED", "this registry is read only")
            return method(request, name, what)
        raise _Refused(404, "NOT_FOUND", "there is nothing at this address")

    def _authorize(self, request: Request) -> None:
        if not self._users:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except ValueError:
            scheme, user, password = "", "", ""
        known = self._users.get(user, secrets.token_hex())
        if scheme.lower() != "basic" or not hmac.compare_digest(known.encode(), password.encode()):
            challenge = {"WWW-Authenticate": 'Basic realm="aerogel", charset="UTF-8"'}
            raise _Refused(401, "UNAUTHORIZED", "name and password are needed", challenge)

    # Blobs.

    def _get_blobs(self, request: Request, name: str, what: str) -> Answer:
        digest = _digest(what)
        size = self._size(name, digest)
        if size is None:
            raise _Refused(404, "BLOB_UNKNOWN", f"{name} has no blob {digest}")
        headers = {
            **_VERSION,
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
        }
        span = _range(request.headers.get("range", ""), size)
        if request.method == "HEAD":
            return Answer(200, {**headers, "Content-Length": str(size)})
        file = self._open(digest, size)
        if span is None:
            return Answer(200, headers, file=file, length=size)
        file.seek(span[0])
        headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{size}"
        return Answer(206, headers, file=file, length=span[1] - span[0] + 1)

    def _size(self, name: str, digest: Digest) -> int | None:
        """Bytes of a blob; None when the repository has none. It may be a layer that stayed in another registry."""
        if not self._has_blob(name, digest):
            return None
        found = self._store.blobs.size(digest)
        if found is not None or not self._store.origins.of(digest):
            return found
        parts = (part for top in self._tops(name) for part in walk(top, self._store.blobs))
        return next((part.size for part in parts if part.digest == digest), None)

    def _open(self, digest: Digest, size: int) -> BinaryIO:
        """A blob to be read at any place; one that stayed in another registry is fetched first."""
        try:
            self._store.blobs.open_unchecked(digest, size).close()
        except AerogelError as error:
            if not error.code.startswith(("net.", "registry.")):
                raise
            places = ", ".join(self._store.origins.of(digest))
            message = f"blob {digest} lies in {places} and cannot be fetched: {error.message}"
            raise _Refused(502, "UNAVAILABLE", message) from None
        return open(self._store.blobs.path(digest), "rb")

    def _delete_blobs(self, request: Request, name: str, what: str) -> Answer:
        del request
        digest = _digest(what)
        if not self._stored(name).remove_blob(digest):
            raise _Refused(404, "BLOB_UNKNOWN", f"{name} has no blob {digest}")
        return Answer(202, _VERSION)

    def _has_blob(self, name: str, digest: Digest) -> bool:
        return self._stored(name).has_blob(digest) or any(digest in self._reach(top) for top in self._tops(name))

    # Uploads.

    def _post_uploads(self, request: Request, name: str, what: str) -> Answer:
        if what:
            raise _Refused(405, "UNSUPPORTED", "an upload is begun at /blobs/uploads/")
        mount, digest = request.query.get("mount", ""), request.query.get("digest", "")
        if mount and self._mounted(name, mount, request.query.get("from", "")):
            return self._blob_made(name, Digest(mount))
        if digest:
            _digest(digest)
        key, upload = self._begin(name)
        if not digest:
            return self._progress(202, name, key, upload)
        return self._complete(request, name, key, upload)

    def _mounted(self, name: str, mount: str, source: str) -> bool:
        """Whether the blob is in the other repository, or, when none is named, anywhere that this registry shows."""
        if not is_digest(mount):
            return False
        digest = Digest(mount)
        if self._store.blobs.size(digest) is None:
            return False
        places = [source] if source else [each.name for each in self._store.repositories.all()]
        if not any(self._has_blob(place, digest) for place in places):
            return False
        self._stored(name).add_blob(digest)
        return True

    def _begin(self, name: str) -> tuple[str, _Upload]:
        key, now = secrets.token_urlsafe(18), time.monotonic()
        with self._lock:
            for old in [key for key, each in self._uploads.items() if each.touched_s < now - _UPLOAD_IDLE_S]:
                self._uploads.pop(old).writer.abort()
            if len(self._uploads) >= _UPLOADS:
                raise _Refused(429, "TOOMANYREQUESTS", "too many uploads are open", {"Retry-After": "5"})
            upload = self._uploads[key] = _Upload(name, self._store.blobs.write())
        return key, upload

    def _upload(self, name: str, key: str) -> _Upload:
        with self._lock:
            upload = self._uploads.get(key)
        if upload is None or upload.repository != name:
            raise _Refused(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        upload.touched_s = time.monotonic()
        return upload

    def _progress(self, status: int, name: str, key: str, upload: _Upload) -> Answer:
        headers = {**_VERSION, "Location": f"/v2/{name}/blobs/uploads/{key}", "Docker-Upload-UUID": key}
        headers["Range"] = f"0-{max(0, upload.writer.size - 1)}"
        return Answer(status, headers)

    def _get_uploads(self, request: Request, name: str, what: str) -> Answer:
        del request
        return self._progress(204, name, what, self._upload(name, what))

    def _patch_uploads(self, request: Request, name: str, what: str) -> Answer:
        upload = self._upload(name, what)
        with upload.lock:
            self._append(request, upload)
            return self._progress(202, name, what, upload)

    def _put_uploads(self, request: Request, name: str, what: str) -> Answer:
        upload = self._upload(name, what)
        return self._complete(request, name, what, upload)

    def _delete_uploads(self, request: Request, name: str, what: str) -> Answer:
        del request
        upload = self._upload(name, what)
        with upload.lock:
            self._drop(what)
        return Answer(204, _VERSION)

    def _drop(self, key: str) -> None:
        with self._lock:
            upload = self._uploads.pop(key, None)
        if upload is not None:
            upload.writer.abort()

    def _append(self, request: Request, upload: _Upload) -> None:
        """Adds the body. What a chunk says of its place must fit, or the client is told how far it has got."""
        span = re.fullmatch(r"(?:bytes[ =])?(\d+)-(\d+)(?:/.*)?", request.headers.get("content-range", ""))
        at = upload.writer.size
        if "content-range" in request.headers and (span is None or int(span[1]) != at):
            raise _Refused(416, "BLOB_UPLOAD_INVALID", f"the next byte is {at}", {"Range": f"0-{max(0, at - 1)}"})
        while data := request.body.read(_PIECE):
            upload.writer.write(data)
        if span is not None and upload.writer.size != int(span[2]) + 1:
            raise _Refused(400, "SIZE_INVALID", f"the chunk has {upload.writer.size - at} bytes")

    def _complete(self, request: Request, name: str, key: str, upload: _Upload) -> Answer:
        digest = _digest(request.query.get("digest", ""))
        with upload.lock:
            self._append(request, upload)
            try:
                upload.writer.commit(digest)
            except AerogelError as error:
                self._drop(key)
                if error.code == "store.mismatch":
                    raise _Refused(400, "DIGEST_INVALID", f"what came is not {digest}") from None
                raise
            with self._lock:
                self._uploads.pop(key, None)
        self._store.blobs.sync([digest])
        self._stored(name).add_blob(digest)
        return self._blob_made(name, digest)

    @staticmethod
    def _blob_made(name: str, digest: Digest) -> Answer:
        return Answer(201, {**_VERSION, "Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})

    # Manifests.

    def _get_manifests(self, request: Request, name: str, what: str) -> Answer:
        found = self._manifest(name, what)
        if found is None or (size := self._store.blobs.size(found.digest)) is None:
            raise _Refused(404, "MANIFEST_UNKNOWN", f"{name} has no manifest {what}")
        headers = {
            **_VERSION,
            "Content-Type": found.media_type,
            "Docker-Content-Digest": found.digest,
            "ETag": f'"{found.digest}"',
        }
        if request.method == "HEAD":
            return Answer(200, {**headers, "Content-Length": str(size)})
        return Answer(200, headers, self._store.blobs.read(found.digest))

    def _manifest(self, name: str, what: str) -> Descriptor | None:
        stored = self._stored(name)
        if ":" in what:
            digest: Digest | None = _digest(what)
        elif _TAG.fullmatch(what):
            digest = stored.tag(what)
        else:
            raise _Refused(400, "MANIFEST_INVALID", f"{what} is neither a tag nor a digest")
        found = stored.manifest(digest) if digest is not None else None
        if found is not None:
            return found
        if digest is None or ":" not in what:
            return self._names_of(name).get(what)
        for top in self._tops(name):
            for part in walk(top, self._store.blobs):
                if part.digest == digest and (part.media_type in INDEX_TYPES or part.media_type in MANIFEST_TYPES):
                    return part
                found = next((each for each in self._artifacts(part.digest) if each.digest == digest), None)
                if found is not None:
                    return found
        return None

    def _put_manifests(self, request: Request, name: str, what: str) -> Answer:
        data = self._body(request)
        algorithm = what.partition(":")[0] if ":" in what else "sha256"
        if ":" in what:
            _digest(what)
        tags = [what] if ":" not in what else list(request.every.get("tag", ()))
        for tag in tags:
            if not _TAG.fullmatch(tag):
                raise _Refused(400, "MANIFEST_INVALID", f"{tag[:200]} is no tag")
        state = new_hash(Digest(f"{algorithm}:"))
        state.update(data)
        digest = of_hash(state)
        if ":" in what and digest != what:
            raise _Refused(400, "DIGEST_INVALID", f"what came is {digest}")
        body, media_type = _document(data, request.headers.get("content-type", ""))
        stored = self._stored(name)
        self._check_parts(body, name)
        with self._store.blobs.write() as writer:
            writer.write(data)
            writer.commit(digest)
        self._store.blobs.sync([digest])
        subject = body.get("subject")
        about = str(subject.get("digest")) if isinstance(subject, dict) else ""
        stored.add_manifest(_listed(body, media_type, digest, len(data)), about if is_digest(about) else "")
        for tag in tags:
            stored.set_tag(tag, digest)
        headers = {**_VERSION, "Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if ":" in what and tags:
            headers["OCI-Tag"] = ", ".join(tags)
        if is_digest(about):
            headers["OCI-Subject"] = about
        return Answer(201, headers)

    @staticmethod
    def _body(request: Request) -> bytes:
        data = b""
        while piece := request.body.read(_PIECE):
            data += piece
            if len(data) > _MAX_MANIFEST:
                raise _Refused(413, "SIZE_INVALID", f"a manifest has at most {_MAX_MANIFEST} bytes")
        return data

    def _check_parts(self, body: Mapping[str, Any], name: str) -> None:
        """Blobs come before the manifest; of an index and a subject the manifests may come later."""
        layers = body.get("layers")
        parts = [body.get("config"), *(layers if isinstance(layers, list) else [])]
        for part in parts:
            if not isinstance(part, dict) or part.get("urls"):
                continue
            digest = str(part.get("digest"))
            if not is_digest(digest):
                raise _Refused(400, "MANIFEST_INVALID", f"{digest[:100]} is no digest")
            if self._store.blobs.size(Digest(digest)) is None or not self._has_blob(name, Digest(digest)):
                raise _Refused(404, "MANIFEST_BLOB_UNKNOWN", f"{name} has no blob {digest}")

    def _delete_manifests(self, request: Request, name: str, what: str) -> Answer:
        del request
        stored = self._stored(name)
        is_gone = stored.remove_manifest(_digest(what)) if ":" in what else stored.untag(what)
        if not is_gone:
            raise _Refused(404, "MANIFEST_UNKNOWN", f"{name} has no manifest {what} that can be deleted")
        return Answer(202, _VERSION)

    # Discovery.

    def _get_tags(self, request: Request, name: str, what: str) -> Answer:
        del what
        tags = set(self._stored(name).tags()) | self._names_of(name).keys()
        if not tags and not self._stored(name).manifests():
            raise _Refused(404, "NAME_UNKNOWN", f"there is no repository {name}")
        listed, headers = _page(sorted(tags), request, f"/v2/{name}/tags/list")
        return _json(200, {"name": name, "tags": listed}, headers)

    def _catalog(self, request: Request) -> Answer:
        names = {each.name for each in self._store.repositories.all()}
        for record in self._store.images.list():
            names |= {each.familiar().rpartition(":")[0] for each in record.references if each.tag is not None}
        listed, headers = _page(sorted(names), request, "/v2/_catalog")
        return _json(200, {"repositories": listed}, headers)

    def _get_referrers(self, request: Request, name: str, what: str) -> Answer:
        digest = _digest(what)
        found = {each.digest: each for each, subject in self._stored(name).manifests() if subject == digest}
        if any(digest in self._reach(top) for top in self._tops(name)):
            found |= {each.digest: each for each in self._artifacts(digest)}
        headers = {**_VERSION, "Content-Type": OCI_INDEX}
        wanted = request.query.get("artifactType", "")
        if wanted:
            found = {key: each for key, each in found.items() if each.artifact_type == wanted}
            headers["OCI-Filters-Applied"] = "artifactType"
        listed = tuple(found[key] for key in sorted(found))
        return Answer(200, headers, encode(Index(schema_version=2, media_type=OCI_INDEX, manifests=listed)))

    # The images of the store.

    def _stored(self, name: str) -> Stored:
        return self._store.repositories.of(name)

    def _names_of(self, name: str) -> dict[str, Descriptor]:
        """The tags that the store has for a name."""
        try:
            wanted = Reference.parse(name)
        except AerogelError:
            return {}
        return {
            reference.tag: record.descriptor
            for record in self._store.images.list()
            for reference in record.references
            if reference.name == wanted.name and reference.tag is not None
        }

    def _tops(self, name: str) -> list[Descriptor]:
        return [descriptor for _, descriptor in sorted(self._names_of(name).items())]

    def _artifacts(self, subject: Digest) -> tuple[Descriptor, ...]:
        return self._store.referrers.of(subject)

    def _reach(self, top: Descriptor) -> frozenset[Digest]:
        """Everything that an image of the store needs, what refers to it included."""
        artifacts = {part.digest: self._artifacts(part.digest) for part in walk(top, self._store.blobs)}
        key = digest_of(repr((top.digest, sorted(artifacts.items()))).encode())
        known = self._reached.get(key)
        if known is None:
            tops = [top, *(each for found in artifacts.values() for each in found)]
            known = frozenset(part.digest for each in tops for part in walk(each, self._store.blobs))
            with self._lock:
                if len(self._reached) > _PAGE:
                    self._reached.clear()
                self._reached[key] = known
        return known


def _json(status: int, value: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status, {**_VERSION, "Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()
    )


def _digest(text: str) -> Digest:
    if not is_digest(text):
        raise _Refused(400, "DIGEST_INVALID", f"{text[:100]} is no digest")
    return Digest(text)


def _range(text: str, size: int) -> tuple[int, int] | None:
    """First and last byte that are asked for; None for all. One range is served, of several the whole."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(int(found[2]) if found[2] else size - 1, size - 1)
        if found[2] and int(found[2]) < int(found[1]):
            first = size  # no range at all
    if first >= size or first > last:
        raise _Refused(416, "RANGE_INVALID", f"the blob has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return first, last


def _document(data: bytes, said: str) -> tuple[dict[str, Any], str]:
    """A manifest as JSON and its media type. Its form is for those who use it."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _Refused(400, "MANIFEST_INVALID", "a manifest is a JSON object")
    own, kind = body.get("mediaType"), said.partition(";")[0].strip()
    if own is not None and not isinstance(own, str):
        raise _Refused(400, "MANIFEST_INVALID", "its mediaType is no text")
    if own and kind and own != kind:
        raise _Refused(400, "MANIFEST_INVALID", f"it is {own[:100]}, and was sent as {kind[:100]}")
    if not (own or kind):
        raise _Refused(400, "MANIFEST_INVALID", "it has no media type")
    return body, own or kind


def _listed(body: Mapping[str, Any], media_type: str, digest: Digest, size: int) -> Descriptor:
    """The manifest as a list of referrers has it."""
    config, annotations = body.get("config"), body.get("annotations")
    kind = body.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else "")
    texts = annotations if isinstance(annotations, dict) else {}
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        artifact_type=kind if isinstance(kind, str) else "",
        annotations={str(key): str(value) for key, value in texts.items()},
    )


def _page(names: list[str], request: Request, path: str) -> tuple[list[str], dict[str, str]]:
    """`n` of the names after `last`, and where the next ones are."""
    text = request.query.get("n", "")
    if text and not (text.isascii() and text.isdecimal()):
        raise _Refused(400, "PAGINATION_NUMBER_INVALID", "n is a number")
    count = min(int(text), _PAGE) if text else _PAGE
    after = request.query.get("last", "")
    left = [name for name in names if name > after]
    listed = left[:count]
    if len(left) > count and listed:
        following = f"<{path}?n={count}&last={quote(listed[-1], safe='')}>"
        return listed, {"Link": f'{following}; rel="next"'}
    return listed, {}


def _refused_by_store(error: AerogelError) -> _Refused:
    if error.code in ("store.full", "store.io", "store.denied"):
        return _Refused(503 if error.code != "store.full" else 507, "UNAVAILABLE", error.message)
    if error.code in ("store.missing", "store.corrupt"):
        return _Refused(404, "BLOB_UNKNOWN", error.message)
    return _Refused(500, "UNKNOWN", error.message)
