"""Lends an ssh agent of the host to a sandbox: answers on a socket inside, asks the agent outside.

Only what using a key takes is let through: listing keys, signing, extensions (such as binding a session). Adding and
removing keys, locking, smart cards: refused, as if the agent did not know them. Spec: draft-ietf-sshm-ssh-agent.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

__all__ = ["AgentProxy"]

_LIST, _SIGN, _EXTENSION = 11, 13, 27
_FAILURE = b"\x00\x00\x00\x01\x05"
_MAX_BYTES = 256 << 10
"""Of one message, as in OpenSSH."""


class AgentProxy:
    """Serves the connections to `listener` from the agent at the path `agent` until `close`; one thread for each."""

    def __init__(self, listener: socket.socket, agent: str) -> None:
        self._listener = listener.dup()  # the owner may close its own first, which would not wake the thread
        self._agent = agent
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, name="ssh agent", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends all connections. Their owner's listener stays."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was shut down
                break
            with self._lock:
                self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), name="ssh agent", daemon=True)
            threads.append(thread)
            thread.start()
        for thread in threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
                agent.connect(self._agent)
                while (request := _receive(connection)) is not None:
                    if request[:1] not in (bytes([_LIST]), bytes([_SIGN]), bytes([_EXTENSION])):
                        connection.sendall(_FAILURE)
                        continue
                    agent.sendall(struct.pack(">I", len(request)) + request)
                    answer = _receive(agent)
                    if answer is None:
                        break
                    connection.sendall(struct.pack(">I", len(answer)) + answer)
        except OSError:
            return  # one of the two is gone: the client sees the end of its connection
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _receive(sock: socket.socket) -> bytes | None:
    """The next message without its length; None at the end, or when it is too long to be one."""
    head = _exactly(sock, 4)
    if head is None:
        return None
    (length,) = struct.unpack(">I", head)
    return _exactly(sock, length) if 0 < length <= _MAX_BYTES else None


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            return None
        data += part
    return data
