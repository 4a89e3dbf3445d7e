"""Who is attached to a container: what happens to those who are slow, or go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from aerogel.runtime.audience import Audience


def test_nothing_is_written_to_who_comes_after(tmp_path: Path) -> None:
    """The descriptors of one who has gone are closed, and their numbers are somebody else's."""
    audience = Audience()
    read, write = os.pipe()
    listener = audience.join(write, write)
    for _ in range(20):  # far more than a pipe takes, so that the writer waits in the middle
        audience.tell("stdout", b"x" * 65536)
    while not os.read(read, 1):
        pass
    audience.leave(listener)
    os.close(write)
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    assert other == write
    os.set_blocking(read, True)
    while os.read(read, 65536):
        pass
    assert os.fstat(other).st_size == 0
    os.close(other)
    os.close(read)


def test_all_that_came_is_written_within_the_time() -> None:
    audience = Audience()
    read, write = os.pipe()
    listener = audience.join(write, write)
    pieces = [b"%d\n" % number for number in range(50_000)]
    found: list[bytes] = []

    def collect() -> None:
        with open(read, "rb") as file:
            found.append(file.read())

    thread = threading.Thread(target=collect)
    thread.start()
    for number, piece in enumerate(pieces):
        audience.tell("stdout" if number % 2 else "stderr", piece)
    audience.leave(listener, 60.0)
    os.close(write)
    thread.join(60)
    assert found == [b"".join(pieces)]
