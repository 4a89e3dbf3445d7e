"""The two builders: a BuildKit inside a dockerd of the tests' own, and aerogel as a process with a store of its own.

Debian packages: docker.io (its client 20.10 drives BuildKit without buildx), busybox-static.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mother
import pytest
from cases import Case
from pictures import Picture, read_docker, read_oci, without_layers

__all__ = ["BASE", "Aerogel", "Buildkit", "Outcome", "base_archive", "buildkit"]

BASE = "differential"
CLIENT = "/usr/bin/docker"
ROOT = Path(__file__).resolve().parents[2]
APPLETS = [
    "sh",
    "ls",
    "cat",
    "mkdir",
    "rm",
    "rmdir",
    "mv",
    "cp",
    "ln",
    "chmod",
    "chown",
    "touch",
    "echo",
    "id",
    "env",
    "pwd",
    "stat",
    "printf",
    "mkfifo",
    "mknod",
    "sed",
    "find",
]

Outcome = Picture | str
"""An image, or what the builder said when it refused."""

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nwww:x:33:33::/:/bin/false\n"
GROUP = "root:x:0:\nstaff:x:50:app,root\nwww:x:33:\napp:x:1001:\nextra:x:60:app\n"


def base_archive(path: Path) -> None:
    """The root file system that cases start from: busybox, accounts, and something of each kind."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode, owner in (
            ("bin", 0o755, 0),
            ("dev", 0o755, 0),
            ("etc", 0o755, 0),
            ("home", 0o755, 0),
            ("home/app", 0o2750, 1000),
            ("proc", 0o755, 0),
            ("sys", 0o755, 0),
            ("tmp", 0o1777, 0),
            ("data", 0o711, 33),
            ("data/sub", 0o700, 1000),
            ("data/sub/deep", 0o755, 0),
            ("real", 0o755, 0),
        ):
            _add(tar, name, tarfile.DIRTYPE, mode, owner)
        busybox = shutil.which("busybox")
        assert busybox is not None
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, 0, Path(busybox).read_bytes())
        for name in APPLETS:
            _add(tar, f"bin/{name}", tarfile.SYMTYPE, 0o777, 0, link="busybox")
        for name, text in (("passwd", PASSWD), ("group", GROUP), ("hosts", ""), ("resolv.conf", "")):
            _add(tar, f"etc/{name}", tarfile.REGTYPE, 0o644, 0, text.encode())
        _add(tar, "data/file", tarfile.REGTYPE, 0o640, 33, b"data\n")
        _add(tar, "data/sub/one", tarfile.REGTYPE, 0o4755, 0, b"one\n")
        _add(tar, "data/sub/two", tarfile.REGTYPE, 0o644, 1000, b"two\n")
        tar.addfile(_info("data/sub/hard", tarfile.LNKTYPE, 0o644, 1000, "data/sub/two"))
        for name, link in (
            ("todir", "real"),
            ("absolute", "/real"),
            ("tofile", "data/file"),
            ("dangling", "missing/place"),
            ("out", "../../real"),
            ("real/up", "../data"),
        ):
            _add(tar, name, tarfile.SYMTYPE, 0o777, 0, link=link)


def _info(name: str, kind: bytes, mode: int, owner: int, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid, info.linkname = kind, mode, owner, owner, link
    info.mtime = 1_600_000_000
    return info


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes, mode: int, owner: int, content: bytes = b"", link: str = ""
) -> None:
    info = _info(name, kind, mode, owner, link)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


class Buildkit:
    """The BuildKit of a running dockerd."""

    def __init__(self, host: str) -> None:
        self._env = {**os.environ, "DOCKER_HOST": host, "DOCKER_BUILDKIT": "1", "DOCKER_CONFIG": host[7:] + ".client"}

    def client(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([CLIENT, *words], env=self._env, capture_output=True, timeout=120)

    def build(self, tag: str, dockerfile: Path, context: Path, args: tuple[str, ...] = ()) -> str:
        """What it says when it refuses; empty for an image, which then has the tag."""
        done = self.client(
            "build", "--network=host", "--progress=plain", *args, "-t", tag, "-f", str(dockerfile), str(context)
        )
        return "" if done.returncode == 0 else done.stderr.decode(errors="replace") or "refused"

    def save(self, tags: list[str], path: Path) -> None:
        self._output("save", "-o", str(path), *tags)

    def pictures(self, tags: list[str], path: Path) -> dict[str, Picture]:
        """The images of the tags, by way of an archive at `path`."""
        told = json.loads(self._output("image", "inspect", *tags)) if tags else []
        # `docker save` refuses an image without layers.
        bare = {tag: row for tag, row in zip(tags, told, strict=True) if not row["RootFS"].get("Layers")}
        found = {}
        for tag, row in bare.items():
            rows = self._output("history", "--no-trunc", "--format={{json .CreatedBy}}", tag).splitlines()
            found[tag] = without_layers(row, [json.loads(line) for line in reversed(rows)])
        saved = [tag for tag in tags if tag not in bare]
        if saved:
            self.save(saved, path)
            with tarfile.open(path) as archive:
                found.update((tag, read_docker(archive, tag)) for tag in saved)
        return found

    def _output(self, *words: str) -> str:
        done = self.client(*words)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="surrogateescape")


@contextmanager
def buildkit(state: Path) -> Iterator[Buildkit]:
    """Starts dockerd; skips the test where it cannot run."""
    for program in ("dockerd", CLIENT, "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.getuid() != 0:
        pytest.skip("dockerd needs root")
    host = f"unix://{state}/d.sock"
    words = ["dockerd", "--iptables=false", "--ip-masq=false", "--bridge=none", "-H", host]
    words += ["--data-root", f"{state}/data", "--exec-root", f"{state}/exec", "-p", f"{state}/pid"]
    with (state / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as daemon:
        found = Buildkit(host)
        try:
            for _ in range(300):
                if daemon.poll() is not None:
                    pytest.skip(f"dockerd does not start here: {(state / 'log').read_text()[-300:]}")
                if found.client("version").returncode == 0:
                    break
                time.sleep(0.1)
            yield found
        finally:
            daemon.terminate()
            daemon.wait(60)
            if os.path.ismount(
                network := f"{state}/exec/netns/default"
            ):  # it leaves this one, and a folder that nobody can remove
                subprocess.run(["umount", network], check=True, timeout=60)


class Aerogel:
    """The command line with a store below `state`; each command is a process of its own, see `mother`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._env = {**os.environ, "AEROGEL_ROOT": str(state / "store"), "PYTHONPATH": str(ROOT / "src")}

    def client(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return mother.run((*words, "--progress=plain"), Path.cwd(), self._env)

    def build(self, case: Case, dockerfile: Path, context: Path) -> Outcome:
        """The image of a case, or the error."""
        output = self._state / f"{case.name}.tar"
        words = ["build", "--ca=none", *case.args, "-f", str(dockerfile), "--compression=uncompressed"]
        done = self.client(*words, "-o", f"type=oci,dest={output}", str(context))
        if done.returncode != 0:
            return done.stderr.decode(errors="replace")
        with tarfile.open(output) as archive:
            picture = read_oci(archive)
        output.unlink()
        return picture
