"""The answer of a build that has nothing to do, given again without doing the build.

A build that found every step CACHED leaves what it printed, with what it read (`aerogel.witness`), under a key of all
that the command line, the environment and this program are. When the same is asked again and the kernel says that
everything read is as it was, the answer is the same. Anything else takes the ordinary way, which decides alone what
is right: this is never asked whether a step is up to date.

::

    <cache>/replays-v1/<32 hex>     digest of the rest, then (stdout, stderr, facts) in `marshal` form

Imports next to nothing: Python's own start is most of what a repeated build costs. Standard library only.
"""

from __future__ import annotations

import marshal
import os
import sys
import time
from _blake2 import blake2b

from aerogel import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

    from aerogel.witness import Witness

__all__ = ["Recorder", "Replay", "cache_folder", "is_replayable"]

_FOLDER = "replays-v1"

_VOLATILE = frozenset({"_", "OLDPWD", "SHLVL"})
"""Variables that shells set anew for each command; a build that takes one as an argument is not kept."""

_DIGEST_BYTES = 32
_MAX_BYTES = 1 << 16
_MAX_KEPT = 200
_COMMANDS = (("build",), ("buildx", "build"), ("buildx", "b"), ("image", "build"), ("builder", "build"))


def is_replayable(words: Sequence[str]) -> bool:
    """Whether the words are a build."""
    return any(tuple(words[: len(each)]) == each for each in _COMMANDS)


class Replay:
    """One command line in the environment of this process. Raises OSError where there is no working directory."""

    def __init__(self, words: Sequence[str]) -> None:
        self.began_ns = time.time_ns()
        # Before `settings` is imported, which reads it for everything else.
        environment = sorted((name, value) for name, value in os.environ.items() if name not in _VOLATILE)
        screen = [os.isatty(fd) for fd in (1, 2)]
        size = list(os.get_terminal_size(2)) if screen[1] else []
        who = [os.getuid(), os.getgid(), *os.getgroups()]
        program = (__version__, sys.version, _program())
        facts = (program, list(words), os.getcwd(), environment, screen, size, who)
        key = blake2b(marshal.dumps(facts, 2), digest_size=16).hexdigest()
        self.cache = cache_folder(dict(environment))
        self.path = f"{self.cache}/{_FOLDER}/{key}"
        """Where the answer is kept."""

    def answer(self) -> bool:
        """Prints the kept answer if it is still right; otherwise does nothing and says so."""
        if not self.cache:
            return False
        try:
            with open(self.path, "rb") as file:
                data = file.read()
            if _digest(data[_DIGEST_BYTES:]) != data[:_DIGEST_BYTES]:
                return False
            stdout, stderr, facts = marshal.loads(data[_DIGEST_BYTES:])  # noqa: S302 - our own file, checked

            from aerogel.witness import holds, touch

            if not holds(facts):
                return False
            touch(facts)
        except OSError:
            return False
        _write_all(2, stderr)
        _write_all(1, stdout)
        return True


class Recorder:
    """Passes on what goes to a stream and remembers it, up to a limit. The part of `TextIO` that consoles use."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pieces: list[str] = []
        self._size = 0

    def write(self, text: str) -> int:
        self._size += len(text)
        if self._size <= _MAX_BYTES:
            self._pieces.append(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def save(self, replay: Replay, cache: str, stdout: str, witness: Witness) -> None:
        """Keeps the answer for the next time, if the run can vouch for it. `cache` is where the run kept its state."""
        facts = witness.facts(replay.began_ns)
        if facts is None or self._size > _MAX_BYTES or replay.cache != cache:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        stderr = "".join(self._pieces).encode(encoding, "replace")
        body = marshal.dumps((stdout.encode("utf-8", "surrogateescape"), stderr, facts))
        try:
            _put(replay.path, _digest(body) + body)
        except OSError:  # it only costs time
            return


def cache_folder(environment: Mapping[str, str]) -> str:
    """The cache folder as the environment alone names it (see `settings.load_settings`); empty when it does not."""
    if root := environment.get("AEROGEL_ROOT"):
        if root.startswith("~"):
            return ""
        return os.path.abspath(f"{root}/cache")
    if (given := environment.get("XDG_CACHE_HOME", "")).startswith("/"):
        return f"{given}/aerogel"
    home = environment.get("HOME", "")
    return f"{home}/.cache/aerogel" if home.startswith("/") else ""


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _program() -> list[tuple[str, int, int]]:
    """The source of this program: of a checkout it changes without a new version."""
    found = []
    pending = [os.path.dirname(os.path.dirname(__file__))]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for each in listing:
                if each.is_dir(follow_symlinks=False):
                    if each.name != "__pycache__":
                        pending.append(each.path)
                elif each.name.endswith(".py"):
                    status = each.stat(follow_symlinks=False)
                    found.append((each.path, status.st_size, status.st_mtime_ns))
    return sorted(found)


def _put(path: str, data: bytes) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    made = f"{path}.{os.getpid()}"
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, data)
    finally:
        os.close(fd)
    os.rename(made, path)
    names = os.listdir(folder)
    if len(names) > _MAX_KEPT:
        paths = [f"{folder}/{name}" for name in names]
        for old in sorted(paths, key=lambda one: os.stat(one).st_mtime_ns)[: len(paths) - _MAX_KEPT]:
            os.unlink(old)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
