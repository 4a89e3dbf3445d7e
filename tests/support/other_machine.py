"""aerogel on a machine with another kind of processor, emulated inside this one; for a test and for a benchmark.

The image `aerogel/python3` for arm64, this source as it is, and the wheels of requirements.lock for it make an aerogel of that
machine. Debian's qemu-user-static runs it, in a user namespace of its own without a network, where every program of the
machine is started through qemu. Two things that a machine has and qemu does not are given from outside:

- A kernel that takes system call filters: `libfilter.so`, which the loader puts before the C library (`with_filters`), says
  that one was taken. Without it whatever starts a program in the sandbox fails, which only what is composed needs.
- A qemu for amd64: the CPU runs such programs, and the list of binary formats shows one.

Needs root, Linux 6.7, `qemu-user-static`; with filters `gcc-aarch64-linux-gnu`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
PLATFORM = "linux/arm64"
PYTHON = "/usr/bin/python3.13"
NEEDED = ("deflate", "msgspec", "pyyaml")
"""The wheels without which no base is built."""

_MACHINE = "aarch64"
_DOCKERFILE = """\
FROM --platform=$BUILDPLATFORM aerogel/python3 AS compiled
COPY deps /deps
COPY src /src
RUN ["/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/deps", "/src"]
FROM aerogel/python3
COPY --from=compiled /deps /deps
COPY --from=compiled /src /src
"""
_ENVIRONMENT = {
    "AEROGEL_JOBS": "1",
    "AEROGEL_ROOT": "/tmp/root",
    "LC_ALL": "tr_TR.UTF-8",
    "PATH": "/usr/bin",
    "PYTHONHASHSEED": "5",
    "PYTHONPATH": "/src:/deps",
    "TZ": "Asia/Tokyo",
}
_FILTER = """\
extern long syscall(long, ...);
int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
    return option == 22 && a == 2 ? 0 : syscall(167, option, a, b, c, d);  /* PR_SET_SECCOMP, SECCOMP_MODE_FILTER */
}
"""
_REGISTERED = "enabled\ninterpreter cpu\nflags: F\noffset 0\nmagic 7f454c4602010100000000000000000002003e00\n"
"""As the kernel would show a qemu for amd64."""


def make(
    folder: Path, aerogel: Callable[..., object], names: Sequence[str] = (), *, with_filters: bool = False
) -> Path:
    """The tree of the other machine, in a new folder; `aerogel` runs a command, `names` are the wheels wanted (all)."""
    context, tree = folder / "context", folder / "tree"
    _unpack_wheels(folder / "wheels", context / "deps", names)
    shutil.copytree(ROOT / "src", context / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (context / "Dockerfile").write_text(_DOCKERFILE)
    aerogel("build", "-q", "--platform", PLATFORM, "-o", f"type=local,dest={tree}", str(context))
    shutil.rmtree(context)
    for name in ("dev", "formats", "proc", "sys", "work"):
        (tree / name).mkdir(exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    (tree / "formats/status").write_text("enabled\n")
    (tree / "formats/qemu-x86_64").write_text(_REGISTERED)
    if with_filters:
        words = ("-shared", "-nostdlib", "-fPIC", "-O1", "-x", "c", "-", "-o", str(tree / "usr/lib/libfilter.so"))
        subprocess.run(["aarch64-linux-gnu-gcc", *words], input=_FILTER.encode(), check=True)
        (tree / "etc/ld.so.preload").write_text("/usr/lib/libfilter.so\n")
    return tree


def command(tree: Path, work: Path, argv: Sequence[str], *, user: int = 0) -> list[str]:
    """What runs a program there as a user, with the folder `work` at /work; for `subprocess`, with no special environment."""
    return [sys.executable, str(Path(__file__)), str(tree), str(work), str(user), *argv]


def _unpack_wheels(folder: Path, target: Path, names: Sequence[str]) -> None:
    """What requirements.lock names, or these of it, for the Python of the other machine."""
    blocks = re.split(r"\n(?=[a-z])", (ROOT / "requirements.lock").read_text())
    folder.mkdir()
    wanted = folder / "wanted.txt"
    wanted.write_text("\n".join(one for one in blocks if not names or one.partition("==")[0] in names))
    options = ["--no-deps", "--only-binary=:all:", "--python-version=313", "-d", str(folder), "-r", str(wanted)]
    for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28"):
        options += ["--platform", f"{tag}_{_MACHINE}"]
    for abi in ("cp313", "abi3", "none"):
        options += ["--abi", abi]
    subprocess.run([sys.executable, "-m", "pip", "download", "-qqq", *options], check=True)
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(target)
    shutil.rmtree(folder)


def _run(tree: Path, work: Path, user: int, argv: Sequence[str]) -> int:
    """Goes to the other machine; the exit status of the program."""
    sys.path.insert(0, str(ROOT / "src"))
    from aerogel.sandbox import emulation, syscalls

    formats = tree / "dev"  # any folder: the list of formats is mounted there in another namespace
    namespace, _mounts = emulation.make(str(formats), {_MACHINE: f"/usr/bin/qemu-{_MACHINE}-static"})
    emulation.enter(namespace)
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET)
    pid = os.fork()
    if pid == 0:
        _enter(tree, work, user, argv)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _enter(tree: Path, work: Path, user: int, argv: Sequence[str]) -> NoReturn:
    """Makes `tree` the root of this mount namespace and executes a program there, which dies with this process's parent."""
    from aerogel.sandbox import syscalls

    bind = syscalls.MS_BIND | syscalls.MS_REC
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    for source, target in ((tree, tree), (work, tree / "work"), ("/dev", tree / "dev"), ("/sys", tree / "sys")):
        syscalls.mount(str(source), str(target), "", bind)
    syscalls.mount("proc", f"{tree}/proc", "proc")
    syscalls.mount(f"{tree}/formats", f"{tree}/proc/sys/fs/binfmt_misc", "", bind)
    os.chdir(tree)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".")
    os.chdir("/work")
    home = "/root"
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        home = "/nowhere"
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    os.execve(argv[0], list(argv), {**_ENVIRONMENT, "HOME": home})


if __name__ == "__main__":
    sys.exit(_run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
