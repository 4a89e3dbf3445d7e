"""The examples of the documents and of the commands' help, as a reader would type them.

`tests/house` parses every one; here those run that need neither a network, nor a terminal, nor a sandbox. They share
a folder and a store, as a reader's do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from process import ROOT

from aerogel.commands.table import COMMANDS

DOCKERFILE = """\
FROM scratch AS test
ARG VERSION
COPY src /src
LABEL version=$VERSION
FROM scratch
COPY --from=test /src /app
ENTRYPOINT ["/app/main"]
"""

BAKE = """\
group "default" {
  targets = ["app", "web"]
}
target "app" {
  tags = ["app"]
}
target "web" {
  target = "test"
  platforms = ["linux/amd64"]
}
"""

STRUCTURE = """\
schemaVersion: 2.0.0
fileExistenceTests:
  - {name: program, path: /app/main, shouldExist: true}
"""

FILES = {"structure.yaml": STRUCTURE}

PREPARED = (
    "aerogel build -t app .",
    "aerogel tag app app:old",
    "aerogel build --target test -t lib .",
    *(f"aerogel build --platform linux/{each} -t team/app:1-{each} ." for each in ("amd64", "arm64", "arm", "riscv64")),
)

ELSEWHERE = re.compile(
    r"""https?:// | \.example | \bdocker\b(?!/Dockerfile) | alpine | oci-layout: | git\ archive | \.\./lib  # other places
    | aerogel\ (run|exec|debug|logs|stop|kill|start|restart|wait|rm|login|registry|copy)\b  # sandboxes, registries
    | aerogel\ (attach|cp|port|top|stats|rename|pause|unpause|volume\ rm)\b | State\.Status  # containers
    | aerogel\ base\ (build|lock|update|diff|why|vendor|init$) | base\.yaml  # packages, a base of one's own
    | (aerogel\ test|save).*--platform | manifest\ annotate | --about  # other platforms, a scanner's report
    | cache\ rm\ / | cache\ (import|export\ -o) | zstd | \bdot\b(?!\ docker) | RUN\ make | 4f3c2b1a  # what is not there
    | type=s3 | Dockerfile\.new | examples/ | \bcalculator\b | ^\./aerogel | --push | alias\ """,
    re.VERBOSE,
)
"""Examples that need more than this test has; those under `examples/` have tests of their own."""


def of_documents() -> list[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [each for page in pages for each in re.findall(r"(?ms)^```console\n(.*?)^```", page.read_text())]
    return [line.strip() for block in blocks for line in block.splitlines() if "aerogel" in line]


def of_commands() -> list[str]:
    return [line for one in COMMANDS for _, line in getattr(import_module(one.module), "EXAMPLES", ())]


def examples() -> list[str]:
    found = dict.fromkeys([*of_documents(), *of_commands()])
    return [line for line in found if ELSEWHERE.search(line) is None]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project, and the environment in which `aerogel` is this one."""
    home = tmp_path_factory.mktemp("reader")
    project = home / "project"
    for name in ("src", "docker", "services/web"):
        (project / name).mkdir(parents=True)
    (project / "src/main").write_text("main")
    (project / "docker-bake.hcl").write_text(BAKE)
    for name in ("Dockerfile", "docker/Dockerfile", "services/web/Dockerfile"):
        (project / name).write_text(DOCKERFILE)
    for name in ("bin", ".zfunc", ".config/fish/completions", ".local/share/bash-completion/completions"):
        (home / name).mkdir(parents=True)
    shim = home / "bin/aerogel"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aerogel "$@"\n')
    shim.chmod(0o755)
    path = f"{home}/bin:{os.defpath}"
    env = {"PATH": path, "HOME": str(home), "PYTHONPATH": str(ROOT / "src"), "AEROGEL_ROOT": str(home / "state")}
    for name, text in FILES.items():
        (project / name).write_text(text)
    for line in PREPARED:
        subprocess.run(["sh", "-c", line], cwd=project, env=env, check=True, capture_output=True)
    return project, env


def test_enough_examples_run() -> None:
    assert len(examples()) > 40


@pytest.mark.parametrize("line", examples())
def test_example(reader: tuple[Path, dict[str, str]], line: str) -> None:
    project, env = reader
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
