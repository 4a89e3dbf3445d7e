"""Requests to the process that holds a container (`serving` answers them), as `aerogel exec`, `stop` and others make them."""

from __future__ import annotations

import contextlib
import os
import threading
from types import TracebackType
from typing import Any, Self

import msgspec

from aerogel.errors import AerogelError
from aerogel.runtime.containers import Seen
from aerogel.sandbox import wire
from aerogel.sandbox.control import Connection, connect
from aerogel.sandbox.launch import Work
from aerogel.sandbox.spec import Exit, Sandbox

__all__ = ["Command", "ask", "connected", "received"]


def connected(seen: Seen) -> Connection:
    """A connection to who holds the container. Raises `container.not-running`."""
    try:
        return connect(seen.folder)
    except OSError:
        raise AerogelError(f"container `{seen.container.name}` is not running", code="container.not-running") from None


def received(sock: Connection, seen: Seen) -> tuple[dict[str, Any], list[int]]:
    """The next message with its descriptors. Raises `container.gone` and what the holder raises."""
    found = wire.receive(sock)
    if found is None:
        raise AerogelError(
            f"the process that holds container `{seen.container.name}` ended",
            code="container.gone",
            hints=["`aerogel ps -a` tells how the container ended"],
        )
    if "error" in found[0]:
        raise wire.error_from(found[0]["error"])
    return found


def ask(seen: Seen, **message: Any) -> dict[str, Any]:
    """One request and its answer. Raises `container.not-running`, `container.gone` and what the holder raises."""
    with connected(seen) as sock:
        wire.send(sock, message)
        return received(sock, seen)[0]


class Command:
    """A command beside a container's own. One thread waits; any thread may signal. To be closed."""

    def __init__(
        self,
        seen: Seen,
        sandbox: Sandbox,
        stdio: tuple[int, int, int],
        *,
        is_detached: bool = False,
        tools: int | None = None,
        packages: str = "",
        work: Work | None = None,
    ) -> None:
        self.tty: int | None = None
        self._seen = seen
        self._lock = threading.RLock()
        self._sock = connected(seen)
        try:
            # json: variables may hold bytes that are no UTF-8
            request = {"do": "exec", "sandbox": msgspec.to_builtins(sandbox), "is_detached": is_detached, "work": work}
            request["packages"] = packages
            wire.send(self._sock, request, stdio if tools is None else (*stdio, tools))
            _, fds = received(self._sock, seen)
            self.tty = fds[0] if fds else None
        except BaseException:
            self._sock.close()
            raise

    def signal(self, number: int, /) -> None:
        with self._lock, contextlib.suppress(OSError):
            wire.send(self._sock, {"signal": int(number)})

    def leave(self) -> None:
        """The command goes on when this is closed."""
        with self._lock, contextlib.suppress(OSError):
            wire.send(self._sock, {"detach": True})

    def kill(self) -> None:
        self.signal(9)

    def wait(self) -> Exit:
        """How it ended. Raises `container.gone`."""
        found = received(self._sock, self._seen)[0]["exit"]
        fault = wire.error_from(found["fault"]) if found["fault"] else None
        return Exit(found["code"], found["signal"], found["oom"], fault)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tty is not None:
            os.close(self.tty)
            self.tty = None
        self._sock.close()
