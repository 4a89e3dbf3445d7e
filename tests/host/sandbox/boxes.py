"""A tiny root file system, a way to run commands in it, and looks at what is left on the host.

Debian packages that these tests need: busybox-static (the programs of the root), uidmap (newuidmap, newgidmap).
"""

import os
import shutil
import time
from pathlib import Path

import pytest

from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import Exit, Rootfs, Sandbox

APPLETS = [
    "awk",
    "cat",
    "chmod",
    "chown",
    "cut",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "nc",
    "nohup",
    "ps",
    "pwd",
    "rm",
    "rmdir",
    "sed",
    "setsid",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "test",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "unshare",
    "wc",
]
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nvideo:x:44:app\naudio:x:63:app,other\nother:x:70:\n"


def make_layer(path: Path) -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox-static is not installed")
    for name in ("bin", "etc", "root", "home/app", "srv"):
        (path / name).mkdir(parents=True)
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)
    path.chmod(0o755)
    shutil.copy(busybox, path / "bin/busybox")
    for name in APPLETS:
        (path / "bin" / name).symlink_to("busybox")
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)
    return str(path)


class Box:
    """Runs commands in the tiny root and keeps what they say."""

    def __init__(self, helper: Helper, layer: str, scratch: Path) -> None:
        self.helper = helper
        self.layer = layer
        self.scratch = scratch
        self.count = 0

    def upper(self) -> Rootfs:
        self.count += 1
        upper, work = self.scratch / f"upper{self.count}", self.scratch / f"work{self.count}"
        upper.mkdir()
        work.mkdir()
        return Rootfs(lowers=(self.layer,), upper=str(upper), work=str(work))

    def run(self, *argv: str, **fields) -> tuple[Exit, str]:
        fields.setdefault("root", Rootfs(lowers=(self.layer,)))
        read, write = os.pipe()
        with open(read, "rb") as output:
            try:
                process = self.helper.run(Sandbox(argv=argv, **fields), stdout=write, stderr=write)
            finally:
                os.close(write)
            with process:
                said = output.read()
                return process.wait(60), said.decode("utf-8", "replace")

    def sh(self, script: str, **fields) -> str:
        ended, said = self.run("sh", "-c", script, **fields)
        assert ended.code == 0, (ended, said)
        return said


def processes_with(word: str) -> list[str]:
    """Command lines of processes of the host that hold a word."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if word in line:
                found.append(f"{name} {line}")
    return found


def gone(word: str, timeout_s: float = 60.0) -> bool:
    until = time.monotonic() + timeout_s
    while processes_with(word):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def mounts_below(path: str) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().split("\n") if path in line]
