"""Joins the user's terminal with a container's: raw mode, bytes both ways, the window's size."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
import tty
from collections.abc import Iterator

__all__ = ["Detacher", "copy_size", "join", "raw", "window_of"]

_CHUNK = 1 << 16


class Detacher:
    """Looks for the keys that detach in what is typed; what may be the beginning of them waits for what follows."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the keys came; what is typed after them is dropped."""
        if not self._keys:
            return data, False
        data, self._held = self._held + data, b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for size in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:size]):
                self._held = data[-size:]
                return data[:-size], False
        return data, False


def window_of(fd: int) -> tuple[int, int]:
    """Rows and columns of a terminal; 24 and 80 for what is none or does not know."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 24, 80
    return (rows, columns) if rows and columns else (24, 80)


def copy_size(source: int, master: int) -> None:
    """Gives a pseudo terminal the size of the user's; its programs get SIGWINCH."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *window_of(source), 0, 0))


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal in raw mode: keys such as Ctrl-C go to the container as bytes. Restored whatever happens."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def join(stdin: int | None, stdout: int, master: int, keys: bytes = b"") -> bool:
    """Copies until the container has closed its side of the terminal, or until the keys came, which True tells."""
    detacher = Detacher(keys)
    poll = select.poll()
    poll.register(master, select.POLLIN)
    if stdin is not None:
        poll.register(stdin, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            try:
                data = os.read(fd, _CHUNK)
            except OSError as error:
                if error.errno != errno.EIO:  # what a master says when the last slave is closed
                    raise
                data = b""
            if fd == master:
                if not data:
                    return False
                _write(stdout, data)
            elif data:
                passed, is_over = detacher.take(data)
                _write(master, passed)
                if is_over:
                    return True
            else:
                poll.unregister(fd)


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
