"""The isolation ladder, seen from inside: how each rung is entered, and why one could not be.

A rung is chosen by trying it in a forked child, never by guessing. Standard library only: part of the helper.
Here: `root` (real root, namespaces), `ident` (root without CAP_SYS_ADMIN, in a user namespace that maps each id to
itself), `subid` (user namespace with subordinate ids), `single` (user namespace with one id, owners recorded),
`chroot` (root of a container that may make no namespace: a copied tree, and /proc shown from outside) and `proot` (who
may do nothing of that: a copied tree that a program shows as the root, owners recorded).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
from collections.abc import Callable
from typing import Any

from aerogel.sandbox import bare, capabilities, notify, procshim, record, recorder, rootfs, syscalls, wire

__all__ = ["FIRST_USER_NAMESPACE", "Refused", "enter", "examine", "find_proot", "in_user_namespace", "write_maps"]

FIRST_USER_NAMESPACE = 0xEFFFFFFD
"""Its inode, fixed since Linux 3.8 (PROC_USER_INIT_INO); an identity map would look the same in uid_map."""

_SYSCTL_CLONE = "/proc/sys/kernel/unprivileged_userns_clone"
_SYSCTL_MAX = "/proc/sys/user/max_user_namespaces"
_SYSCTL_APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_ATTEMPTS = {
    "no-chroot": "root may not change its root directory",
    "no-chown": "root may not give files away",
    "no-setuid": "root may not become another user",
    "no-notification": "no process may answer the system calls of another",
}
_TOOLS_HINT = "install the programs: `apt-get install uidmap` (Debian, Ubuntu), `dnf install shadow-utils` (Fedora)"


_PROOT_HINT = (
    "as root: `apt-get install proot` (Debian, Ubuntu) or `dnf install proot` (Fedora), or put it in the image"
)
_SEARCH = "/usr/local/bin:/usr/bin:/bin"


class Refused(Exception):
    """This rung does not work here: a stable word, what happened, what to do."""

    def __init__(self, problem: str, message: str, *fixes: str) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.fixes = fixes


def enter(name: str, config: dict[str, Any], link: socket.socket) -> None:
    """Moves this process onto a rung; its next child is process 1 of a new process namespace. Raises Refused."""
    if name == "chroot":
        if os.geteuid() != 0:
            raise Refused("not-root", "this user is not root")
        return
    if name == "proot":
        if not find_proot():
            raise Refused("no-proot", "`proot` cannot be found", _PROOT_HINT)
        if capabilities.effective() & capabilities.mask_of(["SYS_ADMIN"]):
            raise Refused("privileged", "proot holds nobody who has all rights", "run aerogel as an ordinary user")
        return
    if name == "root":
        _enter_root()
    else:
        _enter_user_namespace(name, config, link)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)


def _enter_root() -> None:
    if os.geteuid() != 0:
        raise Refused("not-root", "this user is not root")
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
    except OSError as error:
        raise Refused(
            "no-admin",
            f"root may not make namespaces here ({error.strerror}): this is a container without CAP_SYS_ADMIN",
            "start the outer container with `--cap-add SYS_ADMIN`, or with `--security-opt seccomp=unconfined`",
        ) from None


def _enter_user_namespace(name: str, config: dict[str, Any], link: socket.socket) -> None:
    ids = config["ids"]
    if name == "ident":
        if os.geteuid() != 0:
            raise Refused("not-root", "this user is not root")
    elif name == "subid" and "problem" in ids:
        raise Refused(ids["problem"], ids["message"], *ids["fixes"])
    own = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError as error:
        raise _no_userns(error) from None
    if name == "single":
        _map_own(*own)
        _unshare_rest()
        return
    wire.send(link, {"map": True})
    received = wire.receive(link)
    if received is None or received[0].get("refused"):
        message = received[0]["refused"] if received else "the helper ended"
        raise Refused(
            "map-refused",
            f"the ids cannot be mapped: {message}",
            "start the outer container with the capabilities SETUID, SETGID and SETFCAP"
            if name == "ident"
            else "newuidmap must be setuid root or have file capabilities, and keep them inside an outer container",
        )
    try:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        raise _confined(error) from None
    _unshare_rest()


def _map_own(uid: int, gid: int) -> None:
    """Maps this process's own ids to root, which needs no help; supplementary groups can never be set after that."""
    try:
        for kind, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1\n"), ("gid_map", f"0 {gid} 1\n")):
            with open(f"/proc/self/{kind}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        raise _confined(error) from None


def _unshare_rest() -> None:
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
    except OSError as error:
        raise _confined(error) from None


def in_user_namespace() -> bool:
    """Whether this process is in any user namespace but the first; root may have been put there by `podman unshare`."""
    return os.stat("/proc/self/ns/user").st_ino != FIRST_USER_NAMESPACE


def _no_userns(error: OSError) -> Refused:
    if _read(_SYSCTL_CLONE) == "0":
        return Refused(
            "userns-sysctl",
            "user namespaces are switched off for ordinary users",
            "as root: `sysctl -w kernel.unprivileged_userns_clone=1`",
        )
    if error.errno == errno.ENOSPC:
        limit = _read(_SYSCTL_MAX)
        if limit == "0":
            return Refused(
                "userns-quota",
                "the host allows no user namespaces (user.max_user_namespaces is 0)",
                "as root: `sysctl -w user.max_user_namespaces=15000`",
            )
        return Refused(
            "userns-quota",
            f"the quota of user namespaces ({limit or 'unknown'}) is used up",
            f"as root: `sysctl -w user.max_user_namespaces={2 * int(limit) if limit.isdecimal() else 15000}`",
        )
    return Refused(
        "userns-refused",
        f"the kernel makes no user namespace here ({error.strerror}): an outer container, or a chroot",
        "start the outer container with `--security-opt seccomp=unconfined`; "
        "in a pod set `securityContext: {seccompProfile: {type: Unconfined}}`",
    )


def _confined(error: OSError) -> Refused:
    if _read(_SYSCTL_APPARMOR) == "1":
        return Refused(
            "apparmor",
            "AppArmor takes all rights from user namespaces of ordinary users",
            "as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
            "or start aerogel with `buildah unshare` or `podman unshare`, or with sudo",
        )
    return Refused("confined", f"the new user namespace has no rights: {error.strerror}")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def write_maps(pid: int, name: str, ids: dict[str, Any]) -> str:
    """Maps the ids of a process in a new user namespace; "" or what went wrong.

    Called in the namespace above: `ident` writes the maps itself, `subid` lets newuidmap and newgidmap do it.
    """
    if name == "ident":
        return _write_identity(pid)
    for tool, own, ranges in (
        (ids["newuidmap"], os.getuid(), ids["uids"]),
        (ids["newgidmap"], os.getgid(), ids["gids"]),
    ):
        arguments = [tool, str(pid), "0", str(own), "1"]
        inside = 1
        for start, count in ranges:
            arguments += [str(inside), str(start), str(count)]
            inside += count
        complaint = _execute(arguments)
        if complaint:
            return complaint
    return ""


def _write_identity(pid: int) -> str:
    for kind in ("uid_map", "gid_map"):
        try:
            with open(f"/proc/self/{kind}", encoding="ascii") as file:
                ranges = [line.split() for line in file]
            text = "".join(f"{inside} {inside} {count}\n" for inside, _, count in ranges)
            with open(f"/proc/{pid}/{kind}", "w", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            return f"{kind}: {error.strerror}"
    return ""


def _execute(arguments: list[str], *, quiet: bool = False) -> str:
    """Runs a program; "" or what it said on its standard error. `quiet`: its output goes nowhere."""
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.dup2(write, 2, inheritable=True)
            if quiet:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1, inheritable=True)
            os.execve(arguments[0], arguments, {})  # noqa: S606 newuidmap, newgidmap, proot by full path
        finally:
            os._exit(127)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read(4096).decode("utf-8", "replace").strip()
    _, status = os.waitpid(child, 0)
    return "" if status == 0 else said or f"`{arguments[0]}` failed with wait status {status}"


def examine(config: dict[str, Any]) -> str | None:
    """In process 1 of the new rung: checks that the kernel's file systems mount, and finds the kind of overlay.

    Returns `trusted`, `user`, or None when an overlay cannot be written on the state directory. Raises Refused.
    """
    base, scratch = config["mount_dir"], config["scratch"]
    if config["rung"] == "chroot":
        _check_plain(scratch)
        return None
    if config["rung"] == "proot":
        _check_proot(scratch)
        return None
    try:
        syscalls.mount("aerogel", base, "tmpfs", 0, "mode=700")
    except OSError as error:
        raise _confined(error) from None
    try:
        for part in ("l", "root", "lower", "lower/d", "proc"):
            os.mkdir(f"{base}/{part}")
        try:
            syscalls.mount("proc", f"{base}/proc", "proc")
        except OSError as error:
            raise Refused(
                "proc-masked",
                f"a new /proc cannot be mounted ({error.strerror}): an outer container masks parts of its own",
                "start the outer container with `--security-opt systempaths=unconfined`",
            ) from None
        syscalls.umount(f"{base}/proc")
        if config["rung"] == "single":
            _check_recording(scratch)
        kind = "user" if in_user_namespace() else "trusted"
        return kind if _overlay_works(base, scratch, kind) else None
    finally:
        syscalls.umount(base)


def _check_plain(scratch: str) -> None:
    """Raises Refused unless a command can get a root directory, files owners, and /proc be shown."""
    machine = os.uname().machine
    if machine not in notify.MACHINES:
        raise Refused("machine", f"/proc cannot be shown in a changed root on {machine} yet")
    attempts: tuple[tuple[str, Callable[[], object]], ...] = (
        ("no-chroot", lambda: os.chroot(scratch)),
        ("no-chown", lambda: os.chown(scratch, 1, 1)),
        ("no-setuid", lambda: os.setresuid(1, 1, 1)),
        ("no-notification", lambda: _listen(machine)),
    )
    for problem, attempt in attempts:
        child = os.fork()
        if child == 0:
            try:
                attempt()
            except OSError as error:
                os._exit(error.errno or 1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if problem == "no-chown" and not status:
            os.chown(scratch, 0, 0)
        if status:
            raise Refused(
                problem,
                f"{_ATTEMPTS[problem]} here ({os.strerror(abs(status))})",
                "start the outer container with its engine's default capabilities",
            )


def _listen(machine: str) -> None:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    notify.listen(machine, procshim.rules(machine))


def find_proot() -> str:
    """The path of the program; "" when there is none."""
    return shutil.which("proot", path=_SEARCH) or ""


def _check_proot(scratch: str) -> None:
    """Raises Refused unless proot can trace a program, and owners be recorded."""
    _check_recording(scratch, is_bare=True)
    program = find_proot()
    complaint = _execute([program, "-v", "-1", "-r", "/", "-w", "/", program, "--version"], quiet=True)
    if complaint:
        raise Refused(
            "no-tracing",
            f"`proot` cannot trace programs here: {complaint}",
            "start the outer container with its engine's default filter of system calls, which allows ptrace",
        )


def _check_recording(scratch: str, *, is_bare: bool = False) -> None:
    """Raises Refused unless owners can be written beside files and the calls that set them be answered."""
    path = f"{scratch}/probe-record"
    try:
        if not is_bare:
            os.symlink("x", path)
            try:
                record.write(path, stat.S_IFLNK, record.Record(1, 1), follow=False)
            finally:
                os.unlink(path)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            record.write(path, stat.S_IFREG, record.Record(1, 1))
        finally:
            os.unlink(path)
    except OSError as error:
        raise Refused(
            "no-attributes",
            f"the state directory's file system keeps no extended attributes ({error.strerror}), which owners need",
            "point AEROGEL_ROOT at a local disk",
        ) from None
    machine = os.uname().machine
    if machine not in notify.MACHINES:
        raise Refused("machine", f"owners cannot be recorded on {machine} yet")
    child = os.fork()
    if child == 0:
        try:
            if is_bare:
                syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            notify.listen(machine, (bare if is_bare else recorder).rules(machine), only_native=True)
        except OSError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise Refused("no-notification", "the kernel lets no process answer the system calls of another")


def _overlay_works(base: str, scratch: str, kind: str) -> bool:
    """Whether an upper directory on the state directory takes whiteouts and opaque marks."""
    upper, work = f"{scratch}/probe-upper", f"{scratch}/probe-work"
    try:
        os.mkdir(upper)
        os.mkdir(work)
        rootfs.mount_overlay(base, [f"{base}/lower"], upper, work, kind)
        try:
            os.rmdir(f"{base}/root/d")  # a whiteout
            os.mkdir(f"{base}/root/d")  # an opaque directory
            names = os.listxattr(f"{upper}/d")
        finally:
            syscalls.umount(f"{base}/root")
    except Exception:  # noqa: BLE001 whatever it is, the answer is no, and the copy backend does not need it
        return False
    else:
        return f"{kind}.overlay.opaque" in names
    finally:
        for path in (upper, work):
            with contextlib.suppress(OSError):
                rootfs.remove(path)
