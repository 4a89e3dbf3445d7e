"""A small HTTP/1.1 server: requests as values, answers from memory or from a file. What they mean is for the caller.

Bodies come in with a length or in chunks and are read as a stream; what the caller leaves unread is thrown away, or
the connection is closed when it is much. One thread for each connection.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO, Protocol, cast
from urllib.parse import parse_qs, urlsplit

import msgspec

from aerogel.errors import EXIT_HOST, AerogelError

__all__ = ["Answer", "BadBody", "Body", "Request", "Server"]

_LINE = 1 << 16
_PIECE = 1 << 18
_DRAIN = 4 << 20
_IDLE_S = 60.0
_HANDSHAKE = b"\x16"


class BadBody(Exception):
    """A body that ends too early, or whose chunks are none."""


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


class Body:
    """The body of one request, to be read forward."""

    def __init__(self, stream: _Stream, length: int | None) -> None:
        self._stream = stream
        self._left = length
        """Bytes that are still to come of this piece; None when pieces have their own length and none was begun."""
        self._is_chunked = length is None
        self._is_done = length == 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes, empty at the end. Raises `BadBody`."""
        if self._is_done:
            return b""
        if self._is_chunked and not self._left:
            self._left = self._next_chunk()
            if not self._left:
                self._is_done = True
                return b""
        data = self._stream.read(min(size, self._left or 0, _PIECE))
        if not data:
            raise BadBody("the body ends too early")
        self._left = (self._left or 0) - len(data)
        if not self._left:
            if not self._is_chunked:
                self._is_done = True
            elif self._stream.readline(_LINE).strip():
                raise BadBody("a chunk is longer than it says")
        return data

    def _next_chunk(self) -> int:
        line = self._stream.readline(_LINE).partition(b";")[0].strip()
        try:
            size = int(line, 16)
        except ValueError:
            raise BadBody("a chunk has no length") from None
        if size < 0:
            raise BadBody("a chunk has no length")
        while not size and self._stream.readline(_LINE).strip():
            pass  # trailers say nothing here
        return size

    def drain(self) -> bool:
        """Reads what is left, if that is little; whether it was."""
        left = _DRAIN
        while left > 0:
            data = self.read(_PIECE)
            if not data:
                return True
            left -= len(data)
        return False


class Request(msgspec.Struct, frozen=True):
    """One request. Header names are lower case; of a query key the first value counts, `every` has all."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    every: Mapping[str, Sequence[str]] = {}


class Answer(msgspec.Struct, frozen=True):
    """An answer with `body`, or with `length` bytes of `file` from where it stands; the server closes that."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    file: BinaryIO | None = None
    length: int = 0


Handle = Callable[[Request], Answer]


class Server:
    """Listens from the start; `serve` answers until `stop`. Raises `net.listen` for an address that cannot be."""

    def __init__(self, host: str, port: int, handle: Handle, *, certificate: tuple[str, str] | None = None) -> None:
        try:
            self._server = _Threading((host, port), _Handler)
        except OSError as error:
            raise AerogelError(
                f"cannot listen on `{host}:{port}`: {(error.strerror or str(error)).lower()}",
                code="net.listen",
                exit_status=EXIT_HOST,
                hints=["take another port with `--listen HOST:PORT`; port 0 is any that is free"],
            ) from None
        self._server.answer = handle
        if certificate is not None:
            self._wrap(*certificate)

    def _wrap(self, certificate: str, key: str) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(certificate, key)
        except OSError as error:
            self._server.server_close()
            raise AerogelError(
                f"the certificate `{certificate}` and its key `{key}` cannot be used: {error}",
                code="net.certificate",
                hints=["give PEM files: `--tls-cert FILE --tls-key FILE`"],
            ) from None
        self._server.context = context

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def serve(self) -> None:
        """Blocks; an exception such as KeyboardInterrupt ends it."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """From another thread."""
        self._server.shutdown()

    def close(self) -> None:
        self._server.server_close()


class _Threading(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    context: ssl.SSLContext | None = None
    answer: Handle

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """In the thread of the connection, where the handshake belongs."""
        if self.context is None or not isinstance(request, socket.socket):
            super().finish_request(request, client_address)
            return
        request.settimeout(_IDLE_S)
        if request.recv(1, socket.MSG_PEEK) != _HANDSHAKE:
            # As Go's servers say it, which clients know.
            request.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
            return
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "aerogel"
    sys_version = ""
    timeout = _IDLE_S
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            length = self._length(headers)
        except BadBody:
            self.close_connection = True
            self._send(Answer(400))
            return
        body = Body(self.rfile, length)
        every = parse_qs(parts.query, keep_blank_values=True)
        query = {key: values[0] for key, values in every.items()}
        request = Request(self.command, parts.path, query, headers, body, every)
        answer = cast("_Threading", self.server).answer(request)
        try:
            if not body.drain():
                self.close_connection = True
        except (BadBody, OSError):
            self.close_connection = True
        self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the names of http.server

    @staticmethod
    def _length(headers: Mapping[str, str]) -> int | None:
        coding = headers.get("transfer-encoding", "").lower()
        text = headers.get("content-length", "0")
        if coding not in ("", "chunked") or not (text.isascii() and text.isdecimal()):
            raise BadBody("the body has no length")
        return None if coding else int(text)

    def _send(self, answer: Answer) -> None:
        source = io.BytesIO(answer.body) if answer.file is None else answer.file
        length = len(answer.body) if answer.file is None else answer.length
        with source:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(length))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "HEAD":
                return
            while length:
                data = source.read(min(length, _PIECE))
                if not data:
                    self.close_connection = True  # the client sees that it is cut
                    return
                self.wfile.write(data)
                length -= len(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of http.server
        """Who asks for what is the caller's to tell."""
