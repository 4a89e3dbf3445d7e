"""A root file system without namespaces: what would be mounted is put into the copied tree, and taken out again.

For the rungs `chroot` and `proot`, in a container that may neither mount nor unshare. The tree belongs to one step alone, so what an
image has in the place of a mount is moved aside and never missed: `copied.harvest` looks at no such place. This is no
boundary against a hostile step, which the container around it has to be.

Standard library only: part of the helper.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import stat
import time
from typing import Any, NamedTuple

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import copied, inroot, record, rootfs
from aerogel.sandbox.unwritten import Unwritten, UnwrittenFile

__all__ = ["Filling", "children", "descendants", "end_all", "fill"]

_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)
_WAIT_S = 0.05


class _Spot(NamedTuple):
    """A name in a directory that stays this one, whatever a step puts in the place of those above it."""

    folder: int
    name: str

    @property
    def path(self) -> str:
        """For what has no `dir_fd`; the name itself may be a link."""
        return f"/proc/self/fd/{self.folder}/{self.name}"

    def look(self) -> os.stat_result | None:
        """What is there, not followed; None for nothing."""
        try:
            return os.lstat(self.path)
        except FileNotFoundError:
            return None


class _Borrowed(NamedTuple):
    """A directory that was moved to `spot` from where it belongs; `fd` is the directory and holds its lock."""

    spot: _Spot
    home: str
    fd: int


class _Replaced(NamedTuple):
    """What was at `spot` is at `aside`, or nowhere; `times` are those of the directory around it, before and after."""

    spot: _Spot
    aside: str
    times: tuple[os.stat_result, os.stat_result]


class Filling:
    """What was put into a tree, to be taken out again: by then the step may have moved or replaced any part of it."""

    def __init__(self, tree: str, aside: str) -> None:
        self.tree = tree
        self.aside = aside
        self.listeners: list[socket.socket] = []
        self._borrowed: list[_Borrowed] = []
        self._replaced: list[_Replaced] = []
        self.unwritten = Unwritten()
        self._shown: list[tuple[UnwrittenFile, str, str]] = []

    def place(self, root: int, target: str) -> str:
        """The real path of a target, with nothing there."""
        found = inroot.find(root, target)
        os.close(found.fd)
        place = self.tree + found.full
        if len(found.missing) > 1:
            os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
        folder = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        before = os.fstat(folder)
        aside = ""
        if not found.missing:
            aside = f"{self.aside}/{len(self._replaced)}"
            os.rename(place, aside)
        self._replaced.append(_Replaced(_Spot(folder, os.path.basename(place)), aside, (before, before)))
        return place

    def placed(self) -> None:
        """Something is at the last place now."""
        one = self._replaced.pop()
        self._replaced.append(one._replace(times=(one.times[0], os.fstat(one.spot.folder))))

    def borrow(self, home: str, fd: int) -> None:
        """Moves the directory `home`, which `fd` is, to the last place."""
        spot = self._replaced[-1].spot
        os.rename(home, spot.name, dst_dir_fd=spot.folder)
        self._borrowed.append(_Borrowed(spot, home, fd))

    def show(self, place: str, mount: dict[str, Any], data: bytes, *, is_bare: bool) -> None:
        """Makes a file at the last place that is on no disk."""
        owner = mount["uid"], mount["gid"]
        file = self.unwritten.put(place, data, *owner, mount["mode"], is_bare=is_bare)
        self._shown.append((file, place, mount["target"]))

    def check(self) -> None:
        """Raises AerogelError `sandbox.mount-moved` if the step did what cannot be done to a mount: what it made is empty."""
        for file, place, target in self._shown:
            if os.fstat(file.mark).st_nlink != int(self.unwritten.at(os.fsencode(place)) is file):
                raise AerogelError(
                    f"the step moved the file that is shown at `{target}`, or gave it another name",
                    code="sandbox.mount-moved",
                    hints=["a mount can be moved nowhere: let the step read the file where it is"],
                )

    def give_back(self) -> None:
        """Moves what was lent to where it belongs; what a step moved away or removed is empty from now on."""
        self._shown.clear()
        self.unwritten.close()
        while self._borrowed:
            one = self._borrowed.pop()
            lent, there = os.fstat(one.fd), one.spot.look()
            if there is not None and os.path.samestat(there, lent):
                os.rename(one.spot.name, one.home, src_dir_fd=one.spot.folder)
            else:
                os.mkdir(one.home, 0o700)
                os.chown(one.home, lent.st_uid, lent.st_gid)
                record.copy(f"/proc/self/fd/{one.fd}", one.home)
                os.chmod(one.home, stat.S_IMODE(lent.st_mode))
            os.close(one.fd)

    def restore(self) -> None:
        """Puts back what was in the tree; a directory that the step did not write to keeps its time."""
        while self._replaced:
            one = self._replaced.pop()
            folder = one.spot.folder
            now = os.fstat(folder)
            if one.spot.look() is not None:
                rootfs.remove(one.spot.path)
            if one.aside:
                with contextlib.suppress(FileNotFoundError):  # the step removed the directory
                    os.rename(one.aside, one.spot.name, dst_dir_fd=folder)
            before, after = one.times
            time_ns = before.st_mtime_ns if now.st_mtime_ns == after.st_mtime_ns else now.st_mtime_ns
            os.utime(folder, ns=(before.st_atime_ns, time_ns))
            os.close(folder)


def fill(tree: str, aside: str, request: dict[str, Any], own: str, *, is_bare: bool = False) -> Filling:
    """Puts /dev and the mounts of the request into the tree.

    `aside` is a new directory for what is in the way; a directory that may be written to is lent only if it lies in
    `own`; `is_bare` says that owners and modes are recorded (`bare`). Raises AerogelError `sandbox.mount*`.
    """
    os.mkdir(aside, 0o700)
    filling = Filling(tree, aside)
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _make_devices(filling.place(root, "/dev"))
        filling.placed()
        for mount in request["mounts"]:
            place = filling.place(root, mount["target"])
            _put(mount, place, own, filling, is_bare=is_bare)
            filling.placed()
    except BaseException:
        filling.give_back()
        raise
    finally:
        os.close(root)
    return filling


def _make_devices(place: str) -> None:
    os.mkdir(place, 0o755)
    for name, major, minor in _NODES:
        try:
            os.mknod(f"{place}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        except PermissionError:  # without CAP_MKNOD: what is written to the null device must go somewhere
            os.close(os.open(f"{place}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        os.chmod(f"{place}/{name}", 0o666)  # noqa: S103 - devices that all may use
    for link, name in _LINKS:
        os.symlink(link, f"{place}/{name}")
    for name, mode in (("shm", 0o1777), ("mqueue", 0o1777), ("pts", 0o755)):
        os.mkdir(f"{place}/{name}")
        os.chmod(f"{place}/{name}", mode)


def _dress(place: str, mount: dict[str, Any], mode: int, *, is_bare: bool) -> None:
    """Owner and mode of something that was put into the tree."""
    mode = mode if mount["mode"] < 0 else mount["mode"]
    kind = os.stat(place).st_mode
    if not is_bare:
        os.chown(place, mount["uid"], mount["gid"])
        os.chmod(place, mode)
    elif stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        record.dress(place, kind, record.Record(mount["uid"], mount["gid"]), mode)


def _put(mount: dict[str, Any], place: str, own: str, filling: Filling, *, is_bare: bool) -> None:
    kind = mount["kind"]
    if kind == "tmpfs":
        os.mkdir(place)
        _dress(place, mount, 0o1777, is_bare=is_bare)
    elif kind == "file":
        data = base64.b64decode(mount["data"])
        if mount["is_secret"]:
            filling.show(place, mount, data, is_bare=is_bare)
            return
        fd = os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
        _dress(place, mount, 0o644, is_bare=is_bare)
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        filling.listeners.append(listener)
        parent = os.open(os.path.dirname(place), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{parent}/{os.path.basename(place)}")
        finally:
            os.close(parent)
        _dress(place, mount, 0o600, is_bare=is_bare)
        listener.listen(16)
    elif mount["readonly"]:
        if os.path.isdir(mount["source"]):
            copied.merge([mount["source"]], place)
        else:
            shutil.copy2(mount["source"], place)
    elif is_bare and not mount["source"].startswith(own + "/"):  # proot shows it there
        if os.path.isdir(mount["source"]):
            os.mkdir(place)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    else:
        _borrow(mount, own, filling)


def _borrow(mount: dict[str, Any], own: str, filling: Filling) -> None:
    source = mount["source"]
    if not source.startswith(own + "/"):
        raise AerogelError(
            f"`{source}` cannot be shown at `{mount['target']}` where nothing can be mounted",
            code="sandbox.mount",
            hints=["a folder of the host may be shown read-only here: `:ro`", "`aerogel doctor` tells what is missing"],
            exit_status=EXIT_HOST,
        )
    while True:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.exists(source) and os.path.samestat(os.stat(source), os.fstat(fd)):
                break
            os.close(fd)
        except FileNotFoundError:  # another step has it
            time.sleep(_WAIT_S)
    filling.borrow(source, fd)


def descendants(pid: int) -> list[int]:
    """All processes below one, by the host's /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def children(pid: int) -> list[int]:
    """The processes directly below one."""
    found: list[int] = []
    for name in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{name}/children", encoding="ascii") as file:
            found += map(int, file.read().split())
    return found


def end_all() -> None:
    """Kills everything below this process, which adopts what loses its parent, until nothing is left."""
    while True:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)
