"""What happens during long work, as typed events, and the sink that receives them.

Library code never prints and never logs: it emits events. `cli.console` turns them into a redrawn terminal,
plain lines or JSON lines. Floor 1: standard library only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from aerogel.errors import Diagnostic

__all__ = [
    "Event",
    "Message",
    "NullSink",
    "Progress",
    "Sink",
    "StepDone",
    "StepLog",
    "StepStarted",
    "Warned",
    "step",
]


class Event:
    """Base of all events; `fields` names what a JSON line of it holds, in order."""

    __slots__: tuple[str, ...] = ()
    kind = "event"

    def fields(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


class StepStarted(Event):
    """A step begins. `step` is unique within the run; `name` is what the user wrote or what is done."""

    __slots__ = ("name", "step")
    kind = "started"

    def __init__(self, step: int, name: str) -> None:
        self.step = step
        self.name = name


class StepLog(Event):
    """A piece of a step's output, as it came: bytes, not cut at line ends. `stream` is 1 or 2."""

    __slots__ = ("data", "step", "stream")
    kind = "log"

    def __init__(self, step: int, data: bytes, stream: int = 1) -> None:
        self.step = step
        self.data = data
        self.stream = stream


class StepDone(Event):
    """A step ended. `status` is one of `RAN`, `CACHED`, `REUSED`, `SKIPPED`, `FAILED`, `CANCELED`."""

    __slots__ = ("duration_s", "note", "status", "step")
    kind = "done"

    def __init__(self, step: int, status: str, duration_s: float, note: str = "") -> None:
        self.step = step
        self.status = status
        self.duration_s = duration_s
        self.note = note


class Progress(Event):
    """How far a step's transfer is. `total` is 0 when not known; `unit` is `bytes` or a plural noun. `blob` is the digest of
    the one blob that is told of, empty for all of the transfer. Only in JSON: `rate` in units a second and `left_s`, 0 when
    not known.
    """

    __slots__ = ("blob", "done", "label", "left_s", "rate", "step", "total", "unit")
    kind = "progress"

    def __init__(self, step: int, label: str, done: int, total: int, unit: str = "bytes", blob: str = "") -> None:
        self.blob = blob
        self.rate = 0
        self.left_s = 0
        self.step = step
        self.label = label
        self.done = done
        self.total = total
        self.unit = unit


class Message(Event):
    """One plain line that is worth telling (which base was taken, where something was written)."""

    __slots__ = ("text",)
    kind = "message"

    def __init__(self, text: str) -> None:
        self.text = text


class Warned(Event):
    """A remark that stops nothing."""

    __slots__ = ("diagnostic",)
    kind = "warning"

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic

    def fields(self) -> dict[str, object]:
        found = self.diagnostic
        span = found.span
        return {
            "code": found.code,
            "message": found.message,
            "severity": found.severity,
            "file": span.source.name if span else None,
            "line": span.line if span else None,
            "column": span.column if span else None,
            "hints": list(found.hints),
        }


class Sink(Protocol):
    """Receives events, from several threads."""

    def emit(self, event: Event, /) -> None: ...


class NullSink:
    """Forgets everything; the sink of library calls that ask for none."""

    def emit(self, event: Event, /) -> None:
        del event


class _Step:
    __slots__ = ("note", "number", "status")

    def __init__(self, number: int) -> None:
        self.number = number
        self.status = "RAN"
        self.note = ""


@contextmanager
def step(sink: Sink, number: int, name: str) -> Iterator[_Step]:
    """Emits started and done round a block; the block may set `status` and `note` of what it is given."""
    sink.emit(StepStarted(number, name))
    began = time.monotonic()
    running = _Step(number)
    try:
        yield running
    except KeyboardInterrupt:
        sink.emit(StepDone(number, "CANCELED", time.monotonic() - began))
        raise
    except BaseException:
        sink.emit(StepDone(number, "FAILED", time.monotonic() - began))
        raise
    sink.emit(StepDone(number, running.status, time.monotonic() - began, running.note))
