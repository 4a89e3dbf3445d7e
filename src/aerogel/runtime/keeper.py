"""The process that holds a container in the background: it starts it, writes its output down, ends with it.

Started by `sandbox.control.detach`, once for each container; there is no daemon. It outlives the terminal and the
command that started it. Whoever kills it ends the container. SIGTERM, SIGINT and SIGHUP stop the container as
`aerogel stop` does.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from aerogel.errors import AerogelError
from aerogel.runtime.audience import Audience
from aerogel.runtime.containers import Container, Containers, Seen, alive
from aerogel.runtime.logs import Log
from aerogel.runtime.serving import Server
from aerogel.runtime.volumes import Volumes
from aerogel.sandbox import wire
from aerogel.sandbox.cgroup import held
from aerogel.sandbox.launch import Helper, Process
from aerogel.sandbox.spec import Exit, Sandbox

__all__ = ["main", "pinned", "ready"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 60.0
_GOOD_RUN_S = 10.0
"""After one as long as this the pauses between restarts begin again with the shortest; as docker does."""
_EXPECTED_S = 30.0
"""So long one who wants to be attached may take to come."""
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(data: str, folder: str, state_dir: str, waits: str, ready: int) -> None:
    """Holds the container of `folder` to its end; says on `ready` how starting it went, as an object in JSON.

    `data` is the store's folder, `state_dir` the helper's. `{"pid": n}` when its command runs, else an error of `wire`.
    With `waits` the command starts when somebody is attached, who is told then how it went; `ready` says 0 before.
    """
    containers = Containers(data)
    answer = _Answer(ready)
    seen = containers.read(folder)
    if seen is None:
        return
    try:
        with ExitStack() as stack:
            stack.enter_context(alive(folder))
            stack.enter_context(pinned(seen.container.sandbox.root.lowers))
            helper = stack.enter_context(Helper.start(state_dir, isolation=seen.container.rung))  # type: ignore[arg-type] # a rung's name
            server = stack.enter_context(Server(helper, containers, seen))
            log = Log(f"{folder}/log")
            stack.callback(log.close)
            server.audience = Audience()
            if waits:
                answer.works(0)
                server.expect(_EXPECTED_S)
            _hold(seen, helper, server, log, answer)
            if seen.container.is_removed:

                def discard(path: str) -> None:
                    helper.call("remove", {"path": path})

                containers.remove(seen, discard)
                Volumes(data).remove_own(seen.container, containers.list, discard)
    except AerogelError as error:
        answer.fails(error)
    finally:
        answer.close()


class _Answer:
    """What the one who started this process waits for; said once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def works(self, pid: int) -> None:
        self._say({"pid": pid})

    def fails(self, error: AerogelError) -> None:
        self._say({"error": wire.error_to(error)})

    def _say(self, what: dict[str, object]) -> None:
        if self._fd >= 0:
            with contextlib.suppress(BrokenPipeError):  # it was killed; the container goes on
                os.write(self._fd, json.dumps(what).encode("ascii"))
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


@contextmanager
def pinned(lowers: Sequence[str]) -> Iterator[None]:
    """`aerogel prune` leaves these layers alone within the block. Raises `container.no-layers` when one is gone."""
    fds: list[int] = []
    try:
        for path in lowers:
            try:
                fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fds.append(fd)
                fcntl.flock(fd, fcntl.LOCK_SH)
                os.stat(path)
            except FileNotFoundError:
                raise AerogelError(
                    "the layers of the container's image were removed",
                    code="container.no-layers",
                    hints=["remove the container, and run its image again"],
                ) from None
        yield
    finally:
        for fd in fds:
            os.close(fd)


def _hold(seen: Seen, helper: Helper, server: Server, log: Log, answer: _Answer) -> None:
    """Runs the container's command, again and again if it is to be restarted."""
    container = seen.container

    def stop(number: int, frame: object) -> None:
        del number, frame
        server.stop(container.stop_signal, container.grace_s)

    for number in _ENDING:
        signal.signal(number, stop)
    pause_s, failures = _FIRST_PAUSE_S, 0
    for attempt in itertools.count():
        began = time.monotonic()
        end = _once(seen, helper, server, log, answer, again=attempt > 0)
        if time.monotonic() - began > _GOOD_RUN_S:
            pause_s, failures = _FIRST_PAUSE_S, 0
        failures += end.code != 0
        again = not server.is_stopping and end.fault is None and _is_wanted(container, end, failures)
        server.finished(end, for_good=not again)
        if not again:
            return
        until = time.monotonic() + pause_s
        while time.monotonic() < until and not server.is_stopping:
            time.sleep(min(0.05, pause_s))
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        if server.is_stopping:
            server.finished(end)
            return


def _is_wanted(container: Container, end: Exit, failures: int) -> bool:
    if container.restart == "on-failure":
        return end.code != 0 and (not container.restarts or failures <= container.restarts)
    return container.restart in ("always", "unless-stopped")


def _once(seen: Seen, helper: Helper, server: Server, log: Log, answer: _Answer, *, again: bool) -> Exit:
    """One run of the command; its output goes to the log."""
    sandbox = ready(seen, helper)
    pumps: list[threading.Thread] = []
    with ExitStack() as stack:
        out_read, out_write = os.pipe()
        error_read, error_write = os.pipe()
        stdin: int | None = None
        write = -1
        if seen.container.keeps_input and not sandbox.tty:
            stdin, write = os.pipe()
        try:
            group = stack.enter_context(held(seen.container.resources))
            process = helper.run(sandbox, stdin=stdin, stdout=out_write, stderr=error_write, group=group)
        except BaseException:
            if write >= 0:
                os.close(write)
            raise
        finally:
            for fd in (out_write, error_write, *(() if stdin is None else (stdin,))):
                os.close(fd)
        stack.enter_context(process)
        sources = [("stdout", out_read), ("stderr", error_read)]
        if process.tty is not None:
            sources.append(("stdout", os.dup(process.tty)))
        tell = None if server.audience is None else server.audience.tell
        for stream, fd in sources:
            pumps.append(threading.Thread(target=log.pump, args=(stream, fd, tell), name=f"log {stream}", daemon=True))
            pumps[-1].start()
        server.started(process, again=again, stdin=write)
        end = _follow(process, answer)
    for pump in pumps:
        pump.join()
    if end.fault is not None:
        end.fault.exit_status = end.code
        answer.fails(end.fault)
    return end


def _follow(process: Process, answer: _Answer) -> Exit:
    if process.executed():
        answer.works(process.pid)
    return process.wait()


def ready(seen: Seen, helper: Helper) -> Sandbox:
    """The sandbox with places for what it writes.

    Where roots are copied together an upper directory is written anew: what is in it becomes a layer first.
    """
    sandbox = seen.container.sandbox
    root = sandbox.root
    if root.upper is None:
        return sandbox
    if helper.rung.copies and os.path.isdir(root.upper):
        os.rename(root.upper, f"{seen.folder}/layer-{len(seen.written())}")
    older = tuple(path for path in seen.written() if path != root.upper)
    for path in (root.upper, root.work):
        if path is not None and not os.path.isdir(path):
            os.mkdir(path, 0o755)
    return msgspec.structs.replace(sandbox, root=msgspec.structs.replace(root, lowers=(*root.lowers, *older)))
