"""How a registry wants to know who asks: challenges, Basic, and bearer tokens for scopes.

Credentials go to the registry itself and to the token server that its own `/v2/` names, to nobody else: a challenge
that comes with any other answer may choose scopes only. Tokens are kept until shortly before they end.
Spec: RFC 9110 11.6.1; distribution "Token Authentication Specification" and "Oauth2 Token Authentication".
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from aerogel.errors import EXIT_NETWORK, AerogelError
from aerogel.net.http import Http, HttpError, redact
from aerogel.net.peer import NOBODY, Peer
from aerogel.registry.credentials import Credential
from aerogel.registry.fault import explain

__all__ = ["Authority", "Challenge", "parse_challenges"]

CLIENT_ID = "aerogel"
TOKEN_LIMIT = 1 << 20
_SHORTEST_S = 60.0
"""How long a token lives whose server does not say."""
_EARLY_S = 10.0
_ITEM = re.compile(
    r"[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([!#$%&'*+.^_`|~0-9A-Za-z:/?@-]+)))?"
)


class Challenge(NamedTuple):
    """One way to authenticate. Scheme and names of parameters are lower-case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a WWW-Authenticate header, in its order; what cannot be read ends the list."""
    found: list[Challenge] = []
    at = 0
    while match := _ITEM.match(header, at):
        at = match.end()
        name, quoted, plain = match.groups()
        if quoted is None and plain is None:
            found.append(Challenge(name.lower(), {}))
        elif found:
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            found[-1].parameters.setdefault(name.lower(), value)
    return tuple(found)


class _Token(NamedTuple):
    header: str
    until_s: float


class Authority:
    """What one registry is told about us; shared by the threads of a run.

    `credential` is called at most once for each repository and only when the registry wants one, or gives no
    challenge at all.
    """

    def __init__(
        self,
        http: Http,
        registry: str,
        credential: Callable[[str], Credential | None],
        *,
        is_plain: bool = False,
        peer: Callable[[str], Peer] = lambda _: NOBODY,
        clock: Callable[[], float] = time.monotonic,
        on_secret: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._http = http
        self._registry = registry
        self._credential = credential
        self._is_plain = is_plain
        self._peer = peer
        self._clock = clock
        self._on_secret = on_secret
        self._challenges: tuple[Challenge, ...] = ()
        self._known: dict[str, Credential | None] = {}
        self._tokens: dict[frozenset[str], _Token] = {}
        self._wider: dict[frozenset[str], frozenset[str]] = {}
        self._lock = threading.RLock()

    def learn(self, header: str) -> None:
        """Takes the challenge of the registry's own answer, from which its token server is known."""
        with self._lock:
            self._challenges = tuple(one for one in parse_challenges(header) if one.scheme in ("basic", "bearer"))

    @property
    def knows_a_challenge(self) -> bool:
        return bool(self._challenges)

    def user(self, repository: str) -> str | None:
        """The user that requests about a repository come from; None when they are anonymous."""
        credential = self._find(repository)
        return None if credential is None else credential.username or "the identity token"

    def header(self, repository: str, scopes: frozenset[str]) -> str:
        """The Authorization header for requests of these scopes, empty for none. Raises `registry.*`, `net.*`."""
        with self._lock:
            bearer = next((one for one in self._challenges if one.scheme == "bearer"), None)
            if bearer is not None:
                return self._bearer(bearer, repository, self._wider.get(scopes, scopes))
            credential = self._find(repository)
            if credential is None or not credential.username:
                return ""
            return _basic(credential)

    def again(self, repository: str, scopes: frozenset[str], rejected: str, header: str) -> str:
        """Another header after a 401 for `rejected`; the same one when there is nothing better to say.

        `header` is the WWW-Authenticate of the answer, of which only a scope is taken.
        """
        with self._lock:
            bearer = next((one for one in self._challenges if one.scheme == "bearer"), None)
            if bearer is None:
                return self.header(repository, scopes)
            for challenge in parse_challenges(header):
                if challenge.parameters.get("realm") == bearer.parameters.get("realm"):
                    wanted = frozenset(challenge.parameters.get("scope", "").split())
                    if wanted - scopes:
                        self._wider[scopes] = scopes | wanted
            wider = self._wider.get(scopes, scopes)
            kept = self._tokens.get(wider)
            if kept is not None and kept.header == rejected:
                del self._tokens[wider]
            return self._bearer(bearer, repository, wider)

    def _find(self, repository: str) -> Credential | None:
        with self._lock:
            if repository not in self._known:
                self._known[repository] = self._credential(repository)
            return self._known[repository]

    def _bearer(self, challenge: Challenge, repository: str, scopes: frozenset[str]) -> str:
        kept = self._tokens.get(scopes)
        if kept is not None and self._clock() < kept.until_s:
            return kept.header
        token, lifetime_s = self._fetch(challenge, repository, scopes)
        self._on_secret(token)
        found = _Token(f"Bearer {token}", self._clock() + max(lifetime_s - _EARLY_S, lifetime_s / 2))
        self._tokens[scopes] = found
        return found.header

    def _fetch(self, challenge: Challenge, repository: str, scopes: frozenset[str]) -> tuple[str, float]:
        """A token and for how many seconds it is good."""
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or (parts.scheme == "http" and not self._is_plain)
        ):
            raise AerogelError(
                f"the registry `{self._registry}` names the token server `{redact(realm)}`, which is not spoken to",
                code="registry.realm",
                hints=["a registry with TLS needs a token server with TLS"],
                exit_status=EXIT_NETWORK,
            )
        credential, method = self._find(repository), "GET"
        query = {"service": challenge.parameters.get("service", "")}
        headers, peer = {"Accept": "application/json"}, self._peer(realm)
        fields = [(name, value) for name, value in query.items() if value]
        try:
            if credential is not None and credential.identity_token:
                fields += [("client_id", CLIENT_ID), ("grant_type", "refresh_token")]
                fields += [("refresh_token", credential.identity_token), ("scope", " ".join(sorted(scopes)))]
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                body = urlencode(fields).encode()
                method = "POST"
                answer = self._http.request(
                    method, realm, headers=headers, body=body, limit=TOKEN_LIMIT, redirect=False, peer=peer
                )
            else:
                fields += [("scope", scope) for scope in sorted(scopes)]
                if credential is not None:
                    headers["Authorization"] = _basic(credential)
                    fields += [("account", credential.username)]
                url = f"{realm}{'&' if parts.query else '?'}{urlencode(fields)}"
                answer = self._http.request(method, url, headers=headers, limit=TOKEN_LIMIT, redirect=False, peer=peer)
        except HttpError as error:
            user = None if credential is None else credential.username or "the identity token"
            raise explain(error, _what(scopes, self._registry), registry=self._registry, user=user) from None
        return self._read(answer.body, redact(realm), method)

    def _read(self, body: bytes, realm: str, method: str) -> tuple[str, float]:
        try:
            value = json.loads(body)
            token = value.get("token") or value.get("access_token")
            lifetime = value.get("expires_in")
        except (ValueError, AttributeError, RecursionError):
            token, lifetime = None, None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
            raise AerogelError(
                f"the token server `{realm}` of the registry `{self._registry}` answers without a token: "
                f"{method} {realm}: 200",
                code="registry.token",
                exit_status=EXIT_NETWORK,
            )
        seconds = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else _SHORTEST_S
        return token, min(seconds, 3600.0)


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return "Basic " + base64.b64encode(pair).decode("ascii")


def _what(scopes: frozenset[str], registry: str) -> str:
    """The repositories of the scopes, in words."""
    names = sorted({scope.split(":")[1] for scope in scopes if scope.count(":") >= 2})
    return ", ".join(f"`{registry}/{name}`" for name in names) or "access"
