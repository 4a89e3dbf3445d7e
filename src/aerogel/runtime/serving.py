"""The side of a running container that other processes reach: signals, stopping, waiting, commands beside it, health.

Used by both who hold containers: `aerogel run` in the foreground and `keeper` in the background. Requests come on the
container's socket as messages of `sandbox.wire`, the word in `do` first:

- `signal` (number): to the command;
- `stop` (number, grace_s): signals, kills everything when the grace is over; answered when the container has ended;
- `wait`: answered then as well, with `code`;
- `exec` (sandbox, is_detached, work; standard streams, and a static busybox to show): answered with `started` and the
  terminal, then with `exit`; meanwhile more messages with `signal` may come. When the one who asked goes, the command is
  killed, unless it is detached, at first or by a message with `detach`. `work` is a job in place of a command;
- `attach` (standard output and error): answered with `attached` and, if there is one, the command's input or terminal;
  then with `exit` when the command has ended, or with why it could not be started. Signals may come meanwhile, and `eof`
  when there is no more input;
- `pause`, `unpause`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from signal import SIGKILL
from types import TracebackType
from typing import Any, Self

import msgspec

from aerogel.decoding import prepare
from aerogel.errors import AerogelError
from aerogel.runtime.audience import Audience
from aerogel.runtime.containers import Check, CheckRun, Container, Containers, Seen, State
from aerogel.runtime.processes import processes_of
from aerogel.sandbox import wire
from aerogel.sandbox.control import Connection, Listener
from aerogel.sandbox.freezer import Freezer
from aerogel.sandbox.launch import Helper, Process
from aerogel.sandbox.spec import Exit, Rootfs, Sandbox

__all__ = ["Server", "beside"]

_SAID_BYTES = 4096
"""What is kept of the output of a check, as docker does."""
_KEPT_CHECKS = 5
_ANSWER_S = 15.0
_DRAIN_S = 10.0
"""So long the last words of a command may take on their way to who is attached."""


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
        self.audience: Audience | None = None
        """Those who are attached, when the container is in the background."""
        self._input = -1
        self._waiting: set[threading.Event] = set()
        """Of those who are attached: set when this run of the command is over."""
        self._begun = threading.Event()
        """Set when the command has started, or will not."""
        self._joined = threading.Event()
        """Set when somebody is attached."""
        self._fault: AerogelError | None = None
        self._freezer: Freezer | None = None
        self._pending = 0
        self._answered = threading.Condition()

    def __enter__(self) -> Self:
        self._listener = Listener(self._folder, self._serve)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.ended.is_set():
            self._fault = error if isinstance(error, AerogelError) else None
            self.gone("" if error is None else str(error))
        with self._answered:  # this process is about to end, and with it the threads that answer
            self._answered.wait_for(lambda: not self._pending, _ANSWER_S)
        if self._freezer is not None:
            self._freezer.close()
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

    def expect(self, timeout_s: float) -> None:
        """Waits for one who is attached before the command starts. Raises `container.gone` when nobody comes."""
        if not self._joined.wait(timeout_s):
            raise AerogelError("the one who started the container is gone", code="container.gone")

    def _end_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
        self._input = -1

    def started(self, process: Process, *, again: bool = False, stdin: int = -1) -> None:
        """The container's command runs; `stdin` is where its input is written, -1 without one: it is closed here."""
        with self._lock:
            self._process = process
            self._input = stdin
            self._rounds += 1
            health = "starting" if self._container.check else ""
            self._save(
                status="running", pid=process.pid, started=time.time(), finished=0.0, code=0, error="", oom=False,
                health=health, failing=0, said="", checks=(), restarted=self._state.restarted + again,
                is_paused=False,
            )  # fmt: skip
        if self._container.check is not None:
            arguments = (self._container.check, process, self._rounds)
            threading.Thread(target=self._watch, args=arguments, name="health", daemon=True).start()
        self._begun.set()
        if self.is_stopping:
            process.kill()

    def finished(self, end: Exit, *, for_good: bool = True) -> None:
        """The command has ended; `for_good` unless it will be started again."""
        with self._lock:
            self._process = None
            self._end_input()
            self._fault = end.fault
            if self._timer is not None:
                self._timer.cancel()
            error = end.fault.message if end.fault is not None else ""
            self._save(
                status="exited" if for_good else "running", pid=0, finished=time.time(), code=end.code, error=error,
                oom=end.oom, is_paused=False,
            )  # fmt: skip
            for over in self._waiting:
                over.set()
        if for_good:
            self.ended.set()

    def gone(self, error: str) -> None:
        """It could not be started at all."""
        self._save(status="exited", pid=0, finished=time.time(), code=self._state.code or 125, error=error)
        with self._lock:
            for over in self._waiting:
                over.set()
        self._begun.set()
        self.ended.set()

    def stop(self, number: int, grace_s: float) -> None:
        """Signals, and kills everything when the grace is over; does not wait. It is not started again."""
        with self._lock:
            self.is_stopping = True
            process = self._process
            if process is None:
                return
            if self._state.is_paused:
                self._unpause()
            process.signal(number)
            self._timer = threading.Timer(max(0.0, grace_s), process.kill)
            self._timer.daemon = True
            self._timer.start()

    def _serve(self, sock: Connection) -> None:
        received = wire.receive(sock)
        if received is None:
            return
        message, fds = received
        with self._answered:
            self._pending += 1
        try:
            self._answer(sock, message, fds)
        except AerogelError as error:
            wire.send(sock, {"error": wire.error_to(error)})
        finally:
            for fd in fds:
                os.close(fd)
            with self._answered:
                self._pending -= 1
                self._answered.notify_all()

    def _answer(self, sock: Connection, message: dict[str, Any], fds: list[int]) -> None:
        match message["do"]:
            case "signal":
                with self._lock:
                    self._running().signal(message["number"])
                    if message["number"] == SIGKILL and self._state.is_paused:
                        self._unpause()
                wire.send(sock, {"ok": True})
            case "pause" | "unpause":
                with self._lock:
                    (self._pause if message["do"] == "pause" else self._unpause)()
                wire.send(sock, {"ok": True})
            case "attach":
                self._attach(sock, fds)
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

    def _pause(self) -> None:
        process = self._running()
        if self._state.is_paused:
            raise AerogelError("the container is paused already", code="container.paused")
        name = f"aerogel-{os.getpid()}-paused"
        self._freezer = Freezer(lambda: [one.pid for one in processes_of(process.pid)], name)
        self._save(is_paused=True)

    def _unpause(self) -> None:
        self._running()
        if not self._state.is_paused or self._freezer is None:
            raise AerogelError("the container is not paused", code="container.not-paused")
        self._freezer.thaw()
        self._save(is_paused=False)

    def _attach(self, sock: Connection, fds: list[int]) -> None:
        """Shows the command's output to one more, until the command ends or the one goes."""
        over = threading.Event()
        with self._lock:
            if self._begun.is_set():
                self._running()
            if self.audience is None:
                raise AerogelError(
                    "the container writes to the terminal of its `aerogel run`",
                    code="container.foreground",
                    hints=["start it with `-d`, or `-dit`, to attach to it later"],
                )
            listener = self.audience.join(fds[0], fds[1])
            self._waiting.add(over)
        self._joined.set()
        self._begun.wait()
        with self._lock:
            process = self._process  # None when it is over already
            given = self._input if process is None or process.tty is None else process.tty
            wire.send(sock, {"attached": True, "input": given >= 0}, (given,) if given >= 0 else ())
        is_gone = False

        def relay() -> None:
            nonlocal is_gone
            with contextlib.suppress(OSError):
                while (more := wire.receive(sock)) is not None:
                    if "signal" in more[0] and process is not None:
                        process.signal(more[0]["signal"])
                    elif "eof" in more[0]:
                        self._input_ended(process)
            is_gone = True
            self._input_ended(process)
            over.set()

        threading.Thread(target=relay, name="attached signals", daemon=True).start()
        over.wait()
        with self._lock:
            self._waiting.discard(over)
            state, fault = self._state, self._fault
        self.audience.leave(listener, 0.0 if is_gone else _DRAIN_S)
        if not is_gone:
            with contextlib.suppress(BrokenPipeError):
                told = None if fault is None else wire.error_to(fault)
                wire.send(sock, {"exit": {"code": state.code, "signal": 0, "oom": state.oom, "fault": told}})

    def _input_ended(self, process: Process | None) -> None:
        """One who was attached has no more input."""
        with self._lock:
            if self._container.is_input_once and process is self._process:
                self._end_input()

    def _exec(self, sock: Connection, message: dict[str, Any], fds: list[int]) -> None:
        prepare(Sandbox)
        try:
            sandbox = msgspec.convert(message["sandbox"], Sandbox)
        except (KeyError, msgspec.ValidationError) as error:
            raise AerogelError(
                f"the process that holds the container does not understand what is to run: {error}",
                code="container.request",
                hints=["another version of aerogel has started the container: stop it, and start it again"],
            ) from None
        work = message.get("work")
        with self._lock:
            running = self._running()
            if self._state.is_paused and work is None:  # a job is none of the container's processes
                raise AerogelError(
                    "the container is paused",
                    code="container.paused",
                    hints=[f"`aerogel unpause {self._container.name}` lets it go on"],
                )
            other = self._helper.join(
                running,
                sandbox,
                stdin=fds[0],
                stdout=fds[1],
                stderr=fds[2],
                tools=fds[3] if len(fds) > 3 else None,
                packages=message.get("packages") or "",
                work=None if work is None else (work[0], work[1]),
            )
        with other:
            given = () if other.tty is None else (other.tty,)
            wire.send(sock, {"started": other.pid}, given)

            def relay() -> None:
                stays = bool(message["is_detached"])
                with contextlib.suppress(OSError):
                    while (more := wire.receive(sock)) is not None:
                        if "detach" in more[0]:
                            stays = True
                        else:
                            other.signal(more[0]["signal"])
                if not stays:
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
            if self._state.is_paused:
                continue
            is_young = time.monotonic() - began < check.start_period_s
            at = time.time()
            try:
                code, said = self._check(check, process)
            except AerogelError as error:
                code, said = -1, error.message
            is_well = code == 0
            with self._lock:
                if self._process is not process or self._rounds != number:
                    return
                run = CheckRun(started=at, finished=time.time(), code=code, said=said)
                self._save(checks=(*self._state.checks, run)[-_KEPT_CHECKS:])
                if is_well:
                    self._save(health="healthy", failing=0, said=said)
                elif is_young and self._state.health == "starting":
                    self._save(said=said)
                else:
                    failing = self._state.failing + 1
                    health = "unhealthy" if failing >= check.retries else self._state.health
                    self._save(health=health, failing=failing, said=said)

    def _check(self, check: Check, process: Process) -> tuple[int, str]:
        """The exit status of the check's command, -1 without one in time, and the beginning of what it said."""
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
                return -1, f"the check took longer than {check.timeout_s:g} s"
        thread.join(1.0)  # what the check left running may hold the pipe
        text = bytes(said).decode("utf-8", "replace")
        if end.fault is not None:
            return -1, end.fault.message
        return end.code, text
