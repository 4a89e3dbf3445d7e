"""A context, a store and a root of Debian's busybox-static, for tests of the engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from process import Aerogel

HEAD = 'FROM scratch AS base\nCOPY busybox /bin/\nRUN ["/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]\n'


class Bench:
    """A context and a store; `build` gives the statuses by title and the image id."""

    def __init__(self, folder: Path) -> None:
        self.context = folder / "context"
        self.context.mkdir()
        shutil.copy(shutil.which("busybox") or "", self.context / "busybox")
        self.aerogel = Aerogel(folder / "state")
        self.last: dict = {}

    def write(self, name: str, text: str) -> None:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def build(self, dockerfile: str, *words: str, **options) -> dict[str, str]:
        self.write("Dockerfile", HEAD + dockerfile)
        done = self.aerogel("build", str(self.context), "--json", "--progress=plain", *words, **options)
        self.last = json.loads(done.stdout)
        return {step["name"]: step["status"] for step in self.last["steps"]}

    def fail(self, dockerfile: str, *words: str, **options) -> subprocess.CompletedProcess[str]:
        self.write("Dockerfile", HEAD + dockerfile)
        done = self.aerogel("build", str(self.context), "--progress=plain", *words, check=False, **options)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done

    @property
    def blobs(self) -> Path:
        return self.aerogel.state / "data/blobs/sha256"
