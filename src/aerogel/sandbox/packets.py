"""The helper's part of a network of the sandbox's own: runs pasta or slirp4netns as long as it is wanted.

A job of the helper. Standard library only. The main process's part is `tap`.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Any

from aerogel.sandbox import syscalls

__all__ = ["RESOLVERS", "serve"]

RESOLVERS = {"pasta": "169.254.1.1", "slirp4netns": "10.0.2.3"}
"""Where names are asked for inside, by program."""
_TIMEOUT_S = 20.0


def serve(args: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """A job: runs the program for the namespace fds[1] until one of both ends; fds[0] gets a byte when it is ready."""
    ready, namespace = fds
    place = f"/proc/self/fd/{namespace}"
    output = os.memfd_create("network", os.MFD_CLOEXEC)
    argv = [args["path"], *(_pasta(place, args["ports"]) if args["tool"] == "pasta" else _slirp(place, ready))]
    child = os.fork()
    if child == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            # some versions of pasta refuse to start when SIGPIPE is ignored, as Python does
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDWR)
            for target, fd in ((0, null), (1, output), (2, output)):
                os.dup2(fd, target)
            for fd in (ready, namespace):
                os.set_inheritable(fd, True)
            os.chdir(args["folder"])
            os.execve(argv[0], argv, {"PATH": os.defpath})  # noqa: S606 by full path
        finally:
            os._exit(127)
    if args["tool"] == "pasta":
        _tell_when_up(namespace, ready, child)
    os.close(ready)
    os.close(namespace)
    os.waitpid(child, 0)
    size = os.fstat(output).st_size
    return {"said": os.pread(output, 4096, max(0, size - 4096)).decode("utf-8", "replace").strip()}


def _slirp(place: str, ready: int) -> list[str]:
    words = ["--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={ready}", "--api-socket=api"]
    return [*words, "--netns-type=path", place, "tap0"]


def _pasta(place: str, ports: list[list[str]]) -> list[str]:
    words = ["--foreground", "--config-net", "--no-map-gw", "--dns-forward", RESOLVERS["pasta"]]
    given = [word for pair in ports for word in pair]
    for flag in ("-t", "-u"):
        if flag not in given:
            given += [flag, "none"]
    return [*words, *given, "-T", "none", "-U", "none", "--netns-only", "--netns", place]


def _tell_when_up(namespace: int, ready: int, child: int) -> None:
    """Pasta does not say when it is ready: a process in the namespace looks for its interface."""
    watcher = os.fork()
    if watcher == 0:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        for _ in range(int(_TIMEOUT_S / 0.005)):
            with open("/proc/thread-self/net/route", "rb") as file:
                if len(file.readlines()) > 1:
                    os.write(ready, b"1")
                    break
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                break
            select.select([], [], [], 0.005)
        os._exit(0)
