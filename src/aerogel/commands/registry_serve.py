"""`aerogel registry serve`: a registry over the local store."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.serving import RegistryService
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import Message
from aerogel.flag import Flag
from aerogel.net.server import Server
from aerogel.store.disk import disk_errors

__all__ = ["EXAMPLES", "RegistryServe", "RegistryServeResult", "Serving", "run", "text"]

EXAMPLES = (
    ("the images of the store, for this machine to read", "aerogel registry serve"),
    ("a registry for a network without another one", "aerogel registry serve --writable --listen 0.0.0.0:5000 --users users.txt"),
)  # fmt: skip

_LOOPBACK = ("127.", "localhost", "::1")


class RegistryServe(Struct, frozen=True, kw_only=True):
    """Serve the local store as a registry, until it is interrupted."""

    listen: Annotated[str, Flag("Address and port; port 0 is any that is free", metavar="HOST:PORT")] = "127.0.0.1:5000"
    writable: Annotated[bool, Flag("Take pushes and deletions too")] = False
    users: Annotated[
        str, Flag("File of `name:password` lines that only its owner may read", metavar="FILE", complete="file")
    ] = ""
    tls_cert: Annotated[str, Flag("Certificate, PEM", metavar="FILE", complete="file")] = ""
    tls_key: Annotated[str, Flag("Key of the certificate, PEM", metavar="FILE", complete="file")] = ""
    public: Annotated[bool, Flag("Listen to other hosts without users")] = False
    json: Annotated[
        bool, Flag("Print the address as a line of JSON when it serves, and the number of requests at the end")
    ] = False


class RegistryServeResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    requests: int


class Serving(Struct, frozen=True, kw_only=True):
    """The line of `--json` that says where it serves. `port` is the one that was taken, `url` without a path."""

    url: str
    host: str
    port: int
    writable: bool


def text(options: RegistryServe, result: RegistryServeResult) -> str:
    """What is printed at the end."""
    if options.json:
        return json.dumps({"requests": result.requests})
    return f"{result.requests} requests were answered"


def run(options: RegistryServe, world: World) -> RegistryServeResult:
    """Serves until Ctrl-C. Raises `serve.*`, `net.listen`, `net.certificate`, `store.*`."""
    host, port = _address(options.listen)
    users = _users(options.users, world) if options.users else {}
    if not users and not options.public and not host.startswith(_LOOPBACK):
        raise AerogelError(
            f"`{host}` can be reached by other hosts, and nobody needs a password",
            code="serve.public",
            exit_status=EXIT_USAGE,
            hints=["name users with `--users FILE`, or say `--public` when everybody may come"],
        )
    if bool(options.tls_cert) != bool(options.tls_key):
        raise AerogelError(
            "a certificate and its key belong together",
            code="serve.tls",
            exit_status=EXIT_USAGE,
            hints=["give both `--tls-cert FILE` and `--tls-key FILE`"],
        )
    counter = _Counter(world)
    service = RegistryService(world.store, is_writable=options.writable, users=users, on_request=counter.add)
    place = world.settings.directory
    certificate = (str(place / options.tls_cert), str(place / options.tls_key)) if options.tls_cert else None
    server = Server(host, port, service.handle, certificate=certificate)
    scheme = "https" if certificate else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"
    if options.json:
        line = msgspec.json.encode(Serving(url=url, host=host, port=server.port, writable=options.writable))
        os.write(world.streams.stdout, line + b"\n")
    world.sink.emit(Message(f"serving {'and taking ' if options.writable else ''}images on {url}"))
    try:
        server.serve()
    except KeyboardInterrupt:
        # The way to end it.
        return RegistryServeResult(requests=counter.count)
    finally:
        server.close()
        service.close()
    raise AssertionError("it serves until it is interrupted")


class _Counter:
    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self.count = 0

    def add(self, method: str, path: str, status: int) -> None:
        with self._lock:
            self.count += 1
        self._world.sink.emit(Message(f"{status} {method} {_plain(path)}"))


def _plain(path: str) -> str:
    """A path as it may stand in a terminal."""
    return "".join(character if character.isprintable() else "?" for character in path)[:300]


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) >= 1 << 16:
        raise AerogelError(
            f"`--listen {text}` is no address with a port",
            code="serve.address",
            exit_status=EXIT_USAGE,
            hints=["write `127.0.0.1:5000`"],
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def _users(text: str, world: World) -> dict[str, str]:
    path: Path = world.settings.directory / text
    with disk_errors(str(path)):
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    if mode & 0o077:
        raise AerogelError(
            f"others may read the passwords in `{text}`",
            code="serve.users",
            exit_status=EXIT_USAGE,
            hints=[f"take that away with `chmod 600 {text}`"],
        )
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not colon or not name or not password:
            raise AerogelError(
                f"line {number} of `{text}` is not `name:password`",
                code="serve.users",
                exit_status=EXIT_USAGE,
                hints=["one user in each line"],
            )
        world.redactor.add(password)
        found[name] = password
    if not found:
        raise AerogelError(
            f"`{text}` names nobody", code="serve.users", exit_status=EXIT_USAGE, hints=["write `name:password` lines"]
        )
    return found
