"""A step's output as lines that are safe to show, and progress in words. Pure functions of bytes and events."""

from __future__ import annotations

import re

from aerogel.errors import visible
from aerogel.events import Progress

__all__ = ["LineCutter", "Pace", "clean", "describe_progress"]

LONGEST_LINE = 65536
"""Bytes after which output without a line end is cut."""

_LONGEST_RUN = 1024
"""So many null bytes are shown one by one."""

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*(?:[@-~]|$)"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC, DCS, SOS, PM, APC: titles, clipboard, links
    r"|\x1b[ -/]*(?:[0-~]|$)"  # two-character sequences
    r"|\x9b[0-?]*[ -/]*(?:[@-~]|$)"  # CSI as one character
)


_PLAIN = bytes(range(0x20, 0x7F)) + b"\t"
"""What is shown as it is."""


def clean(line: str) -> str:
    """One line of a program's output without escape sequences; other control characters made visible."""
    return visible(_ESCAPES.sub("", line) if "\x1b" in line or "\x9b" in line else line)


class LineCutter:
    """Cuts output that comes in pieces into clean lines; of a line redrawn with carriage returns, the last state."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[str]:
        whole, newline, self._pending = (self._pending + data).rpartition(b"\n")
        lines = _lines(whole) if newline else []
        if len(self._pending) > LONGEST_LINE:
            lines.append(_line(self._pending))
            self._pending = b""
        return lines

    def rest(self) -> list[str]:
        """The last line if it had no end."""
        pending, self._pending = self._pending, b""
        return [_line(pending)] if pending else []


def _lines(whole: bytes) -> list[str]:
    if whole.isascii() and not whole.translate(None, _PLAIN + b"\n"):
        return whole.decode("ascii").split("\n")
    return [_line(line) for line in whole.split(b"\n")]


def _line(data: bytes) -> str:
    if data.isascii() and not data.translate(None, _PLAIN):
        return data.decode("ascii")
    if len(data) > _LONGEST_RUN and data[:1] == b"\0" and not data.strip(b"\0"):
        return f"\\x00 {len(data)} times"  # a device of zeros, a hole of a file
    states = [part for part in data.split(b"\r") if part]
    return clean(states[-1].decode("utf-8", "replace")) if states else ""


def describe_progress(event: Progress) -> str:
    """`12.3 MB of 40.0 MB`, `12 of 31 packages`, or that nothing has come yet."""
    if not event.done and not event.total:
        return "no answer yet"
    if event.unit != "bytes":
        return f"{event.done} of {event.total} {event.unit}" if event.total else f"{event.done} {event.unit}"
    unit, name = (1e3, "kB") if max(event.done, event.total or 0) < 1e6 else (1e6, "MB")
    done = f"{event.done / unit:.1f} {name}"
    return f"{done} of {event.total / unit:.1f} {name}" if event.total else done


_STEADY_S = 1.0
"""A rate is told when it has been seen for so long."""


class Pace:
    """How fast one transfer is, from its first event on. Times are seconds of any clock that does not go back."""

    __slots__ = ("_began_s", "_first", "_last")

    def __init__(self, event: Progress, now_s: float) -> None:
        self._began_s = now_s
        self._first = event.done
        self._last = event

    def see(self, event: Progress) -> None:
        self._last = event

    def rate(self, now_s: float) -> tuple[float, float]:
        """Units a second and the seconds that are left; 0 for what has just begun, stands still or is done."""
        event, passed_s = self._last, now_s - self._began_s
        came = event.done - self._first
        if passed_s < _STEADY_S or came <= 0 or event.done == event.total:
            return 0.0, 0.0
        rate = came / passed_s
        return rate, (event.total - event.done) / rate if event.total > event.done else 0.0

    def words(self, now_s: float) -> str:
        """`5.1 MB/s, 6 s left`; nothing for what is not bytes, has just begun or stands still."""
        event = self._last
        rate, left_s = self.rate(now_s)
        if event.unit != "bytes" or not rate:
            return ""
        unit, name = (1e3, "kB") if rate < 1e6 else (1e6, "MB")
        told = f"{rate / unit:.1f} {name}/s"
        if not left_s:
            return told
        whole = round(left_s)
        return f"{told}, {whole // 60} min {whole % 60} s left" if whole >= 60 else f"{told}, {max(1, whole)} s left"
