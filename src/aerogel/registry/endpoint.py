"""One registry or mirror: where its API is, how it authenticates, and requests to it.

Spec: OCI distribution-spec v1.1 "Determining Support" (end-1).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

from aerogel.net.http import Http, HttpError, Response
from aerogel.net.parts import FilePart
from aerogel.net.peer import NOBODY, Peer
from aerogel.net.proxy import is_loopback
from aerogel.registry.auth import Authority
from aerogel.registry.credentials import Credential
from aerogel.registry.fault import explain
from aerogel.registry.hosts import Place

__all__ = ["MAX_MANIFEST", "Endpoint"]

MAX_MANIFEST = 4 << 20
"""Largest manifest that registries take, and that is taken from them."""

_ANSWERS = frozenset(range(200, 500)) - {408, 425, 429}
"""Any of these to `/v2/` says that a registry is there."""
_TRIES = 3
"""How often a request is sent when each answer is 401: without token, with a kept one, with a new one."""

Body = bytes | Callable[[], Iterable[bytes | memoryview | FilePart]]
_T = TypeVar("_T")


class Endpoint:
    """One registry or mirror: where its API is, and requests to it with authorization."""

    def __init__(
        self,
        http: Http,
        place: Place,
        credential: Callable[[str], Credential | None],
        *,
        clock: Callable[[], float],
        on_secret: Callable[[str], object],
    ) -> None:
        self.registry = place.registry
        self.http = http
        self.is_down = False
        """A mirror that did not answer is not asked again in this run."""
        self._place = place
        self._base = ""
        self._lock = threading.Lock()
        self._authority = Authority(
            http,
            place.registry,
            credential,
            is_plain=place.is_insecure or place.scheme == "http" or _is_loopback(place.registry),
            peer=self._token_peer,
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

    def api(self) -> str:
        """Where what the specification calls `/v2` is. Raises as `open`."""
        return f"{self.open()}{self._place.path}"

    def peer(self, url: str) -> Peer:
        """What goes with a request to `url`: nothing of the registry's to another host."""
        return self._place.peer if self._is_ours(url) else NOBODY

    def _token_peer(self, url: str) -> Peer:
        return self._place.peer if self._is_ours(url) else self._place.peer.without_secrets()

    def _find(self) -> str:
        schemes = ["https"]
        if self._place.scheme:
            schemes = [self._place.scheme]
        elif _is_loopback(self.registry):
            schemes = ["http", "https"]
        elif self._place.is_insecure:
            schemes = ["https", "http"]
        refused: HttpError | None = None
        for number, scheme in enumerate(schemes, 1):
            base = f"{scheme}://{self._place.host}"
            try:
                answer = self._ping(base)
            except HttpError as error:
                has_port = urlsplit(base).port is not None
                # An answer, whatever it is, says that this is the way to speak.
                if number < len(schemes) and not error.status and (error.code != "net.unreachable" or not has_port):
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
        url = f"{base}{self._place.path}/"
        peer = self._place.peer
        return self.http.request("GET", url, expect=_ANSWERS, redirect=False, limit=1 << 20, is_first=True, peer=peer)

    def user(self, repository: str) -> str | None:
        return self._authority.user(repository)

    def sign_in(self) -> None:
        """Asks the registry whether it takes the credentials. Raises `registry.unauthorized`, `net.*`."""
        self.request("", frozenset(), "GET", f"{self.api()}/", what="a login", limit=1 << 20)

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
            return self.http.request(
                method, url, headers=given, body=body, expect=expect, limit=limit, repeats=repeats, peer=peer
            )

        peer = self.peer(url)
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
            answer = self.http.request("HEAD", url, expect=_ANSWERS, redirect=False, peer=self.peer(url))
            if answer.status == 401:
                self._authority.learn(answer.headers.get("www-authenticate", ""))

    def _is_ours(self, url: str) -> bool:
        return _origin(url) == _origin(self.open())


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def _is_loopback(registry: str) -> bool:
    return is_loopback(urlsplit(f"//{registry}").hostname or "")
