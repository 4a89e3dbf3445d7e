"""The output of a container in the background: a file of lines, written by who holds it, read by `aerogel logs`.

Each line of the file is an object with the keys of docker's json-file driver: `log` (a line, or a piece of a very long
one, which then has no line end), `stream` and `time` (RFC 3339, UTC, nanoseconds). Bytes that are no UTF-8 are lone
surrogates. A line that is not whole yet is not there.
"""

from __future__ import annotations

import calendar
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from aerogel.decoding import parse_json

__all__ = ["Line", "Log", "read_log", "time_text"]

_PIECE = 16 << 10
"""Bytes of a line after which it is cut, as docker does: a program may write without end and without lines."""
_BLOCK = 1 << 16
_POLL_S = 0.05


class Line(NamedTuple):
    """`text` ends with a line end unless it is a piece of a longer line. `time_ns` is since 1970."""

    text: bytes
    stream: str
    time_ns: int


def time_text(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, in UTC."""
    seconds, rest = divmod(time_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


class Log:
    """Writes the file; threads may share it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._open: dict[str, bytes] = {}

    def write(self, stream: str, data: bytes) -> None:
        """Takes what came; what is no whole line yet is kept for later."""
        with self._lock:
            *lines, rest = (self._open.pop(stream, b"") + data).split(b"\n")
            pieces = [piece for line in lines for piece in _pieces(line + b"\n")]
            *cut, rest = _pieces(rest)
            self._open[stream] = rest
            self._put(stream, [*pieces, *cut])

    def _put(self, stream: str, pieces: list[bytes]) -> None:
        now = time_text(time.time_ns())
        entries = ({"log": each.decode("utf-8", "surrogateescape"), "stream": stream, "time": now} for each in pieces)
        left = memoryview("".join(json.dumps(each, separators=(",", ":")) + "\n" for each in entries).encode("ascii"))
        while left:
            left = left[os.write(self._fd, left) :]

    def pump(self, stream: str, fd: int, tell: Callable[[str, bytes], object] | None = None) -> None:
        """Writes all that comes from a descriptor, which is closed at the end; `tell` hears it too."""
        with open(fd, "rb", buffering=0) as file:
            while True:
                try:
                    data = file.read(_BLOCK)
                except OSError:  # EIO: the last one who had the terminal is gone
                    return
                if not data:
                    return
                self.write(stream, data)
                if tell is not None:
                    tell(stream, data)

    def close(self) -> None:
        """Writes what is left without a line end."""
        with self._lock:
            for stream, data in self._open.items():
                self._put(stream, [data] if data else [])
        os.close(self._fd)


def _pieces(line: bytes) -> list[bytes]:
    return [line[at : at + _PIECE] for at in range(0, len(line), _PIECE)] or [b""]


def read_log(path: str, *, tail: int | None = None, goes_on: Callable[[], bool] | None = None) -> Iterator[Line]:
    """The lines, or the last `tail` of them; then those that come, as long as `goes_on` says so."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        if tail is not None:
            file.seek(_start_of(file.fileno(), tail))
        rest = b""
        while True:
            is_last = goes_on is None or not goes_on()
            while block := file.read(_BLOCK):
                *whole, rest = (rest + block).split(b"\n")
                yield from map(_line, whole)
            if is_last:
                return
            time.sleep(_POLL_S)


def _line(data: bytes) -> Line:
    try:
        entry = parse_json(data)
        whole, _, rest = entry["time"].partition(".")
        seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
        nanoseconds = seconds * 10**9 + int(rest.removesuffix("Z"))
        return Line(entry["log"].encode("utf-8", "surrogateescape"), entry["stream"], nanoseconds)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Line(data + b"\n", "stderr", 0)  # cut by a kill or a full disk: it is shown as it is


def _start_of(fd: int, count: int) -> int:
    """Where the last `count` lines of a file begin."""
    at = os.fstat(fd).st_size
    if count <= 0:
        return at
    found = 0
    while at > 0:
        size = min(_BLOCK, at)
        block = os.pread(fd, size, at - size)
        place = len(block)
        while (place := block.rfind(b"\n", 0, place)) >= 0:
            found += 1
            if found > count:
                return at - size + place + 1
        at -= size
    return 0
