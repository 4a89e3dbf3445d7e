"""Progress for people and programs: receives events, writes to standard error.

Four forms: `tty` redraws (in `cli.live`, which imports rich), `plain` writes a line for each thing that happens,
each with its step's number, `json` writes one object a line, `quiet` writes nothing. What a step prints comes from
programs that nobody vetted: no terminal control passes (`cli.lines`), and known secrets are hidden.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from aerogel.cli.lines import LineCutter, Pace, describe_progress
from aerogel.errors import render, visible
from aerogel.events import Event, Message, Progress, StepDone, StepLog, StepStarted, Warned
from aerogel.redact import Redactor
from aerogel.settings import Settings

__all__ = ["Console", "JsonConsole", "PlainConsole", "QuietConsole", "make_console"]


class Console(Protocol):
    """A sink with an end. `emit` is called from several threads."""

    def emit(self, event: Event, /) -> None: ...

    def close(self) -> None:
        """Writes what is left and gives the terminal back. Harmless when called again."""


class QuietConsole:
    """Shows nothing."""

    def emit(self, event: Event, /) -> None:
        del event

    def close(self) -> None:
        pass


class _LineConsole:
    """What `plain` and `json` share: a lock, a stream, and a cutter for each step's stream."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor
        self._cutters: dict[tuple[int, int], LineCutter] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            for step in sorted({step for step, _ in self._cutters}):
                self._write(self._left(step))

    def _feed(self, event: StepLog) -> list[str]:
        cutter = self._cutters.get((event.step, event.stream))
        if cutter is None:
            cutter = self._cutters[event.step, event.stream] = LineCutter()
        return [self._log_line(event.step, event.stream, line) for line in cutter.feed(event.data)]

    def _left(self, step: int) -> list[str]:
        lines: list[str] = []
        for key in sorted(key for key in self._cutters if key[0] == step):
            lines += [self._log_line(step, key[1], line) for line in self._cutters.pop(key).rest()]
        return lines

    def _log_line(self, step: int, stream: int, line: str) -> str:
        raise NotImplementedError

    def _write(self, lines: list[str]) -> None:
        if lines:
            self._stream.write(self._redactor.text("\n".join(lines)) + "\n")
            self._stream.flush()


_PERIOD_S = 1.5
"""A step that transfers something is silent for no longer than this."""


class PlainConsole(_LineConsole):
    """`#3 RUN make`, `#3 output of the step`, `#3 DONE 1.2s`: a stable form that scripts may read.

    A transfer says every now and then how far it is, even when it stands still; short ones say nothing.
    """

    def __init__(
        self,
        stream: TextIO,
        redactor: Redactor,
        *,
        color: bool = False,
        clock: Callable[[], float] = time.monotonic,
        tick_s: float = 0.25,
    ) -> None:
        super().__init__(stream, redactor)
        self._color = color
        self._clock = clock
        self._tick_s = tick_s
        self._transfers: dict[int, Progress] = {}
        self._next_s: dict[int, float] = {}
        self._said: dict[int, str] = {}
        self._wait_s: dict[int, float] = {}
        self._ticking: threading.Thread | None = None
        self._ended = threading.Event()

    def emit(self, event: Event, /) -> None:
        with self._lock:
            self._write(self._lines(event))

    def close(self) -> None:
        self._ended.set()
        if self._ticking is not None:
            self._ticking.join()
        super().close()

    def tick(self) -> None:
        """Lets the transfers that have been silent say how far they are."""
        with self._lock:
            for step in list(self._transfers):
                self._write(self._how_far(step))

    def _how_far(self, step: int) -> list[str]:
        now = self._clock()
        if now < self._next_s[step]:
            return []
        event = self._transfers[step]
        text = f"#{step} {visible(event.label)}: {describe_progress(event)}"
        # What stands still is told in longer and longer intervals.
        self._wait_s[step] = _PERIOD_S if text != self._said.get(step) else 2 * self._wait_s.get(step, _PERIOD_S)
        self._next_s[step] = now + self._wait_s[step]
        self._said[step] = text
        return [text]

    def _keep_ticking(self) -> None:
        if self._ticking is None:
            self._ticking = threading.Thread(target=self._tick_on, name="progress", daemon=True)
            self._ticking.start()

    def _tick_on(self) -> None:
        while not self._ended.wait(self._tick_s):
            self.tick()

    def _lines(self, event: Event) -> list[str]:
        match event:
            case StepStarted():
                self._transfers.pop(event.step, None)
                self._next_s[event.step] = self._clock() + _PERIOD_S
                return [f"#{event.step} {visible(event.name)}"]
            case StepLog():
                self._transfers.pop(event.step, None)  # something else is going on now
                self._next_s[event.step] = self._clock() + _PERIOD_S
                return self._feed(event)
            case Progress() if event.step in self._next_s and not event.blob:
                self._transfers[event.step] = event
                self._keep_ticking()
                return self._how_far(event.step)
            case StepDone():
                self._transfers.pop(event.step, None)
                self._next_s.pop(event.step, None)
                return [*self._left(event.step), f"#{event.step} {_outcome(event)}"]
            case Message():
                return [visible(event.text)]
            case Warned():
                return [render(event.diagnostic, color=self._color)]
            case _:
                return []

    def _log_line(self, step: int, stream: int, line: str) -> str:
        del stream
        return f"#{step} {line}".rstrip()


def _outcome(event: StepDone) -> str:
    word = {"RAN": f"DONE {event.duration_s:.1f}s", "FAILED": f"ERROR {event.duration_s:.1f}s"}
    return " ".join([word.get(event.status, event.status), *([visible(event.note)] if event.note else [])])


class JsonConsole(_LineConsole):
    """One JSON object a line: `event` and the fields of the event; a step's output comes in whole lines."""

    def __init__(self, stream: TextIO, redactor: Redactor, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, redactor)
        self._clock = clock
        self._paces: dict[tuple[int, str, str], Pace] = {}

    def emit(self, event: Event, /) -> None:
        with self._lock:
            if isinstance(event, StepLog):
                self._write(self._feed(event))
            elif isinstance(event, StepDone):
                for key in [key for key in self._paces if key[0] == event.step]:
                    del self._paces[key]
                self._write([*self._left(event.step), _json_line(event.kind, event.fields())])
            elif isinstance(event, Progress):
                now = self._clock()
                pace = self._paces.setdefault((event.step, event.label, event.blob), Pace(event, now))
                pace.see(event)
                rate, left_s = pace.rate(now)
                fields = {**event.fields(), "rate": round(rate), "left_s": round(left_s, 1)}
                self._write([_json_line(event.kind, fields)])
            else:
                self._write([_json_line(event.kind, event.fields())])

    def _log_line(self, step: int, stream: int, line: str) -> str:
        return _json_line("log", {"step": step, "stream": stream, "line": line})


def _json_line(kind: str, fields: dict[str, object]) -> str:
    import msgspec

    return msgspec.json.encode({"event": kind, **fields}).decode()


def make_console(form: str, stream: TextIO, settings: Settings, redactor: Redactor) -> Console:
    """The console for `--progress`: `auto` is `tty` on a terminal that can redraw and outside CI, else `plain`."""
    is_terminal = stream.isatty()
    if form == "auto":
        form = "tty" if is_terminal and not settings.is_ci and not settings.is_dumb_terminal else "plain"
    color = settings.wants_color(is_terminal=is_terminal)
    match form:
        case "tty":
            from aerogel.cli.live import LiveConsole

            return LiveConsole(stream, redactor, color=color)
        case "json":
            return JsonConsole(stream, redactor)
        case "quiet":
            return QuietConsole()
        case _:
            return PlainConsole(stream, redactor, color=color)
