"""Stands before a registry and does to its answers what a test says; everything else passes unchanged.

A fault is for a method and a part of the path, for the first so many requests that fit. `answer` replaces the answer;
`change` gets the real one. With `tokens` the registry wants bearer tokens, each good for so many requests.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from quiet_server import QuietServer


@dataclass
class Said:
    """An answer. `cut_at` ends the connection after that many bytes of the body, `every_s` sends it byte by byte."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    every_s: float = 0.0
    is_silent: bool = False
    reads: bool = True
    """Whether the body of the request is read before."""


@dataclass
class Fault:
    method: str
    part: str
    change: Callable[[Said], Said]
    times: int = 1
    is_early: bool = False
    """The request does not get to the registry."""


class FaultProxy:
    def __init__(self, target: str) -> None:
        self.target = target
        self.host = ""
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.tokens: dict[str, int] = {}
        self.uses = 0
        """How many requests a token is good for; 0 for no tokens at all."""
        self.authorization = ""
        """What the registry behind gets when tokens are used."""
        self.lock = threading.Lock()

    def answer(self, method: str, part: str, said: Said, times: int = 1) -> None:
        self.faults.append(Fault(method, part, lambda _: said, times, is_early=True))

    def change(self, method: str, part: str, change: Callable[[Said], Said], times: int = 1) -> None:
        self.faults.append(Fault(method, part, change, times))

    def count(self, method: str, part: str) -> int:
        return sum(1 for each in self.seen if each[0] == method and part in each[1])

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.part in path:
                    fault.times -= 1
                    return fault
        return None

    def refuses(self, path: str, headers: dict[str, str]) -> Said | None:
        """The part of a token server, and what a registry with one answers to a token that is over."""
        if not self.uses:
            return None
        if path.startswith("/token"):
            with self.lock:
                token = f"token-{len(self.tokens)}"
                self.tokens[token] = self.uses
            body = f'{{"token": "{token}", "expires_in": 300, "issued_at": "2001-01-01T00:00:00Z"}}'
            return Said(200, body.encode(), {"Content-Type": "application/json"})
        token = headers.get("authorization", "").removeprefix("Bearer ")
        with self.lock:
            left = self.tokens.get(token, 0)
            if left:
                self.tokens[token] = left - 1
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{self.host}/token",service="faults"'}
        return None if left else Said(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"expired"}]}', challenge)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: FaultProxy

    def do_GET(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.owner.seen.append((self.command, self.path, headers))
        fault = self.owner.take(self.command, self.path)
        said = self.owner.refuses(self.path, headers)
        if said is None and fault is not None and fault.is_early:
            said = fault.change(Said(0))
        body = b""
        if said is None or said.reads:
            body = self.rfile.read(int(headers.get("content-length") or 0))
        if said is None:
            said = self._forward(body, headers)
            if fault is not None:
                said = fault.change(said)
        self._send(said)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names of http.server

    def _forward(self, body: bytes, headers: dict[str, str]) -> Said:
        connection = http.client.HTTPConnection(self.owner.target, timeout=60)
        if self.owner.authorization:
            headers["authorization"] = self.owner.authorization
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        data = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() != "connection"}
        connection.close()
        return Said(answer.status, data, kept)

    def _send(self, said: Said) -> None:
        if said.is_silent:
            time.sleep(said.every_s)
            self.close_connection = True
            return
        self.send_response_only(said.status)
        named = {name.lower() for name in said.headers}
        for name, value in said.headers.items():
            self.send_header(name, value)
        if "content-length" not in named:
            self.send_header("Content-Length", str(len(said.body)))
        if said.cut_at is not None or not said.reads:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if said.every_s:
            for at in range(len(said.body)):
                self.wfile.write(said.body[at : at + 1])
                self.wfile.flush()
                time.sleep(said.every_s)
            return
        self.wfile.write(said.body if said.cut_at is None else said.body[: said.cut_at])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of http.server
        pass


@contextlib.contextmanager
def before(target: str) -> Iterator[FaultProxy]:
    owner = FaultProxy(target)
    handler = type("Handler", (_Handler,), {"owner": owner})
    server = QuietServer(("127.0.0.1", 0), handler)
    owner.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
