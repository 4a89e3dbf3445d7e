"""Bodies of requests that lie in files: the kernel sends them, unless they have to be encrypted here.

To read each piece and send it again takes half of the processor time of an upload. Imported with the first connection,
because it extends `urllib3`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from aerogel.net.parts import FilePart

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["teach"]

_PIECE = 1 << 18


def teach(manager: PoolManager) -> None:
    """Lets the connections of a pool send `FilePart`s."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecuredPool}


def _send(part: FilePart, sock: socket.socket) -> None:
    """All of a part, or less where the file ends."""
    if type(sock) is socket.socket:
        part.sent = sock.sendfile(part.file, part.at, part.count)
        return
    part.file.seek(part.at)
    view, part.sent = memoryview(bytearray(_PIECE)), 0
    read = cast("Callable[[memoryview], int]", getattr(part.file, "readinto"))  # noqa: B009 - not of BinaryIO
    while part.sent < part.count and (count := read(view[: part.count - part.sent])):
        sock.sendall(view[:count])
        part.sent += count


class _Connection(HTTPConnection):
    def send(self, data: object) -> None:
        if isinstance(data, FilePart) and self.sock is not None:
            _send(data, self.sock)
        else:
            super().send(data)  # type: ignore[arg-type]  # as wide as what http.client takes


class _SecuredConnection(HTTPSConnection):
    def send(self, data: object) -> None:
        if isinstance(data, FilePart) and self.sock is not None:
            _send(data, self.sock)
        else:
            super().send(data)  # type: ignore[arg-type]  # as wide as what http.client takes


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecuredPool(HTTPSConnectionPool):
    ConnectionCls = _SecuredConnection
