"""What a root file system gets while a command runs: /proc, /sys, /dev, masks, and the mounts that were asked for.

Each target is opened inside the root first (`inroot`), then mounted on by its descriptor's name in /proc: no link of
the image can lead a mount outside. Standard library only: part of the helper.
Spec: OCI runtime-spec v1.2 config-linux.md (default file systems and devices), BuildKit's executor for the masks.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
import stat
from typing import Any

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import inroot, record, rootfs, syscalls
from aerogel.sandbox.rootfs import Place
from aerogel.sandbox.syscalls import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT

__all__ = ["enter", "mount_asked", "mount_system", "open_terminal", "places_of", "set_console", "set_window"]

_SYSTEM = ("/proc", "/sys", "/dev")
_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_KCORE = "/proc/kcore"
_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    (_KCORE, "core"),
    ("pts/ptmx", "ptmx"),
)
_MASKED_PROC = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
_MASKED_SYS = ("firmware", "devices/virtual/powercap")
_READONLY_PROC = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
_TTY_GROUP = 5
_NOBODY = 65534
"""Whom files belong to whose owner is not mapped."""


def places_of(mounts: list[dict[str, Any]]) -> list[Place]:
    """Where something will be mounted, the system's own first. Raises AerogelError for a source that is missing."""
    places = [Place(target, is_dir=True) for target in _SYSTEM]
    for mount in mounts:
        is_dir = mount["kind"] == "tmpfs" or (mount["kind"] == "overlay" and mount["is_directory"])
        if mount["kind"] == "bind":
            try:
                is_dir = stat.S_ISDIR(os.stat(mount["source"]).st_mode)
            except OSError as error:
                raise AerogelError(
                    f"`{mount['source']}` cannot be mounted at `{mount['target']}`: {error.strerror}",
                    code="sandbox.mount-source",
                ) from None
        places.append(Place(mount["target"], is_dir))
    return places


def mount_system(root_fd: int, request: dict[str, Any], *, in_userns: bool) -> None:
    """Mounts /proc, /sys and /dev, masked as in any container unless the request is `insecure`."""
    insecure = request["insecure"]
    proc_fd = _mount_new(root_fd, "/proc", "proc", _SAFE, "")
    _mount_sys(root_fd, readonly=not insecure, fresh=not in_userns or request["network"] != "host")
    dev_fd = _mount_dev(root_fd, request)
    if not insecure:
        null = f"/proc/self/fd/{dev_fd}/null"
        sys_fd = _open_dir(root_fd, "/sys")
        for name in _READONLY_PROC:
            path = f"/proc/self/fd/{proc_fd}/{name}"
            if os.path.exists(path):
                syscalls.mount(path, path, "", MS_BIND | MS_REC)
                syscalls.mount("", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | _SAFE)
        for name in _MASKED_PROC:
            _mask(f"/proc/self/fd/{proc_fd}/{name}", null)
        for name in _MASKED_SYS:
            _mask(f"/proc/self/fd/{sys_fd}/{name}", null)
        os.close(sys_fd)
    os.close(dev_fd)
    os.close(proc_fd)


def _mask(path: str, null: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        syscalls.mount("tmpfs", path, "tmpfs", _SAFE | MS_RDONLY, "size=0,mode=555")
    else:
        syscalls.mount(null, path, "", MS_BIND)


def _open_dir(root_fd: int, target: str) -> int:
    found = inroot.find(root_fd, target)
    if found.path != target or found.missing or not found.is_dir:
        os.close(found.fd)
        raise AerogelError(
            f"`{target}` of the image is not a plain directory",
            code="sandbox.hostile-root",
            hints=["the kernel's file systems are mounted there; a link or a file in its place is refused"],
        )
    return found.fd


def _mount_new(root_fd: int, target: str, kind: str, flags: int, data: str) -> int:
    """Mounts a new file system on a directory of the root; returns a descriptor of its top."""
    fd = _open_dir(root_fd, target)
    try:
        syscalls.mount(kind, f"/proc/self/fd/{fd}", kind, flags, data)
    finally:
        os.close(fd)
    return _open_dir(root_fd, target)


def _mount_sys(root_fd: int, *, readonly: bool, fresh: bool) -> None:
    flags = _SAFE | (MS_RDONLY if readonly else 0)
    if fresh:
        os.close(_mount_new(root_fd, "/sys", "sysfs", flags, ""))
        return
    # sysfs belongs to the network namespace, and the host's is not ours: its mounts are shown instead
    fd = _open_dir(root_fd, "/sys")
    try:
        _bind("/sys", fd, syscalls.MOUNT_ATTR_RDONLY if readonly else 0)
    finally:
        os.close(fd)


def _mount_dev(root_fd: int, request: dict[str, Any]) -> int:
    """Returns a descriptor of the new /dev."""
    # mode 755: in a sticky world-writable directory, opening a node with O_CREAT fails (fs.protected_regular)
    fd = _mount_new(root_fd, "/dev", "tmpfs", MS_NOSUID, "mode=755,size=64m")
    here = f"/proc/self/fd/{fd}"
    for name, major, minor in _NODES:
        _mount_node(f"{here}/{name}", f"/dev/{name}", os.makedev(major, minor))
    # nodes that a step makes give nothing; those above are mounts of their own
    syscalls.mount("", here, "", MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV)
    for link, name in _LINKS:
        if link != _KCORE or os.path.exists(_KCORE):  # where the kernel has none, runc makes no link either
            os.symlink(link, f"{here}/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{here}/{name}", 0o755)
    options = "newinstance,ptmxmode=0666,mode=0620"
    try:
        syscalls.mount("devpts", f"{here}/pts", "devpts", MS_NOSUID | MS_NOEXEC, f"{options},gid={_TTY_GROUP}")
    except OSError as error:
        if error.errno != errno.EINVAL:  # the group is not mapped here
            raise
        syscalls.mount("devpts", f"{here}/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    size = request["shm_size_bytes"]
    syscalls.mount("shm", f"{here}/shm", "tmpfs", _SAFE, f"mode=1777,size={size}")
    syscalls.mount("mqueue", f"{here}/mqueue", "mqueue", _SAFE)
    return fd


def _mount_node(place: str, source: str, device: int) -> None:
    """A node of the step's own, which root of the step may chmod; without the right to make one, the host's.

    That one is read-only if its owner is mapped: for a device this means that its mode and owner stay as they are.
    """
    try:
        os.mknod(place, stat.S_IFCHR | 0o666, device)
    except PermissionError:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        try:
            is_nobodys = os.stat(source).st_uid == _NOBODY
            _bind(source, fd, 0 if is_nobodys else syscalls.MOUNT_ATTR_RDONLY)
        finally:
            os.close(fd)
    else:
        os.chmod(place, 0o666)  # noqa: S103 - devices that all may use
        syscalls.mount(place, place, "", MS_BIND)


def mount_asked(
    root_fd: int, base: str, mounts: list[dict[str, Any]], *, overlay: str, insecure: bool, recorded: bool
) -> list[socket.socket]:
    """Mounts what the request names, in its order, and gives the listening sockets among it.

    Raises AerogelError `sandbox.mount-target`, `sandbox.mount`, `sandbox.mount-source`.
    """
    sockets: list[socket.socket] = []
    for number, mount in enumerate(mounts):
        target = mount["target"]
        fd = _target(root_fd, mount)
        try:
            if mount["kind"] == "overlay":
                _mount_overlay(mount, fd, f"{base}/files/{number}", overlay, insecure=insecure)
            elif mount["kind"] == "socket":
                sockets.append(_mount_socket(mount, fd, f"{base}/files/{number}", recorded=recorded))
            else:
                _mount_one(mount, fd, f"{base}/files/{number}", insecure=insecure, recorded=recorded)
        except OSError as error:
            raise AerogelError(
                f"`{mount['source'] or mount['kind']}` cannot be mounted at `{target}`: {error.strerror}",
                code="sandbox.mount",
                exit_status=EXIT_HOST,
            ) from None
        finally:
            os.close(fd)
    return sockets


def _mount_overlay(mount: dict[str, Any], fd: int, scratch: str, overlay: str, *, insecure: bool) -> None:
    """A part of a stack of layers, through an overlay of its own; it is seen only below the target."""
    for path in (scratch, f"{scratch}/l", f"{scratch}/root", f"{scratch}/empty"):
        os.mkdir(path, 0o755)
    lowers = list(mount["lowers"]) or [f"{scratch}/empty"]
    upper, work = mount.get("upper"), mount.get("work")
    if upper and work:
        rootfs.prepare_upper(upper, work, lowers[-1])
    rootfs.mount_overlay(scratch, lowers, upper, work, overlay)
    inner = os.open(f"{scratch}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = inroot.find(inner, mount["source"])
    finally:
        os.close(inner)
    try:
        if found.missing or found.is_dir != mount["is_directory"]:
            raise AerogelError(f"`{mount['source']}` is not in its layers", code="sandbox.mount-source")
        attributes = 0 if insecure else syscalls.MOUNT_ATTR_NODEV
        readonly = syscalls.MOUNT_ATTR_RDONLY if mount["readonly"] else 0
        _bind(f"/proc/self/fd/{found.fd}", fd, attributes | readonly)
    finally:
        os.close(found.fd)


def _mount_socket(mount: dict[str, Any], fd: int, scratch: str, *, recorded: bool) -> socket.socket:
    """A socket that listens at the target; the name that it is bound by is short whatever the directory's."""
    directory, _, name = scratch.rpartition("/")
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"/proc/self/fd/{parent}/{name}")
        record.give(scratch, mount["uid"], mount["gid"], recorded=recorded)
        os.chmod(scratch, 0o600 if mount["mode"] < 0 else mount["mode"])
        listener.listen(16)
        _bind(scratch, fd, 0)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(parent)
    return listener


def _mount_one(mount: dict[str, Any], fd: int, scratch: str, *, insecure: bool, recorded: bool) -> None:
    kind, mode = mount["kind"], mount["mode"]
    if kind == "tmpfs":
        data = f"mode={0o1777 if mode < 0 else mode:o}"
        if not recorded:
            data += f",uid={mount['uid']},gid={mount['gid']}"
        if mount["size_bytes"]:
            data += f",size={mount['size_bytes']}"
        flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if mount["readonly"] else 0)
        flags |= MS_NOEXEC if mount["noexec"] else 0
        syscalls.mount("tmpfs", f"/proc/self/fd/{fd}", "tmpfs", flags & ~MS_RDONLY if recorded else flags, data)
        if recorded:
            place = os.readlink(f"/proc/self/fd/{fd}")
            record.give(place, mount["uid"], mount["gid"], recorded=True)
            if mount["readonly"]:
                syscalls.mount("", place, "", MS_REMOUNT | flags, data)
        return
    source = mount["source"]
    if kind == "file":
        source = scratch
        file = os.open(source, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        data_left = memoryview(base64.b64decode(mount["data"]))
        while data_left:
            data_left = data_left[os.write(file, data_left) :]
        record.give(file, mount["uid"], mount["gid"], recorded=recorded)
        os.fchmod(file, 0o644 if mode < 0 else mode)
        os.close(file)
    attributes = 0 if insecure else syscalls.MOUNT_ATTR_NODEV
    _bind(source, fd, attributes | (syscalls.MOUNT_ATTR_RDONLY if mount["readonly"] else 0))


def _target(root_fd: int, mount: dict[str, Any]) -> int:
    """The descriptor to mount on. A place inside another mount is made there; the root's were made before."""
    target = mount["target"]
    found = inroot.find(root_fd, target)
    if found.missing:
        parent, is_root = found.fd, os.fstat(found.fd).st_dev == os.fstat(root_fd).st_dev
        try:
            if is_root:
                raise inroot.target_error(target, f"`{found.path or '/'}` was changed in the upper layer")
            _make_inside(parent, found.missing, _is_directory(mount))
        except OSError as error:
            raise inroot.target_error(target, f"`{found.path}` is a mount: {error.strerror}") from None
        finally:
            os.close(parent)
        found = inroot.find(root_fd, target)
    if found.is_dir != _is_directory(mount):
        os.close(found.fd)
        is_what = "a directory" if found.is_dir else "a file"
        raise inroot.target_error(target, f"it is {is_what} in the image, and the source is not")
    return found.fd


def _is_directory(mount: dict[str, Any]) -> bool:
    if mount["kind"] == "bind":
        return os.path.isdir(mount["source"])
    return bool(mount["kind"] == "tmpfs" or (mount["kind"] == "overlay" and mount["is_directory"]))


def _make_inside(parent: int, missing: tuple[str, ...], is_dir: bool) -> None:
    path = f"/proc/self/fd/{parent}"
    for part in missing if is_dir else missing[:-1]:
        path += "/" + part
        os.mkdir(path, 0o755)
    if not is_dir:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(f"{path}/{missing[-1]}", flags, 0o644))


def _bind(source: str, target_fd: int, attributes: int) -> None:
    """Binds a host path with what is mounted below it; attributes are MOUNT_ATTR_ ones."""
    try:
        tree = syscalls.open_tree(source)
        try:
            if attributes:
                syscalls.mount_setattr(tree, attributes)
            syscalls.move_mount(tree, target_fd)
        finally:
            os.close(tree)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    else:
        return
    path = f"/proc/self/fd/{target_fd}"  # before Linux 5.12: the mounts below the first keep their own flags
    real = os.readlink(path)
    syscalls.mount(source, path, "", MS_BIND | MS_REC)
    if attributes:
        flags = os.statvfs(real).f_flag & (_SAFE | MS_RDONLY)
        syscalls.mount("", real, "", MS_REMOUNT | MS_BIND | flags | attributes)


def open_terminal(root_fd: int, window: tuple[int, int]) -> tuple[int, int]:
    """A pseudo terminal in the root's own devpts: (master, slave), both the caller's."""
    import fcntl
    import struct

    fd = _open_dir(root_fd, "/dev/pts")
    try:
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        master = os.open("ptmx", flags, dir_fd=fd)
        fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK: unlock
        slave = fcntl.ioctl(master, 0x5441, flags)  # TIOCGPTPEER
        set_window(slave, window)
    finally:
        os.close(fd)
    return master, slave


def set_window(terminal: int, window: tuple[int, int]) -> None:
    """Gives a terminal its number of rows and columns."""
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *window, 0, 0))


def set_console(root_fd: int, slave: int) -> None:
    """Binds the terminal on /dev/console."""
    fd = _open_dir(root_fd, "/dev")
    path = f"/proc/self/fd/{fd}/console"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o620))
    syscalls.mount(f"/proc/self/fd/{slave}", path, "", MS_BIND)
    os.close(fd)


def enter(root: str) -> None:
    """Makes `root` the root of this process's mount namespace; the host's tree is gone afterwards."""
    os.chdir(root)
    try:
        syscalls.pivot_root(".", ".")
        syscalls.umount(".")
    except OSError as error:  # below a docker with SYS_ADMIN its filter refuses, on an initramfs the kernel
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        syscalls.mount(".", "/", "", syscalls.MS_MOVE)
        os.chroot(".")
    os.chdir("/")
