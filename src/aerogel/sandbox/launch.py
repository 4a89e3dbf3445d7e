"""The main process's side of the sandbox: starts the helper, sends it commands and file jobs, rebuilds its errors.

The only module that starts processes. Nothing here forks Python: the helper is executed anew (`helper` draws the
processes). The state directory holds one directory per helper, locked while its main process lives:

    STATE/session-XXXXXXXX/mnt/            private mounts of the helper, always empty on the host
                          /run-N/M/{upper,work}   what throw-away roots and mounts write

Leftovers of a main process that was killed are removed by the next helper on the same state directory.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import wire
from aerogel.sandbox.cgroup import Group
from aerogel.sandbox.ids import map_id, own_map_id, single_map_id, subordinate_ids
from aerogel.sandbox.mounts import places_of
from aerogel.sandbox.network import network_mounts
from aerogel.sandbox.process import DISCARD, Closable, HelperBug, Process, failure
from aerogel.sandbox.spec import DEFAULT_PATH, Finding, Isolation, Mount, Rung, Sandbox
from aerogel.sandbox.tap import JOBS, Link, choose

__all__ = ["TOOLS", "Helper", "HelperBug", "Process", "Work", "try_rungs"]

_RUNGS = ("root", "ident", "subid", "single", "chroot", "proot")
_START_TIMEOUT_S = 60.0
TOOLS = "/.aerogel"
"""Where a command sees tools from outside."""
_MFD_EXEC = 0x10
_COPIED = "aerogel.sandbox.copied"
Work = tuple[str, dict[str, Any]]
"""The name of a job and its arguments."""


class Helper:
    """The helper process of one build; thread-safe. Made by `start`, given back by `close`."""

    def __init__(self, session: _Session, keeper: _Keeper) -> None:
        self.rung = Rung("", "", None)
        self.findings: tuple[Finding, ...] = ()
        self._session = session
        self._keeper = keeper
        self._lock = threading.Lock()
        self._runs = 0

    @classmethod
    def start(
        cls,
        state_dir: str,
        *,
        isolation: Isolation = "auto",
        preload: Sequence[str] = ("aerogel.files.jobs", "aerogel.files.transfer"),
        search: Sequence[str] = (),
    ) -> Helper:
        """Starts the helper on the best rung that works, or on the one that is asked for.

        `state_dir` is made when missing. `preload` names the modules whose jobs may be called;
        they lie in this package or in the directories of `search`. Raises AerogelError
        `sandbox.no-namespaces` (exit status 3) when no rung works.
        """
        rungs = _RUNGS if isolation == "auto" else (isolation,)
        hello, session, keeper, ids = _launch(state_dir, rungs, preload, search)
        findings = tuple(_finding(part) for part in hello["findings"])
        if "rung" not in hello:
            keeper.stop()
            session.remove()
            raise _no_rung(findings, isolation)
        helper = cls(session, keeper)
        helper.findings = findings
        name = hello["rung"]
        copies = hello["overlay"] is None
        suffix = ".copied" if copies else ""
        helper.rung = Rung(name, _map_id(name, ids) + suffix, hello["overlay"] or "user", copies)
        helper._reclaim()
        return helper

    def run(
        self,
        sandbox: Sandbox,
        *,
        stdin: int | None = None,
        stdout: int,
        stderr: int,
        group: Group | None = None,
        work: Work | None = None,
    ) -> Process:
        """Starts a command; the descriptors stay the caller's. Without `stdin` it reads nothing.

        `group` holds it and all that it starts; the caller closes it afterwards. `work` is done in place of the
        command: a job (as `call` has them) that runs in the root with all rights, on standard input and output.

        Raises AerogelError for what is wrong with the sandbox: `sandbox.no-user`, `sandbox.mount-target`, ... A
        command that is missing or cannot be executed is told by `Process.wait`.
        """
        request, throw_away = self._request(sandbox)
        request["work"] = work
        harvest = self._copy(request, throw_away) if self.rung.copies and throw_away else None
        request["binds"] = self._binds(request["mounts"])
        sockets = [mount["target"] for mount in request["mounts"] if mount["kind"] == "socket"]
        process = Process(self, self._open("run"), throw_away, harvest)
        process.tree, process.binds = request["root"].get("tree", ""), request["binds"]
        process.group = group
        groups = () if group is None else group.fds
        request["groups"] = len(groups)

        def connect(namespace: int) -> Link:
            return Link(self, choose(self.rung.name), namespace, sandbox.ports, self._session.path)

        return _started(process, request, sockets, (stdin, stdout, stderr), groups, connect)

    def join(
        self,
        process: Process,
        sandbox: Sandbox,
        *,
        stdin: int | None = None,
        stdout: int,
        stderr: int,
        tools: int | None = None,
        packages: str = "",
        work: Work | None = None,
    ) -> Process:
        """Starts one more command in the namespaces and the root of a running one that is `joinable`.

        Root, mounts, network and names of `sandbox` do not count: they are the other's. The first one's end ends it;
        what it leaves behind lives on in the sandbox, except on `single`, `chroot` and `proot`. With `tools`, a descriptor of a static busybox, this command
        alone sees that in the folder `TOOLS`, and with `packages` that folder of the host in `root` below. Raises as `run`, and `sandbox.no-tools` where nothing can be mounted.
        """
        request: dict[str, Any] = msgspec.to_builtins(
            msgspec.structs.replace(sandbox, mounts=(), joinable=False), builtin_types=(bytes,)
        )
        if tools is not None and process.tree:
            raise AerogelError(
                "tools cannot be shown beside a running command where nothing can be mounted",
                code="sandbox.no-tools",
                hints=["`aerogel debug IMAGE` shows them in a new container of its image"],
                exit_status=EXIT_HOST,
            )
        request |= {
            "tree": process.tree,
            "binds": process.binds,
            "tools": "" if tools is None else TOOLS,
            "packages": packages,
            "work": work,
        }
        joined = Process(self, self._open("join"), None, None)
        # a job must neither be frozen with the others nor count among them
        groups = () if process.group is None or work is not None else process.group.fds
        request["groups"] = len(groups)
        more = (*(() if tools is None else (tools,)), *process.namespaces, *groups)
        started = _started(joined, request, (), (stdin, stdout, stderr), more)
        process.joined = [*(each for each in process.joined if each.is_running), started]
        return started

    def open_job(self) -> socket.socket:
        """A worker that waits for the message of a job; closing the socket ends it."""
        return self._open("job")

    def call(self, job: str, args: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """Runs a function of a preloaded module in a worker inside the namespaces; `fds` stay the caller's.

        `job` is `function` or `module:function`. Raises the job's AerogelError; `HelperBug` for any other exception.
        """
        with self._open("job") as sock:
            with contextlib.suppress(BrokenPipeError):  # then the helper said why
                wire.send(sock, {"job": job, "args": args}, fds)
            received = wire.receive(sock)
            if received is None:
                raise self.died()
            message = received[0]
            if "result" not in message:
                raise failure(message)
            while wire.receive(sock) is not None:  # until the worker is gone
                pass
            result: dict[str, Any] = message["result"]
            return result

    def emulate(self, interpreters: dict[str, str]) -> None:
        """Lets commands that are `emulated` run programs of other machines, with these interpreters of the host.

        By qemu's name of the machine (`sandbox.emulation.FORMATS`). Raises AerogelError `sandbox.no-emulation`.
        """
        with self._open("emulate", interpreters=interpreters) as sock:
            received = wire.receive(sock)
            if received is None:
                raise self.died()
            if "result" not in received[0]:
                raise failure(received[0])

    def close(self) -> None:
        """Ends the helper; the kernel ends whatever still runs in it."""
        self._keeper.stop()
        self._session.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def died(self) -> AerogelError:
        """The error for a helper that is gone."""
        said = self._keeper.said()
        return AerogelError(
            "the sandbox helper ended",
            code="sandbox.helper-died",
            detail=said,
            hints=[] if said else ["it was killed, perhaps because the machine ran out of memory: see `dmesg`"],
            exit_status=EXIT_HOST,
        )

    def _open(self, kind: Literal["run", "join", "job", "emulate"], **more: object) -> socket.socket:
        """A socket to a new child of the helper, or to the helper itself for `emulate`."""
        ours, theirs = socket.socketpair()
        try:
            with self._lock:
                wire.send(self._keeper.control, {"kind": kind, **more}, (theirs.fileno(),))
        except OSError:
            ours.close()
            raise self.died() from None
        finally:
            theirs.close()
        return ours

    def _request(self, sandbox: Sandbox) -> tuple[dict[str, Any], str | None]:
        tool = choose(self.rung.name) if sandbox.network == "sandbox" else None
        mounts = [
            *network_mounts(sandbox, "" if tool is None else tool.resolver),
            *(_checked(mount) for mount in sandbox.mounts),
        ]
        mounts.sort(key=lambda mount: mount.target.count("/"))  # a mount inside another comes after it
        if not sandbox.argv:
            raise AerogelError("there is no command to run", code="sandbox.no-command")
        request: dict[str, Any] = msgspec.to_builtins(
            msgspec.structs.replace(sandbox, mounts=()), builtin_types=(bytes,)
        )
        request["mounts"] = [_mount_part(mount) for mount in mounts]
        root = sandbox.root
        writable = [part for part in request["mounts"] if part["kind"] == "overlay" and not part["readonly"]]
        if not (root.upper or root.readonly):
            writable.append(request["root"])
        if self.rung.copies:
            writable = []
        elif not writable:
            return request, None
        with self._lock:
            self._runs += 1
            throw_away = f"{self._session.path}/run-{self._runs}"
        for number, part in enumerate(writable):
            for name in ("upper", "work"):
                os.makedirs(f"{throw_away}/{number}/{name}", 0o755)
                part[name] = f"{throw_away}/{number}/{name}"
        return request, throw_away

    def _binds(self, mounts: list[dict[str, Any]]) -> list[list[str]]:
        """What proot shows, as pairs of the host's path and the container's: what is not read-only, and not aerogel's own."""
        if self.rung.name != "proot":
            return []
        own = os.path.dirname(os.path.dirname(self._session.path)) + "/"
        found = [each for each in mounts if each["kind"] == "bind" and not each["readonly"]]
        return [
            [each["source"], os.path.normpath(each["target"])] for each in found if not each["source"].startswith(own)
        ]

    def _copy(self, request: dict[str, Any], scratch: str) -> tuple[str, dict[str, Any]] | None:
        """Copies the layers of the root and of mounts into trees; the job that is owed after the run, if any."""
        os.makedirs(scratch, 0o755)
        for number, mount in enumerate(request["mounts"]):
            if mount["kind"] == "overlay":
                copy = f"{scratch}/{number}"
                args = {"lowers": mount["lowers"], "source": mount["source"], "target": copy}
                self.call(f"{_COPIED}:layer", args)
                mount.update(kind="bind", source=copy, lowers=[])
        root = request["root"]
        upper = root["upper"] if not root["readonly"] else None
        lowers = [*root["lowers"], *([root["upper"]] if upper is None and root["upper"] else [])]
        # a root that lies in one directory, which is to be changed, is that directory
        tree = upper if upper and not lowers else f"{scratch}/tree"
        if not lowers and not upper:
            os.mkdir(tree, 0o755)
        places = [[place.target, place.is_dir] for place in places_of(request["mounts"])]
        args = {"lowers": lowers, "tree": tree, "places": places, "baseline": f"{scratch}/baseline"}
        args |= {"owners": f"{scratch}/owners", "upper": "" if tree == upper else upper or ""}
        done = self.call(f"{_COPIED}:build", args)
        root.update(tree=tree, upper=None, work=None, scratch=scratch, keep=tree == upper)
        if not upper:
            return None
        if tree == upper:
            return f"{_COPIED}:clear", {"tree": tree, "made": done["made"][::-1]}
        return f"{_COPIED}:harvest", {
            **args,
            "upper": upper,
            "exclude": done["real"],
            "made": done["made"],
            "over": done["over"],
        }

    def _reclaim(self) -> None:
        """Removes sessions whose main process is gone; what another mapping wrote stays for that one."""
        for path in self._session.abandoned():
            with contextlib.suppress(AerogelError):
                self.call(f"{DISCARD}:discard", {"path": path})


def _started(
    process: Process,
    request: dict[str, Any],
    sockets: Sequence[str],
    stdio: tuple[int | None, int, int],
    more: Sequence[int] = (),
    connect: Callable[[int], Closable] | None = None,
) -> Process:
    """Sends the request, and waits until its command is started."""
    stdin, stdout, stderr = stdio
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            process.send(request, (null if stdin is None else stdin, stdout, stderr, *more))
        finally:
            os.close(null)
        process.start(sockets, connect)
    except BrokenPipeError:
        process.start(sockets, connect)  # raises what the helper said before it ended
    except BaseException:
        process.close()
        raise
    return process


def try_rungs(state_dir: str) -> tuple[Finding, ...]:
    """Tries every rung and says how it went, the best first."""
    hello, session, keeper, _ = _launch(state_dir, _RUNGS, (), (), probe=True)
    keeper.stop()
    session.remove()
    return tuple(_finding(part) for part in hello["findings"])


class _Session:
    """The helper's directory in the state directory, locked while this process lives."""

    def __init__(self, state_dir: str) -> None:
        try:
            os.makedirs(state_dir, 0o700, exist_ok=True)
            self.state_dir = os.path.realpath(state_dir)
            self.path = tempfile.mkdtemp(prefix="session-", dir=self.state_dir)
            os.mkdir(f"{self.path}/mnt")
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            raise AerogelError(
                f"the state directory `{state_dir}` cannot be used: {error.strerror}",
                code="sandbox.state-directory",
                hints=["AEROGEL_ROOT names another one"],
                exit_status=EXIT_HOST,
            ) from None

    def abandoned(self) -> list[str]:
        """Sessions that nobody holds."""
        found = []
        with os.scandir(self.state_dir) as listing:
            entries = list(listing)
        for entry in entries:
            if not entry.name.startswith("session-") or entry.path == self.path:
                continue
            with contextlib.suppress(OSError):
                # a session that is being made is not locked yet: leave it for a minute
                if entry.stat(follow_symlinks=False).st_mtime > time.time() - 60:
                    continue
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found.append(entry.path)
                finally:
                    os.close(fd)
        return found

    def remove(self) -> None:
        """Removes the directory when nothing foreign is left in it."""
        for path in (f"{self.path}/mnt", self.path):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Keeper:
    """Starts the helper from a thread that lives as long as it: the kernel's death signal follows the thread."""

    def __init__(self, arguments: list[str], control: socket.socket, theirs: socket.socket) -> None:
        self.control = control
        self._stderr = os.memfd_create("aerogel-helper", os.MFD_CLOEXEC)
        self._started = threading.Event()
        self._failed: OSError | None = None
        self._thread = threading.Thread(target=self._keep, args=(arguments, theirs), name="aerogel-helper", daemon=True)
        self._thread.start()
        self._started.wait()
        failed = self._fault()
        if failed is not None:
            os.close(self._stderr)
            raise AerogelError(
                f"the sandbox helper cannot be started: `{failed.filename or sys.executable}`: "
                f"{(failed.strerror or str(failed)).lower()}",
                code="sandbox.helper-died",
                hints=["it is started with the Python that runs aerogel, which this user must be able to read"],
                exit_status=EXIT_HOST,
            )

    def _fault(self) -> OSError | None:
        return self._failed

    def _keep(self, arguments: list[str], theirs: socket.socket) -> None:
        program = -1
        try:
            program = _sealed_program(sys.executable)
            process = subprocess.Popen(
                [*arguments, str(program)],
                executable=f"/proc/self/fd/{program}" if program >= 0 else None,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(theirs.fileno(), *((program,) if program >= 0 else ())),
                start_new_session=True,
                cwd="/",
                # a program without a name finds no libraries beside itself
                env={"PATH": DEFAULT_PATH, "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": _libraries_of(sys.executable)},
            )
        except OSError as error:
            self._failed = error
            return
        finally:
            theirs.close()
            if program >= 0:
                os.close(program)
            self._started.set()
        process.wait()

    def said(self) -> str:
        """The last of what the helper wrote on its standard error."""
        if self._stderr < 0:
            return ""
        size = os.fstat(self._stderr).st_size
        return os.pread(self._stderr, 8192, max(0, size - 8192)).decode("utf-8", "replace").strip()

    def stop(self) -> None:
        """Closes the socket, which ends the helper, and waits for that."""
        self.control.close()
        self._thread.join()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1


def _sealed_program(path: str) -> int:
    """A copy in memory of the interpreter, -1 where none can be executed.

    A command reaches the program that started it by /proc/self/exe, and as root could change the mode of the host's
    file or, at the right moment, the file (CVE-2019-5736). Nobody can change this copy, and nobody else uses it.
    """
    for flags in (_MFD_EXEC, 0):  # before Linux 6.3 all can be executed, and the flag is not known
        try:
            fd = os.memfd_create("aerogel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
        except OSError:
            continue
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while size > 0 and (sent := os.sendfile(fd, file.fileno(), None, size)):
                size -= sent
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        if os.access(f"/proc/self/fd/{fd}", os.X_OK):
            return fd
        os.close(fd)  # vm.memfd_noexec
    return -1


def _libraries_of(path: str) -> str:
    return os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(path))), "lib")


def _launch(
    state_dir: str, rungs: Sequence[str], preload: Sequence[str], search: Sequence[str], *, probe: bool = False
) -> tuple[dict[str, Any], _Session, _Keeper, dict[str, Any]]:
    session = _Session(state_dir)
    ids = subordinate_ids(_ask)
    ours, theirs = socket.socketpair()
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    config = {
        "parent": os.getpid(),
        "rungs": list(rungs),
        "ids": ids,
        "mount_dir": f"{session.path}/mnt",
        "scratch": session.path,
        "preload": [*preload, DISCARD, _COPIED, JOBS],
        "search": list(search),
        "probe": probe,
    }
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "helper.py")
    options = ["-I", "-S", "-B", "-X", "utf8"]
    try:
        keeper = _Keeper([sys.executable, *options, script, package, str(theirs.fileno())], ours, theirs)
    except AerogelError:
        ours.close()
        session.remove()
        raise
    ours.settimeout(_START_TIMEOUT_S)
    try:
        wire.send(ours, config)
        received = wire.receive(ours)
    except (TimeoutError, BrokenPipeError):
        received = None
    if received is None:
        said = keeper.said()
        keeper.stop()
        session.remove()
        raise HelperBug(said or "the sandbox helper ended while starting")
    ours.settimeout(None)
    return received[0], session, keeper, ids


def _map_id(name: str, ids: dict[str, Any]) -> str:
    if name == "single":
        return single_map_id()
    if name == "proot":
        return f"p{os.getuid()}-{os.getgid()}"
    return map_id(ids) if name == "subid" else own_map_id(name)


def _ask(arguments: list[str]) -> str:
    """The output of a small program of the host; "" when it fails."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=10, env={})
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _finding(part: dict[str, Any]) -> Finding:
    return Finding(
        rung=part["rung"],
        works=part["works"],
        problem=part["problem"],
        message=part["message"],
        fixes=tuple(part["fixes"]),
        overlay=part.get("overlay"),
    )


def _no_rung(findings: tuple[Finding, ...], isolation: str) -> AerogelError:
    wanted = "no kind of isolation works here" if isolation == "auto" else f"isolation `{isolation}` does not work here"
    fixes = [fix for finding in findings for fix in finding.fixes if not finding.works]
    return AerogelError(
        wanted,
        code="sandbox.no-namespaces",
        detail="\n".join(f"{finding.rung}: {finding.message}" for finding in findings),
        hints=[*fixes, "`aerogel doctor` tells more"],
        exit_status=EXIT_HOST,
    )


def _checked(mount: Mount) -> Mount:
    """The mount with a plain absolute target. Raises AerogelError `sandbox.mount-target`."""
    parts = [part for part in mount.target.split("/") if part not in ("", ".")]
    if not mount.target.startswith("/") or not parts or ".." in parts:
        raise AerogelError(
            f"`{mount.target}` is no place to mount something at",
            code="sandbox.mount-target",
            hints=["a mount target is an absolute path inside the image, without `..`, and not the root itself"],
        )
    return msgspec.structs.replace(mount, target="/" + "/".join(parts))


def _mount_part(mount: Mount) -> dict[str, Any]:
    part: dict[str, Any] = msgspec.structs.asdict(mount)
    part["data"] = base64.b64encode(mount.data).decode("ascii")
    return part
