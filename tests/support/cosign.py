"""The real cosign: the package of Debian 13, fetched by aerogel's own client, which runs on Debian 12 too."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aerogel.debian.archive import Archive
from aerogel.debian.deb import open_deb
from aerogel.debian.mirror import discover
from aerogel.net.http import Http


class Cosign:
    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, *words: str, password: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "COSIGN_PASSWORD": password, "SIGSTORE_NO_CACHE": "1", "HOME": str(self.program.parent)}
        done = subprocess.run([self.program, *words], capture_output=True, text=True, env=env, timeout=120)
        if check and done.returncode != 0:
            raise AssertionError(f"cosign {words}: {done.stderr}")
        return done


def fetch(folder: Path) -> Cosign:
    """Skips where the machine has no package of it."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    if machine is None:
        pytest.skip(f"no package of cosign for {os.uname().machine}")
    archive = Archive(discover(), folder / "cache", Http())
    package = archive.index("trixie", "main", machine).named("cosign")[-1]
    program = folder / "cosign"
    with open_deb(archive.fetch(package)) as deb:
        for entry, content in deb.entries():
            if entry.path == b"usr/bin/cosign" and content is not None:
                with program.open("wb") as file:
                    shutil.copyfileobj(content, file)
    program.chmod(0o755)
    return Cosign(program)
