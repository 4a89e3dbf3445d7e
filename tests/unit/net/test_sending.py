"""Bodies of requests out of files, over plain connections and through TLS."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from quiet_server import QuietServer
from tls_front import with_tls

from aerogel.net.http import Http, HttpError
from aerogel.net.parts import FilePart, parts_of

DATA = random.Random(3).randbytes((2 << 20) + 12345)


class Sink:
    """Keeps what is put there."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                size = int(self.headers["Content-Length"])
                sink.bodies.append(self.rfile.read(size))
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def put(http: Http, url: str, path: Path, size: int) -> list[int]:
    """How many bytes each part had when it was sent."""
    sent: list[int] = []

    def body() -> Iterator[FilePart]:
        with path.open("rb", buffering=0) as file:
            for part in parts_of(file, size):
                yield part
                sent.append(part.sent)

    http.request("PUT", url, headers={"Content-Length": str(size)}, body=body, expect=(201,))
    return sent


def test_the_kernel_sends_a_file(sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    normal = socket.socket.sendfile

    def counted(self: socket.socket, file: object, offset: int = 0, count: int | None = None) -> int:
        calls.append((offset, count or 0))
        return normal(self, file, offset, count)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(socket.socket, "sendfile", counted)
    (tmp_path / "blob").write_bytes(DATA)
    sent = put(Http(), f"http://127.0.0.1:{sink.port}/", tmp_path / "blob", len(DATA))
    assert sink.bodies == [DATA]
    assert calls == [(0, 1 << 20), (1 << 20, 1 << 20), (2 << 20, 12345)]
    assert sent == [count for _, count in calls]


def test_with_tls_it_is_read_and_sent(sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl.SSLSocket, "sendfile", None)
    (tmp_path / "blob").write_bytes(DATA)
    try:
        with with_tls(sink.port, tmp_path) as (url, certificate):
            assert sum(put(Http(ca=str(certificate)), f"{url}/", tmp_path / "blob", len(DATA))) == len(DATA)
    except FileNotFoundError as missing:
        pytest.skip(f"there is no `{missing.filename}`")
    assert sink.bodies == [DATA]


def test_a_file_that_ends_early(sink: Sink, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(DATA[:100])
    with pytest.raises(HttpError) as caught:
        put(Http(read_timeout_s=0.3, attempts=1), f"http://127.0.0.1:{sink.port}/", tmp_path / "blob", 200)
    assert caught.value.code == "net.timeout"
