"""A docker daemon of a test alone, on a socket of its own and without network. Debian package: docker.io."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


@contextlib.contextmanager
def own_docker(state: Path, more: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """The environment of a client that speaks to it. `more` are more words for the daemon."""
    if os.getuid() != 0:
        pytest.skip("dockerd needs root")
    host = f"unix://{state}/d.sock"
    words = ["dockerd", "--iptables=false", "--ip-masq=false", "--bridge=none", "--storage-driver=vfs", "-H", host]
    words += ["--data-root", f"{state}/data", "--exec-root", f"{state}/exec", "-p", f"{state}/pid", *more]
    with (state / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as daemon:
        env = {"DOCKER_HOST": host}
        try:
            for _ in range(300):
                if daemon.poll() is not None:
                    pytest.skip(f"dockerd does not start here: {(state / 'log').read_text()[-300:]}")
                told = subprocess.run(["docker", "version"], env={**os.environ, **env}, capture_output=True)
                if told.returncode == 0:
                    break
                time.sleep(0.1)
            yield env
        finally:
            daemon.terminate()
            daemon.wait(60)
