"""Process 1 of a sandbox: builds its root, starts the command, reaps, relays signals, says how it ended.

Forked by the helper into a new process namespace: when this process ends the kernel ends all others in it.
Standard library only: part of the helper.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import (
    accounts,
    capabilities,
    command,
    inroot,
    mounts,
    plain,
    quick,
    rootfs,
    syscalls,
    title,
    wire,
    work,
)
from aerogel.sandbox.bare import BareRecorder
from aerogel.sandbox.procshim import Shim
from aerogel.sandbox.recorder import Recorder
from aerogel.sandbox.unwritten import Unwritten

__all__ = ["NAMESPACES", "Prepared", "Session", "environment", "frames", "run", "serve"]

_RECORDING = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SYS_PTRACE")
"""What process 1 needs to do what it answers for."""
NAMESPACES = (("pid", syscalls.CLONE_NEWPID), ("mnt", syscalls.CLONE_NEWNS), ("ipc", syscalls.CLONE_NEWIPC))
"""What a command that joins another one enters, in this order; then `uts`, and `net` when it is the sandbox's own."""
_AGAIN_MS = 10
_PROOT_FAILED = 255
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT)


_Work = Callable[[socket.socket, "Session", dict[str, Any], list[int]], None]


class Session(NamedTuple):
    """What the helper found out when it started."""

    mount_dir: str
    overlay: str | None
    in_userns: bool
    capabilities: int
    recorded: bool = False
    """Whether only one id is mapped, so that owners are recorded."""
    copies: bool = False
    """Whether no overlay can be mounted, so that roots are copied together."""
    is_plain: bool = False
    """Whether there are no namespaces at all."""
    proot: str = ""
    """The program that gives commands their root where nothing else can; else empty."""
    own: str = ""
    """The folder that the state directory is in: what lies in it belongs to aerogel."""
    emulation: int = -1
    """A user namespace with formats of its own, for commands of other machines; -1 when there is none."""
    modules: tuple[Any, ...] = ()
    """Those whose jobs may be called."""

    def facts(self) -> dict[str, Any]:
        """What every job is told (`helper`)."""
        marks, is_bare = self.overlay or "user", bool(self.proot)
        return {"recorded": self.recorded, "copied": self.copies, "marks": marks, "bare": is_bare}


class Prepared(NamedTuple):
    """What is ready when a command can be started."""

    account: accounts.Account
    stdio: tuple[int, ...]
    master: int
    host_pid: int
    listeners: list[socket.socket]
    namespaces: tuple[int, ...] = ()
    tree: str = ""
    """The root of the command where there are no namespaces."""
    filling: plain.Filling | None = None
    """What was put into the tree, to be taken out again."""
    owners: str = ""
    """The file with the owners of links in the tree."""


def run(sock: socket.socket, session: Session, serve_other: _Work | None = None) -> NoReturn:
    """Serves one run: a request comes in, `started`, then `exit` go out. Never returns.

    `serve_other` does something else with the request than to start a command in a root of its own.
    """
    try:
        received = wire.receive(sock)
        if received is not None:
            request, fds = received
            (serve_other or _run)(sock, session, request, _join_groups(request, fds))
    except AerogelError as error:
        _answer(sock, {"error": wire.error_to(error)})
    except OSError as error:
        _answer(sock, {"error": wire.error_to(_setup_error(error))})
    except BaseException as error:  # noqa: BLE001 a bug is carried to the main process, which shows it as one
        _answer(sock, {"bug": frames(error)})
    os._exit(0)


def _join_groups(request: dict[str, Any], fds: list[int]) -> list[int]:
    """Puts this process into the control groups that came last; the descriptors that are left."""
    first = len(fds) - request.get("groups", 0)
    for fd in fds[first:]:
        os.write(fd, b"0")
        os.close(fd)
    return fds[:first]


def frames(error: BaseException) -> str:
    """A traceback without source lines: reading them would open files by names that an image may hold."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}')
        trace = trace.tb_next
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])


def _answer(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(sock, message, fds)


def _setup_error(error: OSError) -> AerogelError:
    hints = []
    if error.errno == errno.ENOSPC and error.filename == "unshare":
        hints = ["the quota of namespaces is used up: see /proc/sys/user/max_*_namespaces"]
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        hints = ["the disk that holds the state directory is full"]
    return AerogelError(
        f"the sandbox cannot be set up: {error.filename or 'a system call'}: {error.strerror}",
        code="sandbox.setup",
        hints=hints,
        exit_status=EXIT_HOST,
    )


def _run(sock: socket.socket, session: Session, request: dict[str, Any], fds: list[int]) -> None:
    if request["emulated"] and session.emulation < 0:
        raise AerogelError("nothing was registered for other machines", code="sandbox.no-emulation")
    if session.is_plain:
        _run_plain(sock, session, request, fds)
        return
    host_pid = int(os.readlink("/proc/self"))
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
    own_network = request["network"] != "host"
    syscalls.unshare(flags | (syscalls.CLONE_NEWNET if own_network else 0))
    if own_network:
        _loopback_up()
    if request["network"] == "sandbox":
        _await_network(sock)
    spaces = _namespaces(own_network=own_network) if request["joinable"] else ()
    socket.sethostname(request["hostname"])
    asked = request["mounts"]
    base = session.mount_dir
    overlay = session.overlay or "user"
    if session.copies:
        root_fd = rootfs.bind(base, request["root"])
    else:
        root_fd = rootfs.build(base, request["root"], mounts.places_of(asked), overlay)
    mounts.mount_system(root_fd, request, in_userns=session.in_userns)
    listeners = mounts.mount_asked(
        root_fd, base, asked, overlay=overlay, insecure=request["insecure"], recorded=session.recorded
    )
    passwd, group = (inroot.read_file(root_fd, name) for name in ("/etc/passwd", "/etc/group"))
    account = accounts.find_account(request["user"], passwd, group)
    account = accounts.with_groups(account, request["more_groups"], group)
    request["env"] = environment(request, account)
    master = -1
    if request["tty"]:
        master, slave = mounts.open_terminal(root_fd, (request["window"][0], request["window"][1]))
        mounts.set_console(root_fd, slave)
        for fd in fds:
            os.close(fd)
        fds = [slave, slave, slave]
    prepared = Prepared(account, tuple(fds), master, host_pid, listeners, spaces)
    # from here on the image can be seen: nothing may be imported any more
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    mounts.enter(f"{base}/root")
    os.close(root_fd)
    title.set_title(title.INIT)
    serve(sock, session, request, prepared)


def _run_plain(sock: socket.socket, session: Session, request: dict[str, Any], fds: list[int]) -> None:
    """A command in a tree of its own, without namespaces; this process adopts what the command leaves behind."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    title.set_title(title.INIT)
    root = request["root"]
    tree = root["tree"]
    filling = plain.fill(tree, f"{root['scratch']}/aside", request, session.own, is_bare=bool(session.proot))
    try:
        signal.signal(signal.SIGTERM, lambda _number, _frame: _abandon(filling))
        root_fd = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        passwd, group = (inroot.read_file(root_fd, name) for name in ("/etc/passwd", "/etc/group"))
        os.close(root_fd)
        account = accounts.find_account(request["user"], passwd, group)
        account = accounts.with_groups(account, request["more_groups"], group)
        request["env"] = environment(request, account)
        master = -1
        if request["tty"]:
            master, slave = os.openpty()
            mounts.set_window(slave, (request["window"][0], request["window"][1]))
            for fd in fds:
                os.close(fd)
            fds = [slave, slave, slave]
        owners = f"{root['scratch']}/owners"
        prepared = Prepared(account, tuple(fds), master, os.getpid(), filling.listeners, (), tree, filling, owners)
        serve(sock, session, request, prepared)
    finally:
        plain.end_all()
        filling.give_back()


def _abandon(filling: plain.Filling) -> NoReturn:
    """The helper is gone: so is everything below."""
    plain.end_all()
    filling.give_back()
    os._exit(1)


def environment(request: dict[str, Any], account: accounts.Account) -> list[list[str]]:
    """The variables of the request, with the HOME of its user unless they have one."""
    given: list[list[str]] = request["env"]
    return given if any(name == "HOME" for name, _ in given) else [*given, ["HOME", account.home]]


def _namespaces(*, own_network: bool) -> tuple[int, ...]:
    """Descriptors of this process's namespaces, for those that join."""
    names = [*(name for name, _ in NAMESPACES), "uts", *(["net"] if own_network else [])]
    return tuple(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def _await_network(sock: socket.socket) -> None:
    """Lets the main process join this network with the world, and waits for that."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    wire.send(sock, {"network": True}, (fd,))
    os.close(fd)
    if wire.receive(sock) is None:
        os._exit(1)


def _oom_kills() -> int:
    """How many processes this machine has killed for want of memory."""
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except OSError:
        return 0
    return 0


def serve(sock: socket.socket, session: Session, request: dict[str, Any], prepared: Prepared) -> None:
    """Starts the command, tells so, and follows it to its end, which it tells too; nothing of it is left then."""
    stdio, tree = prepared.stdio, prepared.tree
    oom_before = _oom_kills()
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, _noticed)
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    ours, theirs = socket.socketpair() if session.recorded or session.is_plain else (None, None)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # the command is root too: it must not trace this process
    _tell_started(sock, prepared)
    child = 0
    if theirs is None and quick.can_spawn(request):
        child = quick.spawn(request, prepared.account, stdio, session.capabilities)
    if not child:
        child = _fork_command(session, request, prepared, error_write, theirs)
    os.close(error_write)
    for fd in set(stdio):
        os.close(fd)
    unwritten = Unwritten() if prepared.filling is None else prepared.filling.unwritten
    supervisor = _supervisor(ours, theirs, child, tree, prepared.owners if session.proot else None, unwritten)
    if not session.is_plain:
        kept = capabilities.mask_of(["KILL", *(_RECORDING if supervisor is not None else ())])
        capabilities.drop(kept)
        syscalls.capset(kept & session.capabilities)
    status, failed = _wait(sock, child, wake_read, error_read, supervisor, tells=request["joinable"])
    _end_others()
    if isinstance(supervisor, BareRecorder):
        if _code_of(status) == (_PROOT_FAILED, 0):
            status = supervisor.ended_by() or status
        supervisor.close()
    if prepared.filling is not None:
        if not failed and not status:
            prepared.filling.check()
        prepared.filling.give_back()
        if request["root"]["keep"]:
            prepared.filling.restore()
    code, number = _code_of(status)
    result: dict[str, Any] = {"code": code, "signal": number, "fault": None}
    result["oom"] = code == 128 + signal.SIGKILL and _oom_kills() > oom_before
    if failed:
        result.update(json.loads(failed), signal=0)
    _answer(sock, {"exit": result})


def _tell_started(sock: socket.socket, prepared: Prepared) -> None:
    """Hands over what the main process needs; before the command says anything, which it may answer with a signal."""
    master, spaces = prepared.master, prepared.namespaces
    given = (*((master,) if master >= 0 else ()), *(each.fileno() for each in prepared.listeners), *spaces)
    _answer(sock, {"started": prepared.host_pid, "terminal": master >= 0, "namespaces": len(spaces)}, given)
    for fd in (*((master,) if master >= 0 else ()), *spaces):
        os.close(fd)
    for listener in prepared.listeners:
        listener.close()


def _fork_command(
    session: Session, request: dict[str, Any], prepared: Prepared, error_fd: int, supervisor: socket.socket | None
) -> int:
    """Starts the command from a copy of this process; what goes wrong is written to `error_fd`."""
    # The helper ignores some signals: one that comes before the command has set that right must wait, not be lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        tree, stdio = prepared.tree, prepared.stdio
        if request["work"]:
            name, args = request["work"]
            job = work.find_job(name, session.modules)
            if session.proot:  # where nobody may change the root directory the job has to look for the way itself
                args, tree = {**args, "root": tree, "binds": request["binds"]}, ""
            work.perform(job, {**args, **session.facts()}, stdio, error_fd, supervisor, tree)
        namespace = session.emulation if request["emulated"] else -1
        rights, account = session.capabilities, prepared.account
        command.execute(request, account, stdio, error_fd, rights, namespace, supervisor, tree, session.proot)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child


def _supervisor(
    ours: socket.socket | None,
    theirs: socket.socket | None,
    child: int,
    tree: str,
    owners: str | None,
    unwritten: Unwritten,
) -> Recorder | Shim | None:
    """Who answers the command's calls about owners, or about /proc, when that is done at all."""
    if ours is None or theirs is None:
        return None
    theirs.close()
    with ours:
        fds = socket.recv_fds(ours, 1, 1)[1]
    if not fds:  # it ended before; why comes another way
        return None
    os.set_inheritable(fds[0], False)
    machine = os.uname().machine
    if owners is not None:
        return BareRecorder(machine, fds[0], child, owners, unwritten)
    return Shim(machine, fds[0], tree, unwritten) if tree else Recorder(machine, fds[0], child)


def _noticed(number: int, frame: object) -> None:
    del number, frame


def _code_of(status: int) -> tuple[int, int]:
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status), os.WTERMSIG(status)
    return os.WEXITSTATUS(status), 0


def _wait(
    sock: socket.socket, child: int, wake: int, errors: int, supervisor: Recorder | Shim | None, *, tells: bool
) -> tuple[int, bytes]:
    """Reaps until the command itself has ended, relaying the main process's signals to it.

    Gives its wait status, and what it said instead if it could not be started. `tells` says when it was executed.
    """
    poll = select.poll()
    for fd in (sock.fileno(), wake, errors, *(() if supervisor is None else (supervisor.fd,))):
        poll.register(fd, select.POLLIN)
    failed = b""
    watched, has_ended = -1, False
    while True:
        for fd, event in poll.poll(_AGAIN_MS if has_ended else None):
            if supervisor is not None and fd == supervisor.fd:
                if event & select.POLLIN:
                    supervisor.serve()
                    if isinstance(supervisor, BareRecorder) and watched < 0 <= supervisor.watch:
                        watched = supervisor.watch
                        poll.register(watched, select.POLLIN)
                else:  # nobody is left whose calls it could answer
                    poll.unregister(fd)
            elif fd == watched:
                poll.unregister(watched)
                has_ended = True
            elif fd == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                status = _reap(child)
                if status is not None:
                    while part := os.read(errors, 65536):
                        failed += part
                    if tells and not failed:  # it was quicker than the news of its start
                        _answer(sock, {"executed": True})
                    return status, failed
            elif fd == errors:
                part = os.read(errors, 65536)
                failed += part
                if not part:
                    poll.unregister(errors)
                    if tells and not failed:
                        _answer(sock, {"executed": True})
                    tells = False
            else:
                received = wire.receive(sock)
                if received is None:  # the main process is gone or wants no more
                    _kill_all()
                    poll.unregister(sock)
                else:
                    command_pid = supervisor.command if isinstance(supervisor, BareRecorder) else child
                    _relay(child, command_pid, int(received[0]["signal"]))
        if has_ended:
            _kill_all(child)


def _reap(child: int) -> int | None:
    """Reaps what has ended; the wait status of the command if it is among that."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return status
        if pid == 0:
            return None


def _relay(child: int, command_pid: int, number: int) -> None:
    """SIGKILL ends everything; what a terminal's keys send goes to the command's group, the rest to the command."""
    with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGKILL:
            _kill_all()
        elif number in _GROUP_SIGNALS:
            os.killpg(child, number)
        else:
            os.kill(command_pid, number)


def _kill_all(spared: int = 0) -> None:
    """Kills everything of this sandbox but this process, and proot if that is to tell how the command ended."""
    if os.getpid() == 1:
        os.kill(-1, signal.SIGKILL)
        return
    for pid in plain.descendants(os.getpid()):
        if pid == spared:
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _end_others() -> None:
    """Kills what the command left behind, and waits for it: afterwards nobody writes to the upper layer."""
    if os.getpid() != 1:
        plain.end_all()
        return
    while True:
        with contextlib.suppress(ProcessLookupError):
            _kill_all()
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
