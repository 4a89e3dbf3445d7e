"""The last step before a command: terminal, limits, filter, capabilities, ids, exec; and the words when exec fails.

Runs in a forked child of the sandbox's pid 1, inside the root. Standard library only: part of the helper.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import sys
import termios
from typing import Any, NoReturn

from aerogel.errors import EXIT_FAILED, EXIT_HOST, AerogelError
from aerogel.sandbox import bare, capabilities, emulation, notify, procshim, recorder, seccomp, syscalls, traced, wire
from aerogel.sandbox.accounts import Account
from aerogel.sandbox.program import HEAD_BYTES, read_program

__all__ = ["DEFAULT_PATH", "change_directory", "confine", "execute", "groups_are_denied", "own_stdio"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


class _CannotStart(Exception):
    """Exec failed: a fault for the user and the exit code that a shell would give."""

    def __init__(self, code: int, fault: AerogelError) -> None:
        super().__init__(fault.message)
        self.code = code
        self.fault = fault


def execute(
    request: dict[str, Any],
    account: Account,
    stdio: tuple[int, ...],
    error_fd: int,
    all_capabilities: int,
    namespace: int = -1,
    supervisor: socket.socket | None = None,
    tree: str = "",
    proot: str = "",
) -> NoReturn:
    """Becomes the command; on failure writes {"code", "fault"} to `error_fd` and ends.

    `namespace` is the user namespace that it is put into, unless -1. `supervisor` gets the listener of the calls that
    it answers, where owners are recorded or, with `tree`, which is then the command's root, where /proc is not mounted.
    `proot` is the program that shows the root, where this process cannot enter it.
    """
    try:
        _prepare(request, account, stdio, all_capabilities, namespace, supervisor, tree, proot)
        if proot:
            _exec_traced(request, tree, proot)
        _exec(request)
    except _CannotStart as failed:
        answer = {"code": failed.code, "fault": wire.error_to(failed.fault)}
    except AerogelError as error:
        answer = {"code": _NOT_EXECUTABLE, "fault": wire.error_to(error)}
    except OSError as error:
        fault = AerogelError(
            f"the command cannot be started: {error.filename or ''} {error.strerror}".replace(":  ", ": "),
            code="sandbox.setup",
            exit_status=EXIT_HOST,
        )
        answer = {"code": _NOT_EXECUTABLE, "fault": wire.error_to(fault)}
    os.write(error_fd, json.dumps(answer).encode())
    os._exit(_NOT_EXECUTABLE)


def _prepare(
    request: dict[str, Any],
    account: Account,
    stdio: tuple[int, ...],
    all_capabilities: int,
    namespace: int,
    supervisor: socket.socket | None,
    tree: str,
    proot: str,
) -> None:
    os.setsid()
    for target, fd in enumerate(stdio):
        os.dup2(fd, target, inheritable=True)
    if request["tty"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:  # what is ignored stays so through exec
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    for limit in request["limits"]:
        _limit(limit)
    if tree:
        _change_root("" if proot else tree, request["network"])
    if supervisor is not None:
        _be_supervised(supervisor, _rules(request, tree, proot), only_native=bool(proot) or not tree)
    own_stdio(account, (0, 1, 2))
    if proot:
        traced.check_directory(tree, request["cwd"], request["binds"], create=request["create_cwd"])
    else:
        change_directory(request["cwd"], create=request["create_cwd"])
    if namespace >= 0:
        emulation.enter(namespace)  # gives all rights in it back, so it comes before what takes rights away
    mask = confine(request, all_capabilities)
    if not proot:
        capabilities.drop(mask)
    try:
        if supervisor is not None or not groups_are_denied():
            os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise AerogelError(
            f"user {account.uid}:{account.gid} does not exist in this sandbox: {error.strerror}",
            code="sandbox.unmapped-user",
            hints=["the range of subordinate ids in /etc/subuid and /etc/subgid is too small for it"],
            exit_status=EXIT_HOST,
        ) from None
    if proot:
        syscalls.set_filter(bare.missing(os.uname().machine))
    elif account.uid == 0:
        syscalls.capset(mask)


def _rules(request: dict[str, Any], tree: str, proot: str) -> list[notify.Rule]:
    """The calls that process 1 answers; those that only look or read are few, unless there is a secret to be seen."""
    machine, secrets = os.uname().machine, any(mount["is_secret"] for mount in request["mounts"])
    if proot:
        return bare.rules(machine, reads=secrets)
    return procshim.rules(machine, secrets=secrets) if tree else recorder.rules(machine)


def confine(request: dict[str, Any], all_capabilities: int) -> int:
    """Loads what this process and its children cannot get rid of; gives the capabilities that the command may have."""
    if request["no_new_privileges"]:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if request["insecure"]:
        return all_capabilities
    # loaded while CAP_SYS_ADMIN is still here: no_new_privs would break sudo and su
    seccomp.install(os.uname().machine)
    return all_capabilities & capabilities.mask_of(request["capabilities"])


def _change_root(tree: str, network: str) -> None:
    """Enters a root without namespaces; filters need that no program gives more rights from here on."""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    if tree:
        os.chroot(tree)
    os.chdir("/")
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if network == "none":
        syscalls.set_filter(seccomp.no_network(os.uname().machine))


def _be_supervised(supervisor: socket.socket, rules: list[notify.Rule], *, only_native: bool) -> None:
    """Loads the filter whose calls process 1 answers from now on, for which it reads this process's memory."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    fd = notify.listen(os.uname().machine, rules, only_native=only_native)
    socket.send_fds(supervisor, [b"l"], [fd])
    os.close(fd)
    supervisor.close()


def groups_are_denied() -> bool:
    """In a user namespace that an ordinary user mapped alone nobody may set supplementary groups."""
    try:
        with open("/proc/self/setgroups", "rb") as file:
            return file.read().strip() == b"deny"
    except OSError:
        return False


def own_stdio(account: Account, fds: tuple[int, ...]) -> None:
    """Pipes and the terminal belong to the user, so that /dev/stdout can be opened again by its name."""
    if account.uid == 0:
        return
    for fd in fds:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and _is_own_terminal(fd)):
            try:
                os.fchown(fd, account.uid, -1)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
                    raise


def _is_own_terminal(fd: int) -> bool:
    """Whether the descriptor is a terminal of this sandbox; the host's terminal keeps its owner."""
    try:
        return os.isatty(fd) and os.ttyname(fd).startswith("/dev/pts/")
    except OSError:
        # ENODEV: no device here has this terminal, so it is one of the host.
        return False


def _limit(limit: dict[str, Any]) -> None:
    number = getattr(resource, "RLIMIT_" + limit["name"].upper(), None)
    if number is None:
        raise AerogelError(f"there is no resource limit `{limit['name']}`", code="sandbox.unknown-limit")
    try:
        resource.setrlimit(number, (limit["soft"], limit["hard"]))
    except (OSError, ValueError) as error:
        raise AerogelError(
            f"the limit `{limit['name']}={limit['soft']}:{limit['hard']}` cannot be set: {error}",
            code="sandbox.limit",
            exit_status=EXIT_HOST,
        ) from None


def change_directory(path: str, *, create: bool) -> None:
    """Enters the working directory. Raises AerogelError `sandbox.no-directory`."""
    if create:
        os.makedirs(path, 0o755, exist_ok=True)
    try:
        os.chdir(path)
    except OSError as error:
        raise AerogelError(f"the working directory `{path}`: {error.strerror}", code="sandbox.no-directory") from None


def _candidates(request: dict[str, Any], environment: dict[str, str]) -> list[str]:
    name = request["argv"][0]
    if "/" in name:
        return [name]
    path = environment.get("PATH", DEFAULT_PATH)
    return [f"{directory or '.'}/{name}" for directory in path.split(":")] if name else []


def _exec_traced(request: dict[str, Any], tree: str, proot: str) -> NoReturn:
    """Lets proot execute the command, once it is seen that it can be."""
    argv, environment = request["argv"], dict(request["env"])
    name, denied = argv[0], ("", "")
    for candidate in _candidates(request, environment):
        place = traced.find(tree, request["cwd"], candidate, request["binds"])
        if not place:
            continue
        error = traced.obstacle(tree, place)
        if error is None:
            traced.execute(proot, tree, request, [candidate, *argv[1:]], environment)
        if not isinstance(error, PermissionError):
            code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
            raise _CannotStart(code, _explain(name, place, error))
        denied = denied if denied[0] else (candidate, place)
    if denied[0]:
        raise _CannotStart(_NOT_EXECUTABLE, _explain(name, denied[1], PermissionError(errno.EACCES, "not permitted")))
    raise _CannotStart(_NOT_FOUND, _not_found(name, environment.get("PATH", DEFAULT_PATH)))


def _exec(request: dict[str, Any]) -> NoReturn:
    argv, environment = request["argv"], dict(request["env"])
    name = argv[0]
    candidates = _candidates(request, environment)
    denied: tuple[str, OSError] | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, argv, environment)  # noqa: S606 what this module is for
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.exists(candidate):
                raise _CannotStart(_NOT_FOUND, _explain(name, candidate, error)) from None
        except PermissionError as error:
            denied = denied or (candidate, error)
        except OSError as error:
            raise _CannotStart(_NOT_EXECUTABLE, _explain(name, candidate, error)) from None
    if denied:
        raise _CannotStart(_NOT_EXECUTABLE, _explain(name, *denied))
    raise _CannotStart(_NOT_FOUND, _not_found(name, environment.get("PATH", DEFAULT_PATH)))


def _not_found(name: str, path: str) -> AerogelError:
    hints = [] if "/" in name else [f"PATH is `{path}`"]
    if name in ("/bin/sh", "sh", "/bin/bash", "bash"):
        hints = [
            "the image has no shell: use the exec form, or do this in an earlier stage that has one",
            "`aerogel debug` opens a shell in an image or beside a container that has none",
        ]
    return AerogelError(f"`{name}` is not in the image", code="sandbox.not-found", hints=hints)


def _explain(name: str, path: str, error: OSError) -> AerogelError:
    """Why a file that exists could not be executed."""
    head, hints = _head(path), []
    program = read_program(head)
    message, code = f"`{name}` cannot be executed: {error.strerror}", "sandbox.not-executable"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        code = "sandbox.not-found"
        wanted = program.interpreter or os.path.basename(path)
        message = f"`{name}` is in the image, but the program that runs it, `{wanted}`, is not"
        if program.kind == "elf":
            message = f"`{name}` is in the image, but its loader `{wanted}` is not"
            hints = [
                "it is linked dynamically: link it statically, or take a base with its loader: `gcr.io/distroless/base`"
            ]
        elif wanted.endswith("\r"):
            message = f"`{name}` has Windows line ends: its first line ends in a carriage return"
    elif error.errno == errno.EACCES:
        if os.path.isdir(path):
            message = f"`{name}` is a directory"
        else:
            hints = [f"it is not marked as executable for this user: `COPY --chmod=755`, or `RUN chmod +x {path}`"]
    elif error.errno == errno.ENOEXEC:
        message = f"`{name}` has no format that this machine executes"
        if program.kind == "elf":
            if program.machine != os.uname().machine:
                hints = [f"it is built for {program.machine}, this machine is {os.uname().machine}"]
        elif program.kind != "script":
            hints = ["a script needs a first line such as `#!/bin/sh`"]
    elif error.errno == errno.E2BIG:
        hints = ["arguments and environment together are limited to about 2 MB, one of them to 128 KiB"]
    return AerogelError(message, code=code, hints=hints, exit_status=EXIT_FAILED)


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""
