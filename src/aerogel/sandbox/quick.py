"""The short way to start a command: process 1 gets ready what a command inherits, and no copy of Python is made.

A forked Python copies some five hundred pages, in itself and in its parent, before it becomes the command. Here
process 1 itself loads the filter, bounds the capabilities and enters the directory; the C code of `subprocess` does the
rest, by vfork(2) for root. What this cannot do (terminals, limits, supervisors, other machines), and what fails, goes
the long way (`command`), which knows the words for it. Standard library only: part of the helper.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from typing import Any

from aerogel.errors import AerogelError
from aerogel.sandbox import capabilities, command, syscalls
from aerogel.sandbox.accounts import Account

__all__ = ["can_spawn", "spawn"]

_KEPT_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores them, and `subprocess` sets them right in the child."""


def can_spawn(request: dict[str, Any]) -> bool:
    """Whether a command in namespaces of its own, with all ids mapped, can go this way; process 1 asks."""
    return os.getpid() == 1 and not (request["tty"] or request["limits"] or request["emulated"] or request["work"])


def spawn(request: dict[str, Any], account: Account, stdio: tuple[int, ...], all_capabilities: int) -> int:
    """Starts the command and gives its process id; 0 when it could not be started.

    This process has the command's filter, bounding set and groups afterwards.
    """
    for number in range(1, signal.NSIG):
        if number not in _KEPT_IGNORED and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)  # what is ignored stays so through exec
    try:
        # Whoever is process 1 shares its memory until exec: nobody may look into it.
        command.own_stdio(account, stdio)
        command.change_directory(request["cwd"], create=request["create_cwd"])
        environment = dict(request["env"])
        program = _find(request["argv"][0], environment)
        if not command.groups_are_denied():
            os.setgroups(account.groups)
        mask = command.confine(request, all_capabilities)
        capabilities.drop(mask)
        syscalls.capset(all_capabilities)  # nothing is inherited
        child = subprocess.Popen(
            request["argv"],
            executable=program,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            close_fds=False,
            env=environment,
            start_new_session=True,
            user=account.uid or None,
            group=account.gid or None,
        )
    except (OSError, ValueError, AerogelError):
        return 0
    finally:
        os.chdir("/")
    child.returncode = 0  # process 1 waits for all that end
    return child.pid


def _find(name: str, environment: dict[str, str]) -> str:
    """Where the command is; the name itself when that is not clear."""
    if "/" in name:
        return name
    for directory in environment.get("PATH", command.DEFAULT_PATH).split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            mode = os.stat(candidate).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return candidate
    raise FileNotFoundError(name)
