"""The main process's side of the sandbox: starts the helper, sends it commands and file jobs, rebuilds its errors.

The only module that starts processes. Nothing here forks Python: the helper is executed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

from aerogel.sandbox.spec import Exit, Isolation, Rung, Sandbox

__all__ = ["Helper", "Process"]


class Process(Protocol):
    """A running command; made by `Helper.run`."""

    pid: int
    tty: int | None

    def signal(self, number: int) -> None: ...
    def wait(self, timeout_s: float | None = None) -> Exit: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


class Helper(Protocol):
    """One per build; thread-safe."""

    rung: Rung

    @classmethod
    def start(
        cls, state_dir: str, *, isolation: Isolation = "auto", preload: Sequence[str] = ("aerogel.files.jobs",)
    ) -> Helper: ...
    def run(self, sandbox: Sandbox, *, stdin: int | None = None, stdout: int, stderr: int) -> Process: ...
    def call(self, job: str, args: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Helper: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
