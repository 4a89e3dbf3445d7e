"""A running command, as the main process holds it: how it is signalled, waited for, and what is given back after it.

Made by `launch.Helper.run`; process 1 of the sandbox (`init`) is on the other end of the socket.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from signal import SIGKILL, SIGTERM
from types import TracebackType
from typing import Any, Protocol, Self

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import wire
from aerogel.sandbox.cgroup import Group
from aerogel.sandbox.spec import Exit

__all__ = ["DISCARD", "Closable", "HelperBug", "Owner", "Process", "failure"]

DISCARD = "aerogel.sandbox.discard"
"""The module whose job removes what a command wrote and nobody keeps."""
_CLOSE_TIMEOUT_S = 5.0
"""After that the socket is closed, which makes the helper kill process 1 itself."""


class Owner(Protocol):
    """What a process needs of the helper that it runs in."""

    def call(self, job: str, args: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]: ...

    def died(self) -> AerogelError: ...


class HelperBug(RuntimeError):
    """A fault of aerogel's own in the helper; the text is its traceback."""


class Closable(Protocol):
    """Something that is given back."""

    def close(self) -> None: ...


class Process:
    """A running command. One thread waits; any thread may signal.

    `pid` is process 1 of the sandbox as the host numbers it. `tty` is the master of the terminal when one was asked
    for; it belongs to the process and is closed with it, as do `listeners`, the sockets of mounts of that kind by
    target, and `namespaces`, the descriptors by which others join; without namespaces `tree` is its root with `binds` in it, and `group` holds it if anything does. `joined` are
    those others.
    """

    def __init__(
        self, helper: Owner, sock: socket.socket, throw_away: str | None, after: tuple[str, dict[str, Any]] | None
    ) -> None:
        self.pid = 0
        self.tty: int | None = None
        self.listeners: dict[str, socket.socket] = {}
        self.namespaces: tuple[int, ...] = ()
        self.tree = ""
        self.binds: list[list[str]] = []
        self.group: Group | None = None
        self.joined: list[Process] = []
        self._helper = helper
        self._sock = sock
        self._throw_away = throw_away
        self._after = after
        self._exit: Exit | None = None
        self._is_executed = False
        self._link: Closable | None = None
        self._lock = threading.RLock()  # a signal handler may come while this thread holds it

    def send(self, request: dict[str, Any], fds: Sequence[int]) -> None:
        """Says what is to be done, with the descriptors that belong to it."""
        wire.send(self._sock, request, fds)

    def start(self, sockets: Sequence[str], connect: Callable[[int], Closable] | None = None) -> None:
        """Waits until the command is started. Raises AerogelError when the sandbox could not be set up.

        `sockets` are the targets of the mounts that are sockets, in the order of the request. `connect` joins a network
        namespace of the sandbox's own with the world; what it gives is closed with this.
        """
        message, fds = self._receive()
        if "network" in message and connect is not None:
            (namespace,) = fds
            try:
                self._link = connect(namespace)
            finally:
                os.close(namespace)
            wire.send(self._sock, {"go": True})
            message, fds = self._receive()
        if "started" not in message:
            self._drain()
            self._end()
            raise failure(message)
        self.pid = message["started"]
        self.tty = fds.pop(0) if message["terminal"] else None
        if message["namespaces"]:
            self.namespaces = tuple(fds[-message["namespaces"] :])
            del fds[-message["namespaces"] :]
        self.listeners = {target: socket.socket(fileno=fd) for target, fd in zip(sockets, fds, strict=True)}

    def signal(self, number: int) -> None:
        """Sends a signal: SIGKILL to all processes, a terminal's signals to the command's group, others to it alone."""
        with self._lock, contextlib.suppress(OSError):
            wire.send(self._sock, {"signal": int(number)})

    @property
    def is_running(self) -> bool:
        """False when its end was waited for."""
        return self._sock.fileno() >= 0

    def kill(self) -> None:
        """Ends everything at once; `wait` still tells how."""
        self.signal(SIGKILL)
        for other in self.joined:
            other.kill()

    def stop(self, grace_s: float = 10.0, number: int = SIGTERM) -> Exit:
        """Signals, waits for the grace time, then kills."""
        self.signal(number)
        try:
            return self.wait(grace_s)
        except TimeoutError:
            self.kill()
            return self.wait()

    def wait(self, timeout_s: float | None = None) -> Exit:
        """How the command ended; then none of its processes and mounts is left. Raises TimeoutError."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while self._exit is None:
            self._follow(until)
        try:
            if self._after is not None:
                (job, args), self._after = self._after, None
                self._helper.call(job, args)
        finally:
            self._end()
            for other in self.joined:  # without namespaces nothing else ends them
                other.kill()
        return self._exit

    def executed(self) -> bool:
        """Waits until a `joinable` command has been executed; False when it could not be, which `wait` then tells."""
        while self._exit is None and not self._is_executed:
            self._follow(None)
        return self._is_executed

    def _follow(self, until: float | None) -> None:
        self._poll(until)
        message, _ = self._receive()
        if "executed" in message:
            self._is_executed = True
        elif "exit" in message:
            found = message["exit"]
            fault = wire.error_from(found["fault"]) if found["fault"] else None
            self._drain()
            self._exit = Exit(found["code"], found["signal"], found["oom"], fault)
        elif "end" in message:  # process 1 was killed from outside
            number = os.WTERMSIG(message["end"]) if os.WIFSIGNALED(message["end"]) else SIGKILL
            self._exit = Exit(128 + number, number)
        else:
            self._end()
            raise failure(message)

    def close(self) -> None:
        """Kills what still runs and gives everything back; harmless when it was waited for."""
        if self._exit is None and self._sock.fileno() >= 0:
            self.kill()
            with contextlib.suppress(AerogelError, HelperBug, TimeoutError):
                self.wait(_CLOSE_TIMEOUT_S)
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _poll(self, until: float | None) -> None:
        if until is None:
            return
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        received = wire.receive(self._sock)
        if received is None:
            self._end()
            raise self._helper.died()
        return received

    def _drain(self) -> None:
        """Until the helper has reaped process 1: then its mounts are gone."""
        while wire.receive(self._sock) is not None:
            pass

    def _end(self) -> None:
        with self._lock:
            self._sock.close()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self.tty is not None:
            os.close(self.tty)
            self.tty = None
        for listener in self.listeners.values():
            listener.close()
        for fd in self.namespaces:
            os.close(fd)
        self.namespaces = ()
        if self._throw_away is not None:
            path, self._throw_away = self._throw_away, None
            with contextlib.suppress(AerogelError):  # the next helper removes it with the session
                self._helper.call(f"{DISCARD}:discard", {"path": path})


def failure(message: dict[str, Any]) -> Exception:
    """What the helper said instead of an answer, as the error to raise."""
    if "error" in message:
        return wire.error_from(message["error"])
    if "bug" in message:
        return HelperBug(message["bug"])
    status = message.get("end", 0)
    how = f"was killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended"
    return AerogelError(
        f"a worker of the sandbox helper {how}",
        code="sandbox.worker-died",
        hints=["perhaps the machine ran out of memory: see `dmesg`"],
        exit_status=EXIT_HOST,
    )
