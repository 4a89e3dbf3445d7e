"""Where attacks take place, and the look at the host afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from pathlib import Path

from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import Exit, Rootfs, Sandbox

__all__ = ["PRELUDE", "Field", "field_of"]

PRELUDE = """
try() { if "$@" >/tmp/out 2>&1; then echo "ESCAPED: $*"; else echo "held: $(head -c 300 /tmp/out)"; fi; }
empty() { if "$@" 2>/dev/null | grep -q .; then echo "ESCAPED: $*"; else echo "held: nothing there"; fi; }
"""
"""`try COMMAND` must fail, `empty COMMAND` must print nothing."""

_WATCHED = (
    "/etc/hosts",
    "/etc/hostname",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/fs/binfmt_misc/status",
)
_DEVICES = ("", "null", "zero", "full", "random", "urandom", "tty")


class Field:
    """A helper on one rung, a layer, and a canary: a folder of the host with a secret."""

    def __init__(self, helper: Helper, layer: str, folder: Path) -> None:
        self.helper = helper
        self.layer = layer
        self.folder = folder
        self.canary = folder / "canary"
        self.canary.mkdir()
        self.secret = f"canary-{os.urandom(8).hex()}"
        (self.canary / "secret").write_text(self.secret)
        (self.canary / "secret").chmod(0o600)
        self.before: dict[str, object] = {}
        self.before = self.look()

    @property
    def rung(self) -> str:
        return self.helper.rung.name

    def look(self) -> dict[str, object]:
        """What no attack may change: the canary, the layer, the interpreter, the host's settings, mounts of the state."""
        found: dict[str, object] = {}
        for top in (str(self.canary), self.layer):
            for place, folders, files in os.walk(top):
                for name in [".", *folders, *files]:
                    path = os.path.join(place, name)
                    about = os.lstat(path)
                    found[path] = (about.st_mode, about.st_uid, about.st_nlink, about.st_mtime_ns, about.st_ctime_ns)
                    if name in files and not os.path.islink(path):
                        found[f"{path} content"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path in {sys.executable, os.path.realpath(sys.executable)}:
            about = os.stat(path)
            found[path] = (about.st_mode, about.st_uid, about.st_ctime_ns)
        for name in _DEVICES:
            about = os.stat(f"/dev/{name}")
            found[f"/dev/{name}"] = (about.st_mode, about.st_uid, about.st_gid, about.st_rdev, about.st_ino)
        for path in _WATCHED:
            with contextlib.suppress(OSError):
                found[path] = Path(path).read_bytes()
        mounts = Path("/proc/self/mountinfo").read_text().split("\n")
        found["mounts"] = [line for line in mounts if str(self.folder) in line]
        return found

    def changes(self) -> list[str]:
        now = self.look()
        return [name for name in {*now, *self.before} if now.get(name) != self.before.get(name)]

    def run(self, *argv: str, timeout_s: float = 60.0, **fields: object) -> tuple[Exit | None, str]:
        """How a command ended, None when it had to be killed, and what it said."""
        fields.setdefault("root", Rootfs(lowers=(self.layer,)))
        fields.setdefault("env", (("PATH", "/bin"), ("CANARY", str(self.canary)), ("HOST", str(os.getpid()))))
        read, write = os.pipe()
        said = b""
        until = time.monotonic() + timeout_s
        try:
            process = self.helper.run(Sandbox(argv=argv, **fields), stdout=write, stderr=write)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        with open(read, "rb") as output, process:
            try:
                ended: Exit | None = process.wait(max(0.1, until - time.monotonic()))
            except TimeoutError:
                ended = None
                process.kill()
                process.wait(60)
            os.set_blocking(output.fileno(), False)
            while part := output.read(1 << 20):
                said += part
        return ended, said.decode("utf-8", "replace")

    def attack(self, script: str, **fields: object) -> str:
        """Runs a script and sees that it got nowhere; what it said."""
        ended, said = self.run("sh", "-c", PRELUDE + script, **fields)
        assert ended is not None, f"it went on: {said}"
        assert self.secret not in said
        assert "ESCAPED" not in said, said
        assert "not found" not in said, said
        assert "held" in said, (ended, said)
        return said


def field_of(helper: Helper, layer: str, folder: Path) -> Field:
    for name in (
        "dd",
        "ln",
        "cp",
        "mv",
        "mkfifo",
        "chroot",
        "tail",
        "od",
        "dirname",
        "printf",
        "readlink",
        "sleep",
        "xargs",
    ):
        with contextlib.suppress(FileExistsError):
            os.symlink("busybox", f"{layer}/bin/{name}")
    os.mkdir(f"{layer}/attack")
    return Field(helper, layer, folder)
