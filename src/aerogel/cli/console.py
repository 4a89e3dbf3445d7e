"""Progress for people and programs: receives events, writes to standard error.

Four forms: `tty` redraws (in `cli.live`, which imports rich), `plain` writes a line for each thing that happens,
each with its step's number, `json` writes one object a line, `quiet` writes nothing. What a step prints comes from
programs that nobody vetted: no terminal control passes (`clean`), and known secrets are hidden.
"""

from __future__ import annotations

import re
import threading
from typing import Protocol, TextIO

from aerogel.errors import render, visible
from aerogel.events import Event, Message, Progress, StepDone, StepLog, StepStarted, Warned
from aerogel.redact import Redactor
from aerogel.settings import Settings

__all__ = ["Console", "JsonConsole", "LineCutter", "PlainConsole", "QuietConsole", "clean", "make_console"]

LONGEST_LINE = 65536
"""Bytes after which output without a line end is cut."""

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*(?:[@-~]|$)"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC, DCS, SOS, PM, APC: titles, clipboard, links
    r"|\x1b[ -/]*(?:[0-~]|$)"  # two-character sequences
    r"|\x9b[0-?]*[ -/]*(?:[@-~]|$)"  # CSI as one character
)


class Console(Protocol):
    """A sink with an end. `emit` is called from several threads."""

    def emit(self, event: Event, /) -> None: ...

    def close(self) -> None:
        """Writes what is left and gives the terminal back. Harmless when called again."""


def clean(line: str) -> str:
    """One line of a program's output without escape sequences; other control characters made visible."""
    return visible(_ESCAPES.sub("", line))


class LineCutter:
    """Cuts output that comes in pieces into clean lines; of a line redrawn with carriage returns, the last state."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > LONGEST_LINE:
            lines.append(self._pending)
            self._pending = b""
        return [_line(line) for line in lines]

    def rest(self) -> list[str]:
        """The last line if it had no end."""
        pending, self._pending = self._pending, b""
        return [_line(pending)] if pending else []


def _line(data: bytes) -> str:
    states = [part for part in data.split(b"\r") if part]
    return clean(states[-1].decode("utf-8", "replace")) if states else ""


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
            self._stream.write("\n".join(self._redactor.text(line) for line in lines) + "\n")
            self._stream.flush()


class PlainConsole(_LineConsole):
    """`#3 RUN make`, `#3 output of the step`, `#3 DONE 1.2s`: a stable form that scripts may read."""

    def __init__(self, stream: TextIO, redactor: Redactor, *, color: bool = False) -> None:
        super().__init__(stream, redactor)
        self._color = color

    def emit(self, event: Event, /) -> None:
        with self._lock:
            self._write(self._lines(event))

    def _lines(self, event: Event) -> list[str]:
        match event:
            case StepStarted():
                return [f"#{event.step} {visible(event.name)}"]
            case StepLog():
                return self._feed(event)
            case StepDone():
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

    def emit(self, event: Event, /) -> None:
        with self._lock:
            if isinstance(event, StepLog):
                self._write(self._feed(event))
            elif isinstance(event, StepDone):
                self._write([*self._left(event.step), _json_line(event.kind, event.fields())])
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


def describe_progress(event: Progress) -> str:
    """`12.3 MB of 40.0 MB` or `12 of 31 packages`."""
    if event.unit != "bytes":
        return f"{event.done} of {event.total} {event.unit}" if event.total else f"{event.done} {event.unit}"
    done = f"{event.done / 1e6:.1f} MB"
    return f"{done} of {event.total / 1e6:.1f} MB" if event.total else done
