"""One more command beside a running one: in its namespaces and its root, with a terminal and rights of its own.

    the helper's child      stays outside and waits
      process of the joined namespaces   serves the request as process 1 serves the first command's
        the command

The child outside cannot be seen from the sandbox; the process inside is not dumpable, so the sandbox's root can end it
but not read or steer it. What the command leaves behind lives on in the sandbox, but ends with it on the rungs `single`
and `chroot`, where a process of its own has to watch it. Standard library only: part of the helper.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

from aerogel.sandbox import accounts, init, inroot, mounts, syscalls, title

__all__ = ["PACKAGES", "join"]

PACKAGES = "root"
"""Where the packages of tools are, below the folder of tools."""


def join(sock: socket.socket, session: init.Session, request: dict[str, Any], fds: list[int]) -> None:
    """Serves a request with standard streams, the tools to show if any, and the descriptors of `Process.namespaces`."""
    stdio, spaces = fds[:3], fds[3:]
    tools = spaces.pop(0) if request["tools"] else -1
    packages = _tree_of(request["packages"]) if tools >= 0 and request["packages"] else -1
    if session.is_plain:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        _serve(sock, session, request, stdio, os.getpid())
        return
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.setns(spaces[0], syscalls.CLONE_NEWPID)
    child = os.fork()
    if child:
        sock.close()
        for fd in fds:
            os.close(fd)
        os.waitpid(child, 0)
        return
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    host_pid = int(os.readlink("/proc/self"))
    if session.recorded:  # what it leaves behind would have nobody who answers its calls
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    # from here on the image can be seen: nothing may be imported any more
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    kinds = [kind for _, kind in init.NAMESPACES[1:]] + [syscalls.CLONE_NEWUTS, syscalls.CLONE_NEWNET]
    for fd, kind in zip(spaces[1:], kinds, strict=False):
        syscalls.setns(fd, kind)
    for fd in spaces:
        os.close(fd)
    if tools >= 0:
        _show_tools(tools, request["tools"], packages)
    _serve(sock, session, request, stdio, host_pid)


def _tree_of(folder: str) -> int:
    """A folder of the host as a mount that is nowhere yet, read-only: it is put into the other root later."""
    tree = syscalls.open_tree(folder)
    syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NODEV)
    return tree


def _show_tools(program: int, folder: str, packages: int) -> None:
    """Enters a root that shows all that the joined one does, and `folder` with the program, as nobody else sees it.

    `packages` is the mount of the root of more tools, -1 without.

    The root is a list of the joined one's directories: what lies in them is the same, and a read-only one stays so.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    trees: list[tuple[str, str | tuple[bool, int]]] = []
    with os.scandir("/") as listing:
        entries = list(listing)
    for entry in entries:
        if entry.is_symlink():
            trees.append((entry.name, os.readlink(entry.path)))
        else:
            trees.append((entry.name, (entry.is_dir(follow_symlinks=False), syscalls.open_tree(entry.path))))
    place = "/dev"  # is there always, and is in the list already
    syscalls.mount("aerogel", place, "tmpfs", syscalls.MS_NODEV, "mode=755")
    for name, what in trees:
        if isinstance(what, str):
            os.symlink(what, f"{place}/{name}")
            continue
        is_directory, tree = what
        if is_directory:
            os.mkdir(f"{place}/{name}", 0o755)
        else:
            os.close(os.open(f"{place}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        target = os.open(f"{place}/{name}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        syscalls.move_mount(tree, target)
        os.close(target)
        os.close(tree)
    shown = place + folder
    os.mkdir(shown, 0o755)
    os.chmod(shown, 0o1777)  # noqa: S103 - links to the program are made by the command, whoever runs it
    copy = os.open(f"{shown}/busybox", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o755)
    size = os.fstat(program).st_size
    while size > 0 and (sent := os.sendfile(copy, program, None, size)):
        size -= sent
    os.fchmod(copy, 0o755)
    os.close(copy)
    os.close(program)
    if packages >= 0:
        os.mkdir(f"{shown}/{PACKAGES}", 0o755)
        target = os.open(f"{shown}/{PACKAGES}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        syscalls.move_mount(packages, target)
        os.close(target)
        os.close(packages)
    mounts.enter(place)


def _serve(
    sock: socket.socket, session: init.Session, request: dict[str, Any], stdio: list[int], host_pid: int
) -> None:
    title.set_title(title.EXEC)
    tree = request["tree"] if session.is_plain else ""
    root = os.open(tree or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    passwd, group = (inroot.read_file(root, name) for name in ("/etc/passwd", "/etc/group"))
    account = accounts.find_account(request["user"], passwd, group)
    account = accounts.with_groups(account, request["more_groups"], group)
    request["env"] = init.environment(request, account)
    master = -1
    if request["tty"]:
        window = request["window"][0], request["window"][1]
        if tree:
            master, slave = os.openpty()
            mounts.set_window(slave, window)
        else:
            master, slave = mounts.open_terminal(root, window)
        for fd in stdio:
            os.close(fd)
        stdio = [slave, slave, slave]
    os.close(root)
    init.serve(sock, session, request, init.Prepared(account, tuple(stdio), master, host_pid, [], (), tree))
