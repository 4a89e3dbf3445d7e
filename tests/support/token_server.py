"""A server of tokens as docker-registry trusts them: JWTs signed with a key whose certificate it has.

Spec: distribution "Docker Registry v2 authentication via central service", "Token Authentication Implementation".
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from quiet_server import QuietServer

SERVICE, ISSUER = "registry of the tests", "tokens of the tests"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """`users` (`name:password`) get what they ask for, others may pull `public/...`. `asked` are user and scopes.

    The next `expired` tokens are too old when they come.
    """

    def __init__(self, certificate: Path, key: Path, *users: str) -> None:
        self.certificate = certificate
        self.key = key
        self.users = {base64.b64encode(each.encode()).decode(): each.partition(":")[0] for each in users}
        self.asked: list[tuple[str, list[str]]] = []
        self.expired = 0
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = QuietServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def auth(self) -> dict[str, Any]:
        """What docker-registry's configuration says of it."""
        realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        token = {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(self.certificate)}
        return {"auth": {"token": token}}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def granted(self, user: str, scopes: list[str]) -> list[dict[str, object]]:
        found = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if user else ["pull"] if name.startswith("public/") else []
            found.append(
                {"type": kind, "name": name, "actions": [each for each in actions.split(",") if each in allowed]}
            )
        return found

    def token(self, user: str, scopes: list[str]) -> str:
        now = int(time.time())
        age = 3600 if self.expired else 0
        self.expired = max(0, self.expired - 1)
        pem = "".join(self.certificate.read_text().splitlines()[1:-1])
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + 300 - age, "nbf": now - 10 - age}
        claims |= {"iat": now - age, "jti": str(len(self.asked)), "access": self.granted(user, scopes)}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [pem]}
        signed = ".".join(b64(json.dumps(each).encode()) for each in (header, claims))
        words = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        made = subprocess.run(words, input=signed.encode(), capture_output=True, check=True).stdout
        return f"{signed}.{b64(made)}"


class _Handler(BaseHTTPRequestHandler):
    owner: TokenServer

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        user = self.owner.users.get(value, "")
        scopes = [one for each in query.get("scope", []) for one in each.split()]
        self.owner.asked.append((user, scopes))
        is_known = query.get("service") == [SERVICE] and (user or not scheme)
        answer = {"token": self.owner.token(user, scopes), "expires_in": 300} if is_known else {"details": "no"}
        body = json.dumps(answer).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
