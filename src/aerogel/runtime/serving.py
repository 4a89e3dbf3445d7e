"""The side of a running container that other processes reach: signals, stopping, waiting, commands beside it, health.

Used by both who hold containers: `aerogel run` in the foreground and `keeper` in the background. Requests come on the
container's socket as messages of `sandbox.wire`, the word in `do` first:

- `signal` (number): to the command;
- `stop` (number, grace_s): signals, kills everything when the grace is over; answered when the container has ended;
- `wait`: answered then as well, with `code`;
- `exec` (sandbox, is_detached; standard streams, and a static busybox to show): answered with `started` and the terminal, then with `exit`; meanwhile
  more messages with `signal` may come. When the one who asked goes, the command is killed, unless it is detached.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from types import TracebackType
from typing import Any, Self

import msgspec

from aerogel.errors import AerogelError
from aerogel.runtime.containers import Check, Container, Containers, Seen, State
from aerogel.sandbox import wire
from aerogel.sandbox.control import Connection, Listener
from aerogel.sandbox.launch import Helper, Process
from aerogel.sandbox.spec import Exit, Rootfs, Sandbox

__all__ = ["Server", "beside"]

_SAID_BYTES = 4096
"""What is kept of the output of a check, as docker does."""


def beside(container: Container, argv: tuple[str, ...], **changes: Any) -> Sandbox:
    """A command beside the container's own: its variables, user, folder and rights, unless changed."""
    own = container.sandbox
    sandbox = msgspec.structs.replace(
        own, argv=argv, root=Rootfs(), mounts=(), tty=False, create_cwd=False, joinable=False
    )
    return msgspec.structs.replace(sandbox, **changes)


class Server:
    """Takes requests for one container from `__enter__` on; who holds it tells what happens."""

    def __init__(self, helper: Helper, containers: Containers, seen: Seen) -> None:
        self.is_stopping = False
        self.ended = threading.Event()
        """Set when the container has ended for good."""
        self._helper = helper
        self._containers = containers
        self._folder, self._container, self._state = seen
        self._process: Process | None = None
        self._lock = threading.RLock()
        self._rounds = 0
        self._listener: Listener | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        self._listener = Listener(self._folder, self._serve)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.ended.is_set():
            self.gone("" if error is None else str(error))
        if self._listener is not None:
            self._listener.close()

    @property
    def state(self) -> State:
        return self._state

    def _save(self, **changes: Any) -> None:
        with self._lock:
            self._state = msgspec.structs.replace(self._state, **changes)
            # without its folder, which another process has removed, there is nothing to tell
            with contextlib.suppress(FileNotFoundError):
                self._containers.save(self._folder, self._state)

    def started(self, process: Process, *, again: bool = False) -> None:
        """The container's command runs."""
        with self._lock:
            self._process = process
            self._rounds += 1
            health = "starting" if self._container.check else ""
            self._save(
                status="running", pid=process.pid, started=time.time(), finished=0.0, code=0, error="", oom=False,
                health=health, failing=0, said="", restarted=self._state.restarted + again,
            )  # fmt: skip
        if self._container.check is not None:
            arguments = (self._container.check, process, self._rounds)
            threading.Thread(target=self._watch, args=arguments, name="health", daemon=True).start()
        if self.is_stopping:
            process.kill()

    def finished(self, end: Exit, *, for_good: bool = True) -> None:
        """The command has ended; `for_good` unless it will be started again."""
        with self._lock:
            self._process = None
            if self._timer is not None:
                self._timer.cancel()
            error = end.fault.message if end.fault is not None else ""
            self._save(
                status="exited" if for_good else "running", pid=0, finished=time.time(), code=end.code, error=error,
                oom=end.oom,
            )  # fmt: skip
        if for_good:
            self.ended.set()

    def gone(self, error: str) -> None:
        """It could not be started at all."""
        self._save(status="exited", pid=0, finished=time.time(), code=self._state.code or 125, error=error)
        self.ended.set()

    def stop(self, number: int, grace_s: float) -> None:
        """Signals, and kills everything when the grace is over; does not wait. It is not started again."""
        with self._lock:
            self.is_stopping = True
            process = self._process
            if process is None:
                return
            process.signal(number)
            self._timer = threading.Timer(max(0.0, grace_s), process.kill)
            self._timer.daemon = True
            self._timer.start()

    def _serve(self, sock: Connection) -> None:
        received = wire.receive(sock)
        if received is None:
            return
        message, fds = received
        try:
            self._answer(sock, message, fds)
        except AerogelError as error:
            wire.send(sock, {"error": wire.error_to(error)})
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(self, sock: Connection, message: dict[str, Any], fds: list[int]) -> None:
        match message["do"]:
            case "signal":
                with self._lock:
                    self._running().signal(message["number"])
                wire.send(sock, {"ok": True})
            case "stop":
                self.stop(message["number"], message["grace_s"])
                self.ended.wait()
                wire.send(sock, {"code": self._state.code})
            case "wait":
                self.ended.wait()
                wire.send(sock, {"code": self._state.code})
            case "exec":
                self._exec(sock, message, fds)

    def _running(self) -> Process:
        if self._process is None:
            raise AerogelError("the container is not running", code="container.not-running")
        return self._process

    def _exec(self, sock: Connection, message: dict[str, Any], fds: list[int]) -> None:
        sandbox = msgspec.convert(message["sandbox"], Sandbox)
        with self._lock:
            other = self._helper.join(
                self._running(),
                sandbox,
                stdin=fds[0],
                stdout=fds[1],
                stderr=fds[2],
                tools=fds[3] if len(fds) > 3 else None,
            )
        with other:
            given = () if other.tty is None else (other.tty,)
            wire.send(sock, {"started": other.pid}, given)

            def relay() -> None:
                with contextlib.suppress(OSError):
                    while (more := wire.receive(sock)) is not None:
                        other.signal(more[0]["signal"])
                if not message["is_detached"]:
                    other.kill()

            threading.Thread(target=relay, name="exec signals", daemon=True).start()
            end = other.wait()
            fault = None if end.fault is None else wire.error_to(end.fault)
            with contextlib.suppress(BrokenPipeError):  # nobody waits for one that is detached
                wire.send(sock, {"exit": {"code": end.code, "signal": end.signal, "oom": end.oom, "fault": fault}})

    def _watch(self, check: Check, process: Process, number: int) -> None:
        """Runs the check again and again, until the container or this run of it ends."""
        began = time.monotonic()
        while True:
            is_young = time.monotonic() - began < check.start_period_s
            eager = is_young and self._state.health == "starting"
            if self.ended.wait(min(check.start_interval_s, check.interval_s) if eager else check.interval_s):
                return
            is_young = time.monotonic() - began < check.start_period_s
            try:
                is_well, said = self._check(check, process)
            except AerogelError as error:
                is_well, said = False, error.message
            with self._lock:
                if self._process is not process or self._rounds != number:
                    return
                if is_well:
                    self._save(health="healthy", failing=0, said=said)
                elif is_young and self._state.health == "starting":
                    self._save(said=said)
                else:
                    failing = self._state.failing + 1
                    health = "unhealthy" if failing >= check.retries else self._state.health
                    self._save(health=health, failing=failing, said=said)

    def _check(self, check: Check, process: Process) -> tuple[bool, str]:
        """Whether the check's command ends well in time, and the beginning of what it said."""
        read, write = os.pipe()
        said = bytearray()

        def collect() -> None:
            with open(read, "rb", buffering=0) as file:
                while data := file.read(_SAID_BYTES):
                    said.extend(data[: _SAID_BYTES - len(said)])

        thread = threading.Thread(target=collect, name="health output", daemon=True)
        thread.start()
        try:
            other = self._helper.join(process, beside(self._container, check.command), stdout=write, stderr=write)
        finally:
            os.close(write)
        with other:
            try:
                end = other.wait(check.timeout_s)
            except TimeoutError:
                other.kill()
                other.wait()
                return False, f"the check took longer than {check.timeout_s:g} s"
        thread.join(1.0)  # what the check left running may hold the pipe
        text = bytes(said).decode("utf-8", "replace")
        if end.fault is not None:
            return False, end.fault.message
        return end.code == 0, text
