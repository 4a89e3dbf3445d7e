"""Progress on a terminal: finished steps scroll up, running ones are redrawn below with their last lines.

The only module that imports rich for progress; nothing imports it unless a terminal shows something.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from typing import TextIO

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aerogel.cli.lines import LineCutter, Pace, describe_progress
from aerogel.errors import render, visible
from aerogel.events import Event, Message, Progress, StepDone, StepLog, StepStarted, Warned
from aerogel.redact import Redactor

__all__ = ["LiveConsole"]

SHOWN_LINES = 6
"""Lines of a running step's output that are shown."""

_DIGEST = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")
"""A digest, and as much of it as tells a person something: whole ones are in the other forms of progress."""

_STYLES = {"FAILED": "bold red", "CANCELED": "yellow", "CACHED": "cyan", "REUSED": "cyan"}


class _Running:
    __slots__ = ("began", "blobs", "cutters", "lines", "name", "paces", "progress")

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.monotonic()
        self.lines: deque[str] = deque(maxlen=SHOWN_LINES)
        self.cutters: dict[int, LineCutter] = {}
        self.progress: dict[str, Progress] = {}
        self.blobs: dict[str, Progress] = {}
        self.paces: dict[str, Pace] = {}

    def far(self, event: Progress) -> None:
        key = event.blob or event.label
        self.paces.setdefault(key, Pace(event, time.monotonic())).see(event)
        if event.blob and event.done >= event.total:
            self.blobs.pop(key, None)  # what is whole is told by the line of the transfer
        elif event.blob:
            self.blobs[key] = event
        else:
            self.progress[key] = event

    def transfers(self, now_s: float) -> list[str]:
        """The last ones, then their blobs that move, with rate and the time that is left."""
        found = []
        for event in (*list(self.progress.values())[-3:], *list(self.blobs.values())[-SHOWN_LINES:]):
            words = self.paces[event.blob or event.label].words(now_s)
            name = f"   {event.blob.partition(':')[2][:12]}" if event.blob else event.label
            found.append(f"{name} {describe_progress(event)}{f', {words}' if words else ''}")
        return found


class LiveConsole:
    """The `tty` form. The display runs only while steps do, so a container may have the terminal in between."""

    def __init__(self, stream: TextIO, redactor: Redactor, *, color: bool) -> None:
        self._console = RichConsole(
            file=stream, force_terminal=True, no_color=not color, highlight=False, markup=False, emoji=False
        )
        self._redactor = redactor
        self._running: dict[int, _Running] = {}
        self._live: Live | None = None
        self._lock = threading.RLock()

    def emit(self, event: Event, /) -> None:
        with self._lock:
            match event:
                case StepStarted():
                    self._running[event.step] = _Running(event.name)
                    self._start()
                case StepLog():
                    self._log(event)
                case Progress():
                    if running := self._running.get(event.step):
                        running.far(event)
                case StepDone():
                    self._done(event)
                case Message():
                    self._console.print(self._text(_DIGEST.sub(r"\1", event.text)))
                case Warned():
                    self._console.print(Text.from_ansi(self._redactor.text(render(event.diagnostic, color=True))))

    def close(self) -> None:
        with self._lock:
            self._running.clear()
            self._stop()

    def _start(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._picture,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _log(self, event: StepLog) -> None:
        running = self._running.get(event.step)
        if running is not None:
            cutter = running.cutters.setdefault(event.stream, LineCutter())
            running.lines.extend(cutter.feed(event.data))

    def _done(self, event: StepDone) -> None:
        running = self._running.pop(event.step, None)
        if not self._running:
            self._stop()
        word = "" if event.status == "RAN" else f"{event.status} "
        note = f" {event.note}" if event.note else ""
        name = f"{word}{running.name if running else event.step}{note}"
        self._console.print(self._row(f"=> {name}", event.duration_s, _STYLES.get(event.status, "")))

    def _picture(self) -> Group:
        now = time.monotonic()
        with self._lock:
            rows: list[Table | Text] = []
            for running in self._running.values():
                rows.append(self._row(f"=> {running.name}", now - running.began, "bold"))
                rows += [self._row(f"=> => {one}", None, "") for one in running.transfers(now)]
                rows += [self._text(f"     {line}", "dim") for line in running.lines]
            return Group(*rows)

    def _row(self, text: str, duration_s: float | None, style: str) -> Table:
        row = Table.grid(expand=True, padding=(0, 1, 0, 0))
        row.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        row.add_column(justify="right", no_wrap=True)
        row.add_row(self._text(text, style), Text("" if duration_s is None else f"{duration_s:.1f}s", style=style))
        return row

    def _text(self, text: str, style: str = "") -> Text:
        return Text(self._redactor.text(visible(text)), style=style, no_wrap=True, overflow="ellipsis")
