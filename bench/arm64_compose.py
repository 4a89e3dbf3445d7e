"""Composes bases with an aerogel that runs on another kind of processor, and compares every layer with the host's.

    python bench/arm64_compose.py [--base NAME] [--platform OS/ARCH]

As root. The image `aerogel/python3` for the platform (linux/arm64), this source and the wheels of requirements.lock for it make
an aerogel of that machine; Debian's qemu-user-static runs it on this one, in namespaces of its own without a network. It
replays a lock, with all packages beside it, for its own architecture and for amd64: `--locked` fails if one bit differs.
Makers' tools (a Python, jlink) are those of the lock for that machine, and run emulated too. Two things are not as on a real
machine: qemu takes no seccomp filters, so the copy of the source leaves them out; and programs of amd64 (Java, which archives
its own classes) are run by the CPU, as if a qemu for them were registered. Takes minutes: an emulated Python is some thirty
times slower.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
WHEELS = {"linux/arm64": "aarch64"}
DOCKERFILE = """\
FROM --platform=$BUILDPLATFORM aerogel/python3 AS compiled
COPY deps /deps
COPY src /src
RUN ["/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/deps", "/src"]
FROM aerogel/python3
COPY --from=compiled /deps /deps
COPY --from=compiled /src /src
"""
ENVIRONMENT = {
    "AEROGEL_ROOT": "/tmp/root",
    "HOME": "/root",
    "LC_ALL": "tr_TR.UTF-8",
    "PATH": "/usr/bin",
    "PYTHONHASHSEED": "5",
    "PYTHONPATH": "/src:/deps",
    "TZ": "Asia/Tokyo",
}
FILTER = "    filter_ = _Filter(len(program) // 8, program)\n    libc = load()\n    _check(libc.prctl(_PR_SET_SECCOMP"
REGISTERED = "enabled\ninterpreter cpu\nflags: F\noffset 0\nmagic 7f454c4602010100000000000000000002003e00\n"
"""As the kernel would show a qemu for amd64."""
DECLARATION = "apiVersion: aerogel/v1\nkind: Base\nname: mine\nextends: {}\n"
PROGRAM = """\
import platform, sys
from aerogel.cli import main
from aerogel.sandbox.emulator import Emulator
Emulator.__init__.__kwdefaults__["registered"] = "/work/formats"
print(platform.machine(), sys.version)
for name in sys.argv[1:]:
    status = main.main(["base", "build", "--locked", "--platform", name, "base.yaml:nonroot", "--progress", "plain"])
    if status:
        sys.exit(status)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default="cc")
    parser.add_argument("--platform", default="linux/arm64", choices=sorted(WHEELS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="other-machine-") as folder:
        work, context = Path(folder, "work"), Path(folder, "context")
        work.mkdir()
        os.chmod(folder, 0o755)
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

        def aerogel(*words: str) -> None:
            subprocess.run([sys.executable, "-m", "aerogel", *words], cwd=work, env=env, check=True)

        unpack_wheels(WHEELS[options.platform], Path(folder, "wheels"), context / "deps")
        shutil.copytree(ROOT / "src", context / "src", ignore=shutil.ignore_patterns("__pycache__"))
        calls = context / "src/aerogel/sandbox/syscalls.py"
        text = calls.read_text()
        assert text.count(FILTER) == 1
        calls.write_text(text.replace(FILTER, f"    return\n{FILTER}"))
        (context / "Dockerfile").write_text(DOCKERFILE)
        tree = Path(folder, "tree")
        aerogel("build", "-q", "--platform", options.platform, "-o", f"type=local,dest={tree}", str(context))
        (work / "base.yaml").write_text(DECLARATION.format(options.base))
        platforms = (options.platform, "linux/amd64")
        aerogel("base", "lock", "--platform", ",".join(platforms))
        aerogel("base", "vendor")
        (work / "formats").mkdir()
        (work / "formats/status").write_text("enabled\n")
        (work / "formats/qemu-x86_64").write_text(REGISTERED)
        python = "/usr/bin/python3.13"
        status = run_there(tree, work, WHEELS[options.platform], [python, "-B", "-c", PROGRAM, *platforms])
        if status:
            return status
    print("every layer is the same")
    return 0


def run_there(tree: Path, work: Path, machine: str, argv: list[str]) -> int:
    """The exit status of a program of another machine, with `tree` as its root file system and `work` at /work."""
    sys.path.insert(0, str(ROOT / "src"))
    from aerogel.sandbox import emulation, syscalls

    for name in ("dev", "proc", "sys", "tmp", "work"):
        (tree / name).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as formats:
        user, _mounts = emulation.make(formats, {machine: f"/usr/bin/qemu-{machine}-static"})
        pid = os.fork()
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        emulation.enter(user)
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET)
        pid = os.fork()
        if pid == 0:
            enter(tree, work, argv)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def enter(tree: Path, work: Path, argv: list[str]) -> NoReturn:
    """Makes `tree` the root of this mount namespace and executes a program there."""
    from aerogel.sandbox import syscalls

    bind = syscalls.MS_BIND | syscalls.MS_REC
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    for source, target in ((tree, tree), (work, tree / "work"), ("/dev", tree / "dev"), ("/sys", tree / "sys")):
        syscalls.mount(str(source), str(target), "", bind)
    syscalls.mount("proc", f"{tree}/proc", "proc")
    os.chdir(tree)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".")
    os.chdir("/work")
    os.execve(argv[0], argv, ENVIRONMENT)


def unpack_wheels(machine: str, folder: Path, target: Path) -> None:
    """What requirements.lock names, for Python 3.13 on a machine."""
    tags = [
        word
        for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
        for word in ("--platform", f"{tag}_{machine}")
    ]
    kinds = [word for abi in ("cp313", "abi3", "none") for word in ("--abi", abi)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version",
        "313",
    ]
    subprocess.run([*command, *tags, *kinds, "-d", str(folder), "-r", str(ROOT / "requirements.lock")], check=True)
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(target)


if __name__ == "__main__":
    sys.exit(main())
