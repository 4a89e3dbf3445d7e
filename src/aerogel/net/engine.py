"""The images of a docker daemon, over its socket: `docker save` and `docker load` without the docker program.

`DOCKER_HOST` says where it is (`unix://`, `tcp://`; with `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` over TLS), else the
socket of the host, else that of a rootless daemon. Spec: Docker Engine API, `GET /images/{name}/get`, `POST /images/load`.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, cast
from urllib.parse import quote, urlsplit

from aerogel.decoding import parse_json
from aerogel.errors import EXIT_NETWORK, EXIT_USAGE, AerogelError

__all__ = ["Engine"]

_SOCKET = "/var/run/docker.sock"
_TIMEOUT_S = 600.0
"""A daemon answers when it has packed or unpacked what it was asked for."""
_MOST_WORDS = 1 << 20
_PLAIN, _TLS = 2375, 2376


class Engine:
    """One daemon. Every call has a connection of its own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Raises `daemon.host` for an address that cannot be."""
        self._environment = environment
        self.address = environment.get("DOCKER_HOST") or f"unix://{_default(environment)}"
        self._split = urlsplit(self.address)
        if self._split.scheme not in ("unix", "tcp", "http", "https"):
            raise AerogelError(
                f"`DOCKER_HOST={self.address}` is no address that is spoken to here",
                code="daemon.host",
                exit_status=EXIT_USAGE,
                hints=["`unix:///path` and `tcp://host:port` are; forward a socket with `ssh -L` for another machine"],
            )

    @contextmanager
    def save(self, name: str) -> Iterator[BinaryIO]:
        """An image as `docker save` writes it. Raises `daemon.no-image`, `daemon.refused`, `daemon.unreachable`."""
        with self._connected() as connection, self._errors():
            connection.request("GET", f"/images/{quote(name, safe='/:@')}/get")
            answer = connection.getresponse()
            if answer.status == http.HTTPStatus.NOT_FOUND:
                raise AerogelError(
                    f"the docker daemon has no image `{name}`",
                    code="daemon.no-image",
                    hints=["`docker images` lists what is there"],
                )
            self._check(answer, "GET", f"/images/{name}/get")
            yield cast("BinaryIO", answer)

    def load(self, write: Callable[[Callable[[bytes | memoryview], object]], None]) -> None:
        """Gives the daemon an archive, which `write` writes to what it is given.

        Raises `daemon.refused`, `daemon.unreachable`.
        """
        path = "/images/load?quiet=1"
        with self._connected() as connection:
            with self._errors():
                connection.putrequest("POST", path)
                connection.putheader("Content-Type", "application/x-tar")
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders()

            def chunk(data: bytes | memoryview) -> None:
                if data:
                    with self._errors():
                        connection.send(b"%x\r\n" % len(data))
                        connection.send(data)
                        connection.send(b"\r\n")

            write(chunk)
            with self._errors():
                connection.send(b"0\r\n\r\n")
                answer = connection.getresponse()
                self._check(answer, "POST", path)
                for line in answer.read(_MOST_WORDS).splitlines():
                    fault = _words(line, "error")
                    if fault:
                        raise _refused("POST", path, self.address, 200, fault)

    def _check(self, answer: http.client.HTTPResponse, method: str, path: str) -> None:
        if answer.status != http.HTTPStatus.OK:
            said = answer.read(_MOST_WORDS)
            raise _refused(
                method, path, self.address, answer.status, _words(said, "message") or _line(said) or answer.reason
            )

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        connection: http.client.HTTPConnection
        place = self._split
        host = place.hostname or "127.0.0.1"
        if place.scheme == "unix":
            connection = _Local(place.path)
        elif place.scheme == "https" or self._environment.get("DOCKER_TLS_VERIFY"):
            connection = http.client.HTTPSConnection(
                host, place.port or _TLS, timeout=_TIMEOUT_S, context=self._context()
            )
        else:
            connection = http.client.HTTPConnection(host, place.port or _PLAIN, timeout=_TIMEOUT_S)
        try:
            with self._errors():
                connection.connect()
                if place.scheme != "unix":
                    # What it has against us is lost when it is told while a whole image is on its way.
                    connection.request("GET", "/_ping")
                    answer = connection.getresponse()
                    self._check(answer, "GET", "/_ping")
                    answer.read()
            yield connection
        finally:
            connection.close()

    def _context(self) -> ssl.SSLContext:
        folder = self._environment.get("DOCKER_CERT_PATH") or f"{self._environment.get('HOME', '')}/.docker"
        path = f"{folder}/ca.pem"
        try:
            context = ssl.create_default_context(cafile=path)
            path = f"{folder}/cert.pem` and `key.pem"
            if os.path.exists(f"{folder}/cert.pem") or os.path.exists(f"{folder}/key.pem"):
                context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
        except OSError as error:
            raise AerogelError(
                f"the certificates for the docker daemon cannot be used: `{path}`: {_why(error)}",
                code="daemon.host",
                exit_status=EXIT_USAGE,
                hints=["`DOCKER_CERT_PATH` has `ca.pem`, and `cert.pem` with `key.pem` where the daemon wants one"],
            ) from None
        return context

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            hint = "is it running, and may you use its socket? `DOCKER_HOST` names another one"
            if isinstance(error, ssl.SSLError):
                hint = "`ca.pem` in `DOCKER_CERT_PATH` must have signed the daemon's certificate, and the daemon must know who "
                hint += "signed `cert.pem` there"
            raise AerogelError(
                f"the docker daemon at `{self.address}` cannot be spoken to: {_why(error)}",
                code="daemon.unreachable",
                exit_status=EXIT_NETWORK,
                hints=[hint],
            ) from None


class _Local(http.client.HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


def _default(environment: Mapping[str, str]) -> str:
    own = f"{environment.get('XDG_RUNTIME_DIR', '')}/docker.sock"
    return own if not os.path.exists(_SOCKET) and os.path.exists(own) else _SOCKET


def _words(data: bytes, key: str) -> str:
    try:
        found = parse_json(data)
        return str(found.get(key) or "")
    except (ValueError, AttributeError):
        return ""


def _line(data: bytes) -> str:
    """A short answer that is no JSON."""
    return data.decode("utf-8", "replace").partition("\n")[0].strip()[:200]


def _why(error: Exception) -> str:
    """In words, without the place in the library's source that TLS faults tell."""
    if isinstance(error, ssl.SSLError):
        text = str(error.args[-1] if error.args else error)
        return text.rpartition("] ")[2].partition(" (_ssl")[0].lower()
    return (getattr(error, "strerror", "") or str(error) or type(error).__name__).lower()


def _refused(method: str, path: str, address: str, status: int, why: str) -> AerogelError:
    hint = "`docker info` and the daemon's log tell more"
    if status == http.HTTPStatus.BAD_REQUEST and "HTTPS server" in why:
        hint = "it speaks TLS: set `DOCKER_TLS_VERIFY=1`, and `DOCKER_CERT_PATH` to the folder of the certificates"
    return AerogelError(
        f"the docker daemon refused: {method} {address}{path}: {status}, {why.strip()}",
        code="daemon.refused",
        exit_status=EXIT_NETWORK,
        hints=[hint],
    )
