"""A function of the helper's modules in place of a command: in the root of a sandbox, with all that is mounted there.

It sees the paths that the command would see, so no link of the image leads it out. Standard library only: part of the
helper.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import wire

__all__ = ["find_job", "perform"]

Job = Callable[[dict[str, Any], list[int]], dict[str, Any]]


def find_job(name: str, modules: Sequence[Any]) -> Job:
    """The function `function` or `module:function` of a preloaded module. Raises LookupError."""
    wanted, colon, function = name.rpartition(":")
    for module in modules:
        if not colon or module.__name__ == wanted:
            found: Job | None = getattr(module, function, None)
            if found is not None and function in module.__all__:
                return found
    raise LookupError(f"no preloaded module has the job {name}")


def perform(
    job: Job, args: dict[str, Any], stdio: tuple[int, ...], error_fd: int, supervisor: socket.socket | None, tree: str
) -> NoReturn:
    """Runs the job with the descriptors 0 and 1, and ends; on failure writes {"code", "fault"} to `error_fd`."""
    try:
        if supervisor is not None:  # nothing that it does needs an answer
            supervisor.close()
        for target, fd in enumerate(stdio):
            os.dup2(fd, target, inheritable=False)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.umask(0)
        if tree:
            sys.path[:] = []
            sys.meta_path[:] = []
            sys.path_hooks[:] = []
            os.chroot(tree)
        os.chdir("/")
        job(args, [0, 1])
        os._exit(0)
    except AerogelError as error:
        fault = error
    except OSError as error:
        where = f"`{error.filename}`: " if error.filename else ""
        fault = AerogelError(
            f"{where}{(error.strerror or str(error)).lower()}", code="sandbox.io", exit_status=EXIT_HOST
        )
    os.write(error_fd, json.dumps({"code": 1, "fault": wire.error_to(fault)}).encode())
    os._exit(1)
