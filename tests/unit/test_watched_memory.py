"""The watcher of memory that tests and benchmarks use: what it counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from memory import Memory, watched

SHARING = """
import os, sys
held = b"x" * 40_000_000
children = []
for _ in range(2):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    children.append(writing)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def sharing() -> Iterator[int]:
    """Three processes that share 40 MB."""
    with subprocess.Popen([sys.executable, "-c", SHARING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid


def seen(memory: Memory) -> Memory:
    memory.look()
    memory.stop()
    return memory


def test_what_processes_share_counts_once() -> None:
    with sharing() as pid:
        memory = seen(Memory(pid))
    assert 40e6 < memory.peak_anonymous < memory.peak - 1e6  # the interpreter's own program
    assert memory.peak < 100e6
    assert memory.peak_resident > 120e6
    assert memory.largest < 40e6


def test_what_ran_before_does_not_count() -> None:
    with sharing():
        assert seen(Memory(os.getpid(), itself=False)).peak == 0
        with watched() as memory, sharing():
            memory.look()
        assert 40e6 < memory.peak < 100e6
