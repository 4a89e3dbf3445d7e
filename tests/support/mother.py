"""Commands of aerogel as processes of their own, born by one that has imported everything.

For tests that run hundreds of commands: most of their time would be the start of Python and imports. What a child does is
what `python -m aerogel` does from its first line on. Not for: what happens at the start or by signals, memory and time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import checked
from process import ROOT, Aerogel

__all__ = ["Born", "Mother"]

PROGRAM = """
import importlib, json, os, pkgutil, sys
import aerogel
from aerogel.cli.main import main
for found in pkgutil.walk_packages(aerogel.__path__, "aerogel."):
    if found.name not in ("aerogel.__main__", "aerogel.sandbox.helper"):
        importlib.import_module(found.name)
for name in ("deflate", "zstandard", "urllib3", "yaml"):
    importlib.import_module(name)
for line in sys.stdin:
    words, folder, out, err = json.loads(line)
    pid = os.fork()
    if pid == 0:
        for fd, path, mode in ((0, os.devnull, "rb"), (1, out, "wb"), (2, err, "wb")):
            with open(path, mode) as file:
                os.dup2(file.fileno(), fd)
        os.chdir(folder)
        sys.argv = ["aerogel", *words]
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Mother:
    """Runs one command after the other; a thread needs its own. `env` is the whole environment of all of them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="said-")
        command = [sys.executable, "-c", PROGRAM]
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
        out, err = (Path(self._folder.name, name) for name in ("out", "err"))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(words), str(folder), str(out), str(err)]).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that bears the others has ended"
        return subprocess.CompletedProcess(words, int(answer), out.read_bytes(), err.read_bytes())

    def close(self) -> None:
        self._process.communicate()
        self._folder.cleanup()
        assert self._process.returncode == 0


class Born(Aerogel):
    """The commands of an account, in a store that others may use as well; `close` when all is done."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self._mother = Mother(self.env)

    def __call__(
        self, *words: str, check: bool = True, cwd: Path = ROOT, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        assert not options, "a process of its own from the start is needed for that"
        checked.touch(self.state / "data")
        done = self._mother.run(words, cwd)
        out, err = (data.decode(errors="replace") for data in (done.stdout, done.stderr))
        if check and done.returncode != 0:
            raise AssertionError(f"{words} ended with {done.returncode}\n{out}\n{err}")
        return subprocess.CompletedProcess(words, done.returncode, out, err)

    def close(self) -> None:
        self._mother.close()
