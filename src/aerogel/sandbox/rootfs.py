"""Puts the layers of a root file system together, with places for everything that will be mounted in it.

The places come from a skeleton directory below all layers, so that nothing of them remains in the upper one; what the
image hides (a link, a removed directory) gets its place in a second skeleton above the layers. Everything lives in a
private tmpfs of the run:

    l/0..n, u, w   links to the layers, so that 500 names fit into one page of mount options and need no escapes
    skeleton/ top/ mount points
    files/         contents of `file` mounts
    root/          the mounted root

Standard library only: part of the helper. Spec: kernel Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, AnyStr, NamedTuple

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.sandbox import inroot, record, syscalls

__all__ = ["Place", "bind", "build", "mount_overlay", "prepare_upper", "remove"]

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Place(NamedTuple):
    """Something will be mounted at `target`, a directory or a file."""

    target: str
    is_dir: bool


def build(base: str, root: dict[str, Any], places: list[Place], overlay: str) -> int:
    """Mounts the root at `base`/root, which is in a fresh tmpfs, and opens it (O_PATH).

    `overlay` is `trusted` or `user`. Raises AerogelError `sandbox.mount-target`, `sandbox.overlay`.
    """
    syscalls.mount("aerogel", base, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=700")
    for name in ("l", "skeleton", "top", "files", "root"):
        os.mkdir(f"{base}/{name}", 0o755)
    covered: list[str] = []
    for place in places:
        if not _is_below(place.target, covered):
            _make(f"{base}/skeleton", place.target.strip("/").split("/"), place.is_dir)
        covered.append(place.target)
    lowers = [f"{base}/skeleton", *root["lowers"]]
    upper, work = root["upper"], root["work"]
    if root["readonly"] and upper:
        lowers.append(upper)
        upper = work = None
    _check_directories(lowers)
    if upper:
        prepare_upper(upper, work, lowers[-1])
    mount_overlay(base, lowers, upper, work, overlay)
    fd = os.open(f"{base}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if _make_missing(f"{base}/top", fd, places):
        os.close(fd)
        syscalls.umount(f"{base}/root")
        if upper:
            _clear_work(work)
        mount_overlay(base, [*lowers, f"{base}/top"], upper, work, overlay)
        fd = os.open(f"{base}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return fd


def bind(base: str, root: dict[str, Any]) -> int:
    """Mounts the tree that `copied` made at `base`/root, and opens it (O_PATH)."""
    syscalls.mount("aerogel", base, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=700")
    for name in ("files", "root"):
        os.mkdir(f"{base}/{name}", 0o755)
    syscalls.mount(root["tree"], f"{base}/root", "", syscalls.MS_BIND)
    if root["readonly"]:
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NODEV
        syscalls.mount("", f"{base}/root", "", flags)
    return os.open(f"{base}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def mount_overlay(base: str, lowers: list[str], upper: str | None, work: str | None, overlay: str) -> None:
    """Mounts an overlay at `base`/root; needs the empty directory `base`/l or one that it filled before."""
    for at, path in enumerate(lowers):
        with contextlib.suppress(FileExistsError):
            os.symlink(path, f"{base}/l/{_short(at)}")
    options = "lowerdir=" + ":".join(_short(at) for at in reversed(range(len(lowers))))
    if upper and work:
        for name, path in (("u_", upper), ("w_", work)):
            with contextlib.suppress(FileExistsError):
                os.symlink(path, f"{base}/l/{name}")
        options += ",upperdir=u_,workdir=w_"
    elif len(lowers) == 1:  # the kernel wants two when nothing is writable
        options += f":{_short(0)}_"
        os.makedirs(f"{base}/l/{_short(0)}_", exist_ok=True)
    # spelled out because distributions change the defaults, and a redirected directory would miss in the diff
    options += ",userxattr" if overlay == "user" else ",redirect_dir=off,metacopy=off,index=off"
    before = os.getcwd()
    os.chdir(f"{base}/l")
    try:
        try:
            syscalls.mount("overlay", f"{base}/root", "overlay", syscalls.MS_NODEV, options + _volatile(upper))
        except OSError as error:
            if error.errno != errno.EINVAL or not upper:
                raise
            syscalls.mount("overlay", f"{base}/root", "overlay", syscalls.MS_NODEV, options)  # before Linux 5.10
    except OSError as error:
        raise _overlay_error(error, len(lowers), upper) from None
    finally:
        os.chdir(before)


def _volatile(upper: str | None) -> str:
    return ",volatile" if upper else ""


def _short(number: int) -> str:
    digits = _LETTERS[number % 36]
    while number >= 36:
        number //= 36
        digits = _LETTERS[number % 36] + digits
    return digits


def _overlay_error(error: OSError, count: int, upper: str | None) -> AerogelError:
    hints = []
    if count > 500:
        hints.append("the kernel stacks at most 500 layers: flatten the image")
    elif upper and error.errno == errno.EINVAL:
        hints.append("put AEROGEL_ROOT on a volume: an overlay cannot write onto another overlay, NFS or some FUSE")
    elif error.errno == errno.ENODEV:
        hints.append("this kernel has no overlayfs: `modprobe overlay` as root")
    return AerogelError(
        f"the root file system cannot be put together from {count} layers: {error.strerror}",
        code="sandbox.overlay",
        hints=hints,
        exit_status=EXIT_HOST,
    )


def _check_directories(paths: list[str]) -> None:
    for path in paths:
        if not os.path.isdir(path):
            raise AerogelError(f"the layer directory `{path}` is missing", code="sandbox.no-layer")


def prepare_upper(upper: str, work: str, top_lower: str) -> None:
    """An empty upper gets the owner and mode of the root below: they would be hidden by its own."""
    _clear_work(work)
    if not os.listdir(upper):
        wanted, present = os.stat(top_lower), os.stat(upper)
        if (wanted.st_uid, wanted.st_gid) != (present.st_uid, present.st_gid):
            os.chown(upper, wanted.st_uid, wanted.st_gid)
        record.copy(top_lower, upper)
        os.chmod(upper, wanted.st_mode & 0o7777)


def _clear_work(work: str) -> None:
    """Removes what an earlier mount left: a volatile one forbids the next."""
    for name in os.listdir(work):
        remove(f"{work}/{name}")


def remove(path: AnyStr) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            remove(os.path.join(path, name))
        os.rmdir(path)
    else:
        os.unlink(path)


def _is_below(target: str, covered: list[str]) -> bool:
    return any(target == c or target.startswith(c.rstrip("/") + "/") for c in covered)


def _make(base: str, parts: list[str], is_dir: bool) -> None:
    directory = base
    for part in parts if is_dir else parts[:-1]:
        directory += "/" + part
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o755)
    if not is_dir:
        os.close(os.open(f"{directory}/{parts[-1]}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _make_missing(top: str, root_fd: int, places: list[Place]) -> bool:
    """Makes in `top` the places that the image hides from the skeleton; says whether there were any."""
    covered: list[str] = []
    made = False
    for place in places:
        found = inroot.find(root_fd, place.target)
        try:
            is_covered = _is_below(found.full or "/", covered)
            covered.append(found.full or "/")
            if found.missing and not is_covered:
                if not found.is_dir:
                    raise inroot.target_error(place.target, f"`{found.path}` is a file in the image")
                _copy_parents(top, root_fd, found.path)
                _make(f"{top}{found.path}", list(found.missing), place.is_dir)
                made = True
        finally:
            os.close(found.fd)
    if made:
        _copy_parents(top, root_fd, "")
    return made


def _copy_parents(top: str, root_fd: int, path: str) -> None:
    """Directories above a place are merged with the image's: they keep its owner, mode and times."""
    done = ""
    for part in path.split("/"):
        done = f"{done}/{part}" if part else ""
        about = os.stat(f"/proc/self/fd/{root_fd}{done}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(top + done)
        os.chown(top + done, about.st_uid, about.st_gid)
        record.copy(f"/proc/self/fd/{root_fd}{done}", top + done)
        os.chmod(top + done, about.st_mode & 0o7777)
        os.utime(top + done, ns=(about.st_atime_ns, about.st_mtime_ns))
