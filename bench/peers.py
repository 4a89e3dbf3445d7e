"""The builders that are compared: how each is started, told to build and to push, and made to forget everything.

A peer that is not installed is left out with its reason. All work below `folder`, on the same file system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from measure import Group

ROOT = Path(__file__).resolve().parent.parent


class Peer:
    """One builder. `environ` is what its commands see."""

    name = ""
    missing = ""
    """Why it cannot take part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.group = Group(self.name)
        self.environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Before the first command."""

    def stop(self) -> None:
        self.group.close()

    def version(self) -> str:
        raise NotImplementedError

    def builds(self, context: Path, tag: str, *, no_cache: bool, push: bool, jobs: int) -> list[list[str]]:
        """The commands that build, and push."""
        raise NotImplementedError

    def pushes(self, tag: str) -> list[list[str]]:
        raise NotImplementedError

    def forgets(self) -> list[list[str]]:
        """The commands that remove every image and every kept result."""
        raise NotImplementedError


class Aerogel(Peer):
    name = "aerogel"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environ["AEROGEL_ROOT"] = str(folder / "root")
        for variable in ("SSL_CERT_FILE", "PIP_CERT"):
            if variable in os.environ:
                self.environ[variable] = os.environ[variable]
        self.command = [str(ROOT / "aerogel")]

    def start(self) -> None:
        subprocess.run([*self.command, "version"], env=self.environ, check=True, capture_output=True)

    def version(self) -> str:
        return subprocess.run(
            [*self.command, "--version"], env=self.environ, capture_output=True, text=True, check=False
        ).stdout

    def builds(self, context: Path, tag: str, *, no_cache: bool, push: bool, jobs: int) -> list[list[str]]:
        flags = ["--no-cache"] * no_cache + ["--push"] * push + ([f"--jobs={jobs}"] if jobs > 1 else [])
        return [[*self.command, "build", "-t", tag, "--progress=plain", *flags, str(context)]]

    def pushes(self, tag: str) -> list[list[str]]:
        return [[*self.command, "push", tag]]

    def forgets(self) -> list[list[str]]:
        root = self.folder / "root"
        script = (
            'rm -rf "$0"/data && find "$0"/cache -mindepth 1 -maxdepth 1 ! -name "environments-*" -exec rm -rf {} +'
        )
        return [["sh", "-c", script, str(root)]]


class Docker(Peer):
    """Debian's docker.io: its client drives the BuildKit inside a daemon of ours."""

    name = "docker"
    missing = "" if os.path.exists("/usr/sbin/dockerd") and os.path.exists("/usr/bin/docker") else "not installed"
    if not missing and os.getuid() != 0:
        missing = "its daemon needs root"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environ |= {"DOCKER_BUILDKIT": "1", "DOCKER_HOST": f"unix://{folder}/socket"}
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["/usr/sbin/dockerd", "--iptables=false", "--bridge=none", f"--data-root={self.folder}/data"]
        words += [
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid",
            f"--host=unix://{self.folder}/socket",
        ]
        if self.group.folders:
            words.append(f"--cgroup-parent=/{self.group.name}")
        with (self.folder / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                words, env=self.environ, stdout=log, stderr=log, preexec_fn=self.group.enter
            )
        for _ in range(300):
            time.sleep(0.1)
            if (
                subprocess.run(
                    ["/usr/bin/docker", "info"], env=self.environ, capture_output=True, check=False
                ).returncode
                == 0
            ):
                return
        raise SystemExit(f"error: dockerd does not answer, see {self.folder}/log")

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        super().stop()

    def version(self) -> str:
        return subprocess.run(["/usr/bin/docker", "--version"], capture_output=True, text=True, check=False).stdout

    def builds(self, context: Path, tag: str, *, no_cache: bool, push: bool, jobs: int) -> list[list[str]]:
        del jobs
        build = ["/usr/bin/docker", "build", "--network=host", "-t", tag, *["--no-cache"] * no_cache, str(context)]
        return [build, *(self.pushes(tag) if push else [])]

    def pushes(self, tag: str) -> list[list[str]]:
        return [["/usr/bin/docker", "push", tag]]

    def forgets(self) -> list[list[str]]:
        return [["/usr/bin/docker", "builder", "prune", "-af"], ["/usr/bin/docker", "image", "prune", "-af"]]


class Buildah(Peer):
    name = "buildah"
    program = "/usr/bin/buildah"
    missing = "" if os.path.exists("/usr/bin/buildah") else "not installed"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._common = [self.program, f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=overlay"]

    def version(self) -> str:
        return subprocess.run([self.program, "--version"], capture_output=True, text=True, check=False).stdout

    def builds(self, context: Path, tag: str, *, no_cache: bool, push: bool, jobs: int) -> list[list[str]]:
        flags = ["--isolation=chroot", "--layers", "--tls-verify=false", f"--jobs={jobs}", *["--no-cache"] * no_cache]
        return [[*self._common, "build", *flags, "-t", tag, str(context)], *(self.pushes(tag) if push else [])]

    def pushes(self, tag: str) -> list[list[str]]:
        return [[*self._common, "push", "--tls-verify=false", tag]]

    def forgets(self) -> list[list[str]]:
        return [[*self._common, "rmi", "-af"]]


class Podman(Buildah):
    name = "podman"
    program = "/usr/bin/podman"
    missing = "" if os.path.exists("/usr/bin/podman") else "not installed"


PEERS: dict[str, type[Peer]] = {one.name: one for one in (Aerogel, Docker, Buildah, Podman)}


def clean(folder: Path) -> None:
    """Removes what a peer left; overlay mounts of a killed one go first."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        target = line.split()[1]
        if target.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", target], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
