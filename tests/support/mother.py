"""Commands of aerogel as processes of their own, born by one that has imported everything.

Most of the time of a short command is the start of Python and imports. What a child does is what `python -m aerogel` does
from its first line on. Not for: what happens at the start or by signals, memory and time.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Mother", "close_all", "is_possible", "run"]

SOURCE = Path(__file__).resolve().parents[2] / "src"
PROGRAM = """
import gc, importlib, json, os, pkgutil, sys
import aerogel
from aerogel.cli.main import main
for found in pkgutil.walk_packages(aerogel.__path__, "aerogel."):
    if found.name not in ("aerogel.__main__", "aerogel.sandbox.helper"):
        importlib.import_module(found.name)
for name in ("deflate", "zstandard", "urllib3", "yaml"):
    importlib.import_module(name)
gc.collect()
gc.freeze()
for line in sys.stdin:
    words, folder, environment, out, err = json.loads(line)
    files = [open(os.devnull, "rb"), open(out, "wb"), open(err, "wb")]
    pid = os.fork()
    if pid == 0:
        for fd, file in enumerate(files):
            os.dup2(file.fileno(), fd)
            file.close()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["aerogel", *words]
        sys.exit(main())
    for file in files:
        file.close()
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "GLIBC_", "MALLOC_", "OPENSSL_", "TZ")
"""Variables that Python and its libraries read when they start: a child has them as its mother has."""


class Mother:
    """Bears one command after the other."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-c", PROGRAM]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float = 1500
    ) -> subprocess.CompletedProcess[bytes]:
        """As `subprocess.run` does, and with pipes like its own; raises `subprocess.TimeoutExpired`."""
        assert self._process.stdin is not None
        pipes = [os.pipe(), os.pipe()]
        names = [f"/proc/{os.getpid()}/fd/{theirs}" for _, theirs in pipes]
        asked = [[os.fspath(word) for word in words], os.path.abspath(folder), dict(environment), *names]
        try:
            try:
                self._process.stdin.write(json.dumps(asked).encode() + b"\n")
                self._process.stdin.flush()
                pid = self._number()
            finally:
                for _, theirs in pipes:
                    os.close(theirs)
            said = _read([ours for ours, _ in pipes], time.monotonic() + timeout_s)
        finally:
            for ours, _ in pipes:
                os.close(ours)
        if said is None:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(words), timeout_s)
        return subprocess.CompletedProcess(list(words), self._number(), *said)

    def _number(self) -> int:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, "the process that bears the others has ended"
        return int(answer)

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def _read(fds: list[int], end: float) -> list[bytes] | None:
    """What comes until nobody writes any more, or None when that takes too long."""
    said = {fd: bytearray() for fd in fds}
    with selectors.DefaultSelector() as selector:
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                return None
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                said[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return [bytes(one) for one in said.values()]


_idle: list[Mother] = []
_lock = threading.Lock()
os.register_at_fork(after_in_child=_idle.clear)


def is_possible(environment: Mapping[str, str]) -> bool:
    """Whether a command can be born with this environment: not when what matters at the start is unlike that of these tests."""
    return _at_the_start(environment) == _at_the_start(_environment())


def run(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Runs a command; as many threads as like may do so at once, each with a mother that stays for the next."""
    with _lock:
        mother = _idle.pop() if _idle else None
    mother = mother or Mother(_environment())
    try:
        done = mother.run(words, folder, environment)
    except BaseException:
        mother.kill()
        raise
    with _lock:
        _idle.append(mother)
    return done


def close_all() -> None:
    """Ends those that wait for more."""
    with _lock:
        mothers = [*_idle]
        _idle.clear()
    for mother in mothers:
        mother.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


def _at_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_THE_START)}
