"""A loop-back HTTP server with files in memory, ranges, and faults that a test scripts per path."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

from quiet_server import QuietServer


@dataclass
class Fault:
    """What happens once instead of a plain answer; `cut_at` sends that many bytes, then closes.

    `stall_s` waits before the answer, `trickle_s` after each single byte.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_at: int | None = None
    stall_s: float = 0.0
    trickle_s: float = 0.0
    ignore_range: bool = False
    replace: bytes | None = None


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class FaultServer:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.seen: list[Seen] = []
        self.etags = True
        self.url = ""

    def fail(self, path: str, *faults: Fault, times: int = 1) -> None:
        self.faults.setdefault(path, []).extend(list(faults) * times)

    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultServer

    def do_GET(self) -> None:
        owner = self.owner
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = self.path
        owner.seen.append(Seen(self.command, path, {k.lower(): v for k, v in self.headers.items()}, body))
        queue = owner.faults.get(path) or []
        fault = queue.pop(0) if queue else Fault()
        if fault.stall_s:
            time.sleep(fault.stall_s)
        if fault.status != 200:
            self.answer(fault.status, fault.headers, fault.body)
            return
        data = fault.replace if fault.replace is not None else owner.files.get(path.partition("?")[0])
        if data is None:
            self.answer(404, {}, b"not here")
            return
        etag = f'"{hash(data):x}"'
        headers = {"ETag": etag, "Last-Modified": formatdate(0, usegmt=True)} if owner.etags else {}
        if owner.etags and self.headers.get("If-None-Match") == etag:
            self.answer(304, headers, b"")
            return
        status, start = 200, 0
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and not fault.ignore_range:
            start = int(wanted[6:].rstrip("-"))
            if self.headers.get("If-Range", etag) != etag:
                start = 0
            elif start >= len(data):
                self.answer(416, {}, b"")
                return
            else:
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(status, {**headers, **fault.headers}, data[start:], fault.cut_at, fault.trickle_s)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815  the names that the base class looks for

    def answer(
        self, status: int, headers: dict[str, str], body: bytes, cut_at: int | None = None, trickle_s: float = 0
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(ConnectionError):
            if trickle_s:
                for i in range(len(body)):
                    self.wfile.write(body[i : i + 1])
                    time.sleep(trickle_s)
                return
            self.wfile.write(body if cut_at is None else body[:cut_at])
            self.wfile.flush()
        if cut_at is not None:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve() -> Iterator[FaultServer]:
    owner = FaultServer()
    handler = type("Handler", (_Handler,), {"owner": owner})
    server = QuietServer(("127.0.0.1", 0), handler)
    owner.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield owner
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
