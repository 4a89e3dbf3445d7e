"""A registry in memory over loop-back, with token or basic authentication and faults that a test scripts.

Small but complete for one client: manifests, blobs with ranges, uploads (monolithic, chunked, mount), tags. A fault
is a function of the request that answers it or returns None; `fail` queues one for a method and a part of the path.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from quiet_server import QuietServer

from aerogel.oci.types import OCI_INDEX

LAYER = bytes(range(256)) * 2000
"""A blob of some size."""


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Answer:
    """`cut_at` sends that many bytes of the body, then closes the connection."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class _Fault:
    method: str
    part: str
    answer: Answer | None
    ranged: bool


class LoopRegistry:
    """`auth` is "", "basic" or "token"; users are name -> password. Anonymous tokens may pull `public` names."""

    def __init__(self) -> None:
        self.host = ""
        self.auth = ""
        self.referrers = False
        self.listed: dict[str, list[dict[str, object]]] = {}
        """What it says besides to refer to a manifest."""
        self.users = {"amy": "open-sesame"}
        self.public: set[str] = set()
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.uploads: dict[str, bytearray] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.seen: list[Request] = []
        self.faults: list[_Fault] = []
        self.tokens: dict[str, tuple[str, ...]] = {}
        self.expires_in: int | None = 300
        self.realm = ""
        self.redirect_blobs_to = ""
        self.digest_header = True
        self.mounts = True
        self.discovers = False
        """Whether a blob is mounted from anywhere when no repository is named."""
        self.monolithic = True
        self.checks = True
        """Whether it compares what is sent with its digest."""

    def fail(self, method: str, part: str, answer: Answer, times: int = 1) -> None:
        self.faults += [_Fault(method, part, answer, ranged=False) for _ in range(times)]

    def count(self, method: str, part: str = "") -> int:
        return sum(1 for each in self.seen if each.method == method and part in each.path)

    def add_blob(self, name: str, data: bytes) -> str:
        self.blobs.setdefault(name, {})[sha(data)] = data
        return sha(data)

    def add_manifest(self, name: str, data: bytes, media_type: str, *tags: str) -> str:
        for key in (sha(data), *tags):
            self.manifests.setdefault(name, {})[key] = (media_type, data)
        return sha(data)

    def answer(self, request: Request) -> Answer:
        """One after the other: a fault is for one request, whatever comes at the same time."""
        with self._lock:
            return self._answer(request)

    def _answer(self, request: Request) -> Answer:
        self.seen.append(request)
        for fault in self.faults:
            if fault.method == request.method and fault.part in request.path:
                self.faults.remove(fault)
                assert fault.answer is not None
                return fault.answer
        if request.path == "/token":
            return self._token(request)
        if not request.path.startswith("/v2/"):
            return Answer(404, b"<html>no</html>", {"Content-Type": "text/html"})
        refusal = self._refused(request)
        return refusal or self._served(request)

    # Who asks.

    def _token(self, request: Request) -> Answer:
        user = self._user(request)
        if request.method == "POST":
            form = {key: value[0] for key, value in parse_qs(request.body.decode()).items()}
            user = "amy" if form.get("refresh_token") == "identity-of-amy" else None
            if user is None:
                return Answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"bad refresh token"}]}')
            request.query["scope"] = form.get("scope", "")
        elif user is None and "authorization" in request.headers:
            return Answer(401, b'{"details":"incorrect username or password"}')
        scopes = request.query.get("scope", "").split()
        granted = []
        for scope in scopes:
            _, name, actions = scope.split(":")
            if user is not None:
                granted.append(scope)
            elif name in self.public and "pull" in actions:
                granted.append(f"repository:{name}:pull")
        token = f"token-{self.count(request.method, '/token')}-{'.'.join(granted) and hashlib.md5(str(granted).encode()).hexdigest()}"
        self.tokens[token] = tuple(granted)
        body: dict[str, object] = {"token": token}
        if self.expires_in is not None:
            body["expires_in"] = self.expires_in
        return Answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _user(self, request: Request) -> str | None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme != "Basic":
            return None
        user, _, password = base64.b64decode(value).decode().partition(":")
        return user if self.users.get(user) == password else None

    def _refused(self, request: Request) -> Answer | None:
        body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
        if self.auth == "basic" and self._user(request) is None:
            return Answer(401, body, {"WWW-Authenticate": 'Basic realm="loop"'})
        if self.auth == "token":
            realm = self.realm or f"http://{self.host}/token"
            found = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", request.path)
            needed = ""
            if found:
                action = "push" if request.method in ("POST", "PUT", "PATCH", "DELETE") else "pull"
                needed = f"repository:{found[1]}:{action}"
            scheme, _, value = request.headers.get("authorization", "").partition(" ")
            granted = self.tokens.get(value) if scheme == "Bearer" else None
            if granted is None or (needed and not self._allows(granted, needed)):
                scope = f',scope="{needed.replace(":push", ":pull,push")}"' if needed else ""
                return Answer(401, body, {"WWW-Authenticate": f'Bearer realm="{realm}",service="loop"{scope}'})
        return None

    @staticmethod
    def _allows(granted: tuple[str, ...], needed: str) -> bool:
        kind, name, action = needed.split(":")
        return any(
            scope.split(":")[:2] == [kind, name] and action in scope.split(":")[2].split(",") for scope in granted
        )

    # What is served.

    def _served(self, request: Request) -> Answer:
        if request.path == "/v2/":
            return Answer(200, b"{}")
        if found := re.fullmatch(r"/v2/(.+)/tags/list", request.path):
            tags = sorted(key for key in self.manifests.get(found[1], {}) if ":" not in key)
            return Answer(200, json.dumps({"name": found[1], "tags": tags}).encode())
        if self.referrers and (found := re.fullmatch(r"/v2/(.+)/referrers/([^/]+)", request.path)):
            return self._referrers(request, found[1], found[2])
        if found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", request.path):
            return self._manifest(request, found[1], found[2])
        if found := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", request.path):
            return self._upload(request, found[1], found[2])
        if found := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", request.path):
            return self._blob(request, found[1], found[2])
        return Answer(404)

    def _manifest(self, request: Request, name: str, key: str) -> Answer:
        if request.method == "PUT":
            kind = request.headers.get("content-type", "")
            for part in [
                *json.loads(request.body).get("layers", []),
                *filter(None, [json.loads(request.body).get("config")]),
            ]:
                if part["digest"] not in self.blobs.get(name, {}) and not part.get("urls"):
                    return Answer(404, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}')
            digest = self.add_manifest(name, request.body, kind, *([] if ":" in key else [key]))
            headers = {"Docker-Content-Digest": digest, "Location": f"/v2/{name}/manifests/{digest}"}
            subject = json.loads(request.body).get("subject")
            if self.referrers and subject:
                headers["OCI-Subject"] = subject["digest"]
            return Answer(201, b"", headers)
        if key not in self.manifests.get(name, {}):
            return Answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        kind, data = self.manifests[name][key]
        extra = {"Docker-Content-Digest": sha(data)} if self.digest_header else {}
        return Answer(200, data, {"Content-Type": kind, **extra})

    def _referrers(self, request: Request, name: str, subject: str) -> Answer:
        """One on each page."""
        found = []
        for key, (kind, data) in sorted(self.manifests.get(name, {}).items()):
            manifest = json.loads(data)
            if ":" in key and (manifest.get("subject") or {}).get("digest") == subject:
                entry = {"mediaType": kind, "digest": key, "size": len(data), "artifactType": manifest["artifactType"]}
                found.append({**entry, "annotations": manifest.get("annotations", {})})
        found += self.listed.get(subject, [])
        page = int(request.query.get("page", "0"))
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[page : page + 1]}
        link = {"Link": f'<{request.path}?page={page + 1}>; rel="next"'} if page + 1 < len(found) else {}
        return Answer(200, json.dumps(body).encode(), {"Content-Type": OCI_INDEX, **link})

    def _blob(self, request: Request, name: str, digest: str) -> Answer:
        data = self.blobs.get(name, {}).get(digest)
        if data is None:
            return Answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}')
        if self.redirect_blobs_to and request.method == "GET":
            return Answer(307, b"", {"Location": f"{self.redirect_blobs_to}/{digest}?signature=sig"})
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if wanted:
            at = int(wanted[1])
            return Answer(206, data[at:], {"Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}"})
        return Answer(200, data, {"Docker-Content-Digest": digest})

    def _upload(self, request: Request, name: str, key: str) -> Answer:
        place = f"/v2/{name}/blobs/uploads/"
        if request.method == "POST":
            source, digest = request.query.get("from", ""), request.query.get("mount", "")
            if self.discovers and not source:
                source = next((place for place, held in self.blobs.items() if digest in held), "")
            if self.mounts and digest in self.blobs.get(source, {}):
                self.add_blob(name, self.blobs[source][digest])
                return Answer(201, b"", {"Location": f"/v2/{name}/blobs/{digest}"})
            key = f"upload-{next(self._numbers)}"  # never one that is in use: several blobs are on their way at once
            self.uploads[key] = bytearray()
            return Answer(202, b"", {"Location": f"{place}{key}?_state=s0", "Range": "0-0"})
        held = self.uploads.get(key)
        if held is None:
            return Answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"upload unknown"}]}')
        state = {"Location": f"{place}{key}?_state=s{len(held)}", "Range": f"0-{max(0, len(held) - 1)}"}
        if request.method == "GET":
            return Answer(204, b"", state)
        if request.query.get("_state") != f"s{len(held)}" and request.method == "PATCH":
            return Answer(416, b"", state)
        if request.method == "PATCH":
            start = int(request.headers.get("content-range", f"{len(held)}-").partition("-")[0])
            if start != len(held):
                return Answer(416, b"", state)
            held += request.body
            state = {"Location": f"{place}{key}?_state=s{len(held)}", "Range": f"0-{max(0, len(held) - 1)}"}
            return Answer(202, b"", state)
        if request.method == "PUT":
            if request.body and not self.monolithic:
                return Answer(413, b"too large")
            data = bytes(held) + request.body
            digest = request.query.get("digest", "")
            if sha(data) != digest and self.checks:
                return Answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}')
            del self.uploads[key]
            self.blobs.setdefault(name, {})[digest] = data
            return Answer(201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{name}/blobs/{digest}"})
        return Answer(405)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: LoopRegistry

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        query: dict[str, str] = {}
        for key, values in parse_qs(parts.query, keep_blank_values=True).items():
            query[key] = " ".join(values)
        headers = {key.lower(): value for key, value in self.headers.items()}
        body = self.rfile.read(length)
        answer = self.owner.answer(Request(self.command, parts.path, query, headers, body))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(answer.body if answer.cut_at is None else answer.body[: answer.cut_at])
                self.wfile.flush()
        if answer.cut_at is not None:
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  the names that the base class looks for

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve_registry(answer: Callable[[Request], Answer] | None = None) -> Iterator[LoopRegistry]:
    owner = LoopRegistry()
    if answer is not None:
        owner.answer = answer  # type: ignore[method-assign]  # a server that is no registry
    server = QuietServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": owner}))
    owner.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield owner
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
