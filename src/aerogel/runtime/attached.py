"""The caller's side of being attached to a container in the background: its streams, keys and signals (`serving`)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from aerogel.runtime import terminal
from aerogel.runtime.containers import Seen
from aerogel.runtime.remote import connected, received
from aerogel.sandbox import wire
from aerogel.sandbox.spec import Exit

__all__ = ["Attached"]

_RELAYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_CHUNK = 1 << 16


class _Streams(Protocol):
    @property
    def stdin(self) -> int: ...
    @property
    def stdout(self) -> int: ...
    @property
    def stderr(self) -> int: ...


class Attached:
    """Raises `container.not-running`, `container.foreground`. To be closed."""

    def __init__(self, seen: Seen, streams: _Streams, keys: bytes) -> None:
        self._seen = seen
        self._streams = streams
        self._detacher = terminal.Detacher(keys)
        self._is_terminal = seen.container.sandbox.tty
        self._asks_to_end = False
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        self._early: list[int] | None = []
        """Signals that came before anybody could take them; None as soon as somebody can."""
        self._sock = connected(seen)
        self._input = -1

    def follow(self, *, takes_input: bool, passes_signals: bool, asks_to_end: bool = False) -> Exit | None:
        """How the command ended, or None after the keys that detach.

        With `asks_to_end` SIGTERM is passed on as the container's stop signal, and after one of the signals that end
        commands everything is killed when its grace is over.
        """
        self._asks_to_end = asks_to_end
        is_raw = takes_input and self._is_terminal
        with self._handling(passes_signals=passes_signals):
            self._attach()
            raw = terminal.raw(self._streams.stdin) if is_raw else contextlib.nullcontext()
            self._resize()
            with raw:
                return self._until_end(self._streams.stdin if takes_input and self._input >= 0 else -1)

    def _attach(self) -> None:
        """The command may run from now on, and be sent a signal before anybody here knows it."""
        wire.send(self._sock, {"do": "attach"}, (self._streams.stdout, self._streams.stderr))
        _, fds = received(self._sock, self._seen)
        self._input = fds[0] if fds else -1
        early, self._early = self._early, None
        for number in early or ():
            self._got(number)

    def _resize(self) -> None:
        if self._is_terminal and self._input >= 0:
            terminal.copy_size(self._streams.stdout, self._input)

    def _until_end(self, stdin: int) -> Exit | None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if stdin >= 0:
            poll.register(stdin, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._sock.fileno() in ready:
                found = received(self._sock, self._seen)[0]["exit"]
                fault = wire.error_from(found["fault"]) if found["fault"] else None
                return Exit(found["code"], found["signal"], found["oom"], fault)
            data = os.read(stdin, _CHUNK)
            if not data:  # the command's input stays open, unless it is to end with this one, as docker does it
                poll.unregister(stdin)
                self._end_input()
                continue
            passed, is_over = self._detacher.take(data)
            with contextlib.suppress(OSError):  # the command has closed its input, or is about to end
                left = memoryview(passed)
                while left:
                    left = left[os.write(self._input, left) :]
            if is_over:
                return None

    def _end_input(self) -> None:
        if self._seen.container.is_input_once and not self._is_terminal:
            os.close(self._input)
            self._input = -1
            with self._lock, contextlib.suppress(OSError):
                wire.send(self._sock, {"eof": True})

    def _got(self, number: int) -> None:
        if self._early is not None:
            if number in _ENDING and number in self._early:  # the second one: nobody answers
                raise KeyboardInterrupt
            self._early.append(number)
            return
        container = self._seen.container
        asks = self._asks_to_end and number == signal.SIGTERM
        self._signal(container.stop_signal if asks else number)
        if self._asks_to_end and number in _ENDING and self._timer is None:
            self._timer = threading.Timer(container.grace_s, self._signal, (signal.SIGKILL,))
            self._timer.daemon = True
            self._timer.start()

    def _signal(self, number: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            wire.send(self._sock, {"signal": int(number)})

    @contextmanager
    def _handling(self, *, passes_signals: bool) -> Iterator[None]:
        before = {}
        if threading.current_thread() is threading.main_thread():
            if passes_signals:
                for number in _RELAYED:
                    before[number] = signal.signal(number, lambda got, _frame: self._got(got))
            if self._is_terminal:
                before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda _got, _frame: self._resize())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._timer is not None:
                self._timer.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1
        self._sock.close()
