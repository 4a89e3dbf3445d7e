"""The socket by which other processes of the same user reach the one that holds a sandbox; and how that one is started.

The socket lies in a folder that only the user may enter, so whoever connects may ask for anything. It is bound and
connected by the folder's descriptor: the names of sockets are short. Messages are those of `wire`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from threading import Thread

from aerogel.errors import EXIT_HOST, AerogelError

__all__ = ["Connection", "Listener", "connect", "detach", "free_port"]

Connection = socket.socket
"""What `wire` sends and receives on."""

_NAME = "control"


def _place(fd: int) -> str:
    return f"/proc/self/fd/{fd}/{_NAME}"


class Listener:
    """Serves `FOLDER/control`, each connection in a thread of its own, until it is closed."""

    def __init__(self, folder: str, serve: Callable[[socket.socket], object]) -> None:
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._serve = serve
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_NAME, dir_fd=self._folder)
        self._socket.bind(_place(self._folder))
        self._socket.listen(64)
        Thread(target=self._accept, name="control", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._socket.accept()
            except OSError:  # it was closed
                return
            Thread(target=self._answer, args=(one,), name="control request", daemon=True).start()

    def _answer(self, one: socket.socket) -> None:
        with one, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked does not listen any more
            self._serve(one)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_NAME, dir_fd=self._folder)
        os.close(self._folder)


def free_port(protocol: str) -> int:
    """A port of this host that nothing uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as sock:
        sock.bind(("", 0))
        number: int = sock.getsockname()[1]
        return number


def connect(folder: str) -> socket.socket:
    """A connection to who serves the folder. Raises OSError when nobody does."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(_place(fd))
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(fd)
    return sock


def detach(module: str, words: tuple[str, ...], environment: Mapping[str, str], log: str) -> bytes:
    """Starts `main(*words, fd)` of a module in a process that outlives this one and its terminal.

    Returns what it writes to the descriptor `fd` until it closes it. Its standard error goes to the file `log`.
    Raises AerogelError `sandbox.no-process`.
    """
    program = f"import sys; from {module} import main; main(*sys.argv[1:-1], int(sys.argv[-1]))"
    read, write = os.pipe()
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        errors = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # Not waited for: it is to live on when this process has ended.
            subprocess.Popen(
                [sys.executable, "-B", "-c", program, *words, str(write)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=(write,),
                cwd="/",
                env={**environment, "PYTHONPATH": paths},
                start_new_session=True,
            )
        finally:
            os.close(errors)
    except OSError as error:
        os.close(read)
        raise AerogelError(
            f"no process can be started: {error.strerror}", code="sandbox.no-process", exit_status=EXIT_HOST
        ) from None
    finally:
        os.close(write)
    with open(read, "rb") as file:
        return file.read()
