"""Debian's docker-registry on loop-back, started by a test and stopped by it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple


class Server(NamedTuple):
    host: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


def start(folder: Path, extra: dict[str, object], http: dict[str, object]) -> tuple[Server, subprocess.Popen[bytes]]:
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "for tests", **http},
        **extra,
    }
    (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.json")], stdout=log, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return Server(f"127.0.0.1:{port}", folder), process
        except OSError:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
    process.kill()
    raise AssertionError("docker-registry does not answer")
