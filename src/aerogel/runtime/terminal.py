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

__all__ = ["copy_size", "join", "raw", "window_of"]

_CHUNK = 1 << 16


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


def join(stdin: int | None, stdout: int, master: int) -> None:
    """Copies until the container has closed its side of the terminal."""
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
                    return
                _write(stdout, data)
            elif data:
                _write(master, data)
            else:
                poll.unregister(fd)


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
