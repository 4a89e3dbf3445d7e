"""The helper process: one per build, single-threaded, inside the namespaces; forks a child per command and per job.

Started as `python -I -S -B helper.py SOURCE CONTROL PROGRAM` with the directory of the package, the descriptor of the
socket to the main process and that of the interpreter's copy (-1 without one); the first message there is the configuration: parent (the main process's pid), rungs (names to try
in order), ids, mount_dir, scratch, preload (modules whose functions may be called),
search (more directories for them), probe (only say what works).

    this process          climbs the ladder: forks a candidate per rung, maps its ids, then only waits
      candidate           entered the rung's namespaces, then only waits
        process 1         the helper proper: everything below it dies with it
          process 1       of one command's own process namespace (`init`), or a job's worker

Each request brings a socket of its own, which the child answers on. The helper holds a copy until the child is gone:
its end of file tells the main process that no process and no mount of the request is left. The main process's end
closing means: kill. Standard library only, everything imported before the first fork; modules of an image are never
looked for. Spec: `notes/sandbox.md` sections 4.1 and 4.2 of the design.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import time
from typing import Any, NamedTuple, NoReturn

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import capabilities, emulation, init, join, plain, rungs, seccomp, syscalls, title, wire
from aerogel.sandbox.work import find_job

__all__ = ["main"]

_GRACE_S = 5.0
_NO_SPACE = (28, 122)  # ENOSPC, EDQUOT


class _Task(NamedTuple):
    sock: socket.socket
    kind: str


def main(control_fd: int, program_fd: int) -> NoReturn:
    """Climbs the ladder and serves until the main process is gone."""
    if program_fd >= 0:  # what this process was started from
        os.close(program_fd)
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    received = wire.receive(control)
    if received is None:
        os._exit(1)
    config = received[0]
    _die_with(config["parent"])
    # Directories that are made for mounts may stay in the layer, when a step puts something into them.
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    sys.path[1:1] = config["search"]
    modules = [importlib.import_module(name) for name in config["preload"]]
    syscalls.load()
    title.place()
    with contextlib.suppress(KeyError):
        seccomp.program(os.uname().machine)
    findings: list[dict[str, Any]] = []
    # What is imported is shared by all that is forked below, unless one of them looks for garbage in it.
    gc.collect()
    gc.freeze()
    for name in config["rungs"]:
        ours, theirs = socket.socketpair()
        candidate = os.fork()
        if candidate == 0:
            ours.close()
            _climb(name, config, (control, theirs), modules, findings)
        theirs.close()
        finding = _follow(name, candidate, config, ours)
        findings.append(finding)
        if finding["works"] and not config["probe"]:
            control.close()
            os.waitpid(candidate, 0)
            os._exit(0)
        os.waitpid(candidate, 0)
    wire.send(control, {"findings": findings})
    os._exit(0)


def _die_with(parent: int) -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    # a parent in an outer process namespace shows as 0
    if parent and os.getppid() != parent:
        os._exit(1)


def _follow(name: str, candidate: int, config: dict[str, Any], link: socket.socket) -> dict[str, Any]:
    """Serves a candidate until it says whether its rung works."""
    while True:
        received = wire.receive(link)
        if received is None:
            return {"rung": name, "works": False, "problem": "died", "message": "the attempt died", "fixes": []}
        message = received[0]
        if "map" not in message:
            return message
        wire.send(link, {"refused": rungs.write_maps(candidate, name, config["ids"])})


def _climb(
    name: str,
    config: dict[str, Any],
    sockets: tuple[socket.socket, socket.socket],
    modules: list[Any],
    findings: list[dict[str, Any]],
) -> NoReturn:
    """In the candidate: enters the rung and becomes the parent of the helper proper. Never returns."""
    control, link = sockets
    try:
        rungs.enter(name, config, link)
        child = os.fork()
        if child:
            control.close()
            link.close()
            _die_with(0)
            os.waitpid(child, 0)
            os._exit(0)
        _die_with(0)
        overlay = rungs.examine({**config, "rung": name})
    except rungs.Refused as refused:
        finding = {"rung": name, "works": False, "overlay": None}
        finding |= {"problem": refused.problem, "message": refused.message, "fixes": list(refused.fixes)}
        wire.send(link, finding)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 a bug on one rung must not hide the others
        finding = {"rung": name, "works": False, "overlay": None}
        finding |= {"problem": "bug", "message": init.frames(error), "fixes": []}
        wire.send(link, finding)
        os._exit(0)
    finding = {"rung": name, "works": True, "problem": "", "message": "", "fixes": [], "overlay": overlay}
    wire.send(link, finding)
    link.close()
    if config["probe"]:
        os._exit(0)
    session = init.Session(
        config["mount_dir"],
        overlay,
        rungs.in_user_namespace(),
        capabilities.effective(),
        recorded=name in ("single", "proot"),
        copies=overlay is None,
        is_plain=name in ("chroot", "proot"),
        proot=rungs.find_proot() if name == "proot" else "",
        own=os.path.dirname(os.path.dirname(config["scratch"])),
        modules=tuple(modules),
    )
    wire.send(control, {"rung": name, "overlay": overlay, "findings": [*findings, finding]})
    _serve(control, session, modules)


def _serve(control: socket.socket, session: init.Session, modules: list[Any]) -> NoReturn:
    """The helper's loop; ends, and with it everything else, when the main process closes its end."""
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _noticed)
    namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    if session.is_plain:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    tasks: dict[int, _Task] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    gc.freeze()
    while True:
        for fd, event in poll.poll():
            if fd == control.fileno():
                received = wire.receive(control)
                if received is None:
                    _end(session, tasks)
                message, fds = received
                if message["kind"] == "emulate":
                    session = _emulate(socket.socket(fileno=fds[0]), message["interpreters"], session)
                    continue
                task = _Task(socket.socket(fileno=fds[0]), message["kind"])
                pid = _fork(task, -1 if session.is_plain else namespace)
                if pid == 0:
                    for other in (control, *(t.sock for t in tasks.values())):
                        other.close()
                    for number in (wake_read, wake_write, namespace):
                        os.close(number)
                    _child(task, session, modules)
                if pid > 0:
                    tasks[pid] = task
                    poll.register(task.sock, 0)  # only the other side's closing
            elif fd == wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
            elif event:
                _kill(fd, tasks, session)
                poll.unregister(fd)
        _reap(tasks, poll)
        if session.is_plain:
            _end_strays(tasks)


def _end(session: init.Session, tasks: dict[int, _Task]) -> NoReturn:
    """The main process is gone: the kernel ends what is in process namespaces, the rest ends itself when asked."""
    if session.is_plain:
        for task in tasks.values():
            task.sock.close()
        until = time.monotonic() + _GRACE_S
        while plain.descendants(os.getpid()) and time.monotonic() < until:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            time.sleep(0.005)
        plain.end_all()
    os._exit(0)


def _end_strays(tasks: dict[int, _Task]) -> None:
    """Without process namespaces: ends what was left behind by a command whose first process was killed."""
    for pid in plain.children(os.getpid()):
        if pid not in tasks:
            for each in (*plain.descendants(pid), pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)


def _emulate(sock: socket.socket, interpreters: dict[str, str], session: init.Session) -> init.Session:
    """Makes the place for commands of other machines; the session with it, and an answer."""
    try:
        user, mounts = emulation.make(session.mount_dir, interpreters)
    except AerogelError as error:
        answer: dict[str, Any] = {"error": wire.error_to(error)}
    else:
        # Held to the end: with the mount namespace the list of formats would be gone.
        os.set_inheritable(mounts, False)
        session = session._replace(emulation=user)
        answer = {"result": {}}
    with sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(sock, answer)
    return session


def _noticed(number: int, frame: object) -> None:
    del number, frame


def _fork(task: _Task, namespace: int) -> int:
    """Forks a child, for a command into a new process namespace; 0 in the child, -1 when it failed."""
    try:
        if task.kind != "run" or namespace < 0:
            return os.fork()
        syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            pid = os.fork()
        except OSError:
            syscalls.setns(namespace, syscalls.CLONE_NEWPID)
            raise
        if pid:
            syscalls.setns(namespace, syscalls.CLONE_NEWPID)
        return pid
    except OSError as error:
        problem = AerogelError(
            f"no process can be started: {error.strerror}",
            code="sandbox.no-process",
            hints=["see `ulimit -u` and /proc/sys/user/max_pid_namespaces"],
            exit_status=EXIT_HOST,
        )
        with contextlib.suppress(OSError):
            wire.send(task.sock, {"error": wire.error_to(problem)})
        task.sock.close()
        return -1


def _kill(fd: int, tasks: dict[int, _Task], session: init.Session) -> None:
    for pid, task in tasks.items():
        # who joined, or has no namespaces, notices by itself and ends what is below it
        alone = task.kind == "join" or (session.is_plain and task.kind == "run")
        if task.sock.fileno() == fd and not alone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _reap(tasks: dict[int, _Task], poll: select.poll) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        task = tasks.pop(pid, None)
        if task is not None:
            with contextlib.suppress(KeyError):
                poll.unregister(task.sock)
            with contextlib.suppress(OSError):
                wire.send(task.sock, {"end": status})
            task.sock.close()


def _child(task: _Task, session: init.Session, modules: list[Any]) -> NoReturn:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _die_with(0)
    if task.kind != "job" and session.is_plain:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    if task.kind == "run":
        init.run(task.sock, session)
    if task.kind == "join":
        init.run(task.sock, session, join.join)
    _work(task.sock, session, modules)
    os._exit(0)


def _work(sock: socket.socket, session: init.Session, modules: list[Any]) -> None:
    """Runs one job of a preloaded module and sends its result or its error.

    Every job is told in `recorded` whether owners are (`record`), in `copied` whether roots are (`copied`), and in
    `marks` whose attributes overlayfs uses: `trusted` or `user`, and in `bare` whether modes bind the owner.
    """
    try:
        received = wire.receive(sock)
        if received is None:
            return
        message, fds = received
        found = find_job(message["job"], modules)({**message["args"], **session.facts()}, fds)
        answer: dict[str, Any] = {"result": found}
    except AerogelError as error:
        answer = {"error": wire.error_to(error)}
    except OSError as error:
        answer = {"error": wire.error_to(_job_error(error))}
    except BaseException as error:  # noqa: BLE001 a bug is carried to the main process, which shows it as one
        answer = {"bug": init.frames(error)}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(sock, answer)


def _job_error(error: OSError) -> AerogelError:
    where = f"`{error.filename}`: " if error.filename else ""
    if error.errno in _NO_SPACE:
        return AerogelError(
            f"{where}{error.strerror}",
            code="sandbox.no-space",
            hints=["free some space, or point AEROGEL_ROOT at a larger disk"],
            exit_status=EXIT_HOST,
        )
    return AerogelError(f"{where}{error.strerror}", code="sandbox.io", exit_status=EXIT_HOST)


if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]))
