"""`./aerogel`: the first start, two at once, one that was killed, a changed lock file, later starts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aerogel import __version__

ROOT = Path(__file__).resolve().parents[2]
SAID = f"aerogel version {__version__}\n"


def entry(name: str) -> str:
    """The lines of one package in the real lock file."""
    found = re.search(rf"(?ms)^{name}==.*?(?=^\S|\Z)", (ROOT / "requirements.lock").read_text())
    assert found is not None
    return found.group()


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose lock file names one small package, so that a first start takes a few seconds."""
    folder = tmp_path / "a checkout"
    for name in ("tools", "src/aerogel"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "aerogel", folder)
    (folder / "requirements.lock").write_text(entry("mdurl"))
    return folder


def start(checkout, tmp_path, *words, **environ):
    environ = {**os.environ, "AEROGEL_ROOT": str(tmp_path / "state"), "AEROGEL_PYTHON": sys.executable, **environ}
    return subprocess.Popen(
        [checkout / "aerogel", *(words or ["--version"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        start_new_session=True,
    )


def environments(tmp_path):
    folder = tmp_path / "state/cache/environments-v1"
    return sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.endswith(".new"))


@pytest.mark.network
def test_killed_then_two_at_once_then_another_lock_file(checkout, tmp_path):
    first = start(checkout, tmp_path)
    assert "first start" in first.stderr.readline()
    time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert environments(tmp_path) == []
    both = [start(checkout, tmp_path) for _ in range(2)]
    out = [one.communicate(timeout=300) for one in both]
    assert [one[0] for one in out] == [SAID, SAID]
    assert sum("installed 1 packages" in one[1] for one in out) == 1
    assert len(environments(tmp_path)) == 1
    assert list(tmp_path.glob("state/cache/environments-v1/*/env-blocks-signals")), "`env` is GNU's on test machines"
    again = start(checkout, tmp_path)
    assert again.communicate(timeout=60) == (SAID, "")
    (checkout / "requirements.lock").write_text(entry("mdurl") + entry("shtab"))
    assert "installing 2 packages" in start(checkout, tmp_path).communicate(timeout=300)[1]
    assert len(environments(tmp_path)) == 2


@pytest.mark.network
def test_wrong_hash_is_refused_and_leaves_nothing(checkout, tmp_path):
    lock = re.sub(r"sha256:\w{8}", "sha256:00000000", entry("mdurl"))
    (checkout / "requirements.lock").write_text(lock)
    process = start(checkout, tmp_path)
    out, err = process.communicate(timeout=300)
    assert (out, process.returncode) == ("", 3)
    assert "pip could not install what aerogel needs" in err
    assert environments(tmp_path) == []


def test_no_package_index(checkout, tmp_path):
    """Nobody listens there: one line says so, not pip's warnings of each try."""
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    process = start(checkout, tmp_path, **nowhere, PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL="")
    out, err = process.communicate(timeout=300)
    assert (out, process.returncode) == ("", 4)
    lines = err.splitlines()
    assert lines[1] == "error: pip cannot reach the package index: connection refused"
    assert lines[-1] == "hint: check the network and pip's configuration (`pip config list`)"
    assert "WARNING" not in err
    assert environments(tmp_path) == []


def test_a_later_start_runs_one_small_program_and_then_python(checkout, tmp_path):
    """What a later start adds to the plain entry point: a hash of the lock file. Nothing else is even on the path."""
    lock = hashlib.sha256((checkout / "requirements.lock").read_bytes()).hexdigest()
    environment = tmp_path / "state/cache/environments-v1" / lock
    (environment / "bin").mkdir(parents=True)
    (environment / "complete").touch()
    (environment / "bin/python").write_text('#!/bin/sh\necho "$PPID" "$@"\n')
    (environment / "bin/python").chmod(0o755)
    (tmp_path / "path").mkdir()
    (tmp_path / "path/sha256sum").symlink_to(shutil.which("sha256sum"))
    process = start(checkout, tmp_path, "images", "-q", PATH=str(tmp_path / "path"))
    out, err = process.communicate(timeout=60)
    assert (out, err) == (f"{os.getpid()} -I -S {checkout}/tools/start.py images -q\n", ""), "python takes its place"


def test_an_interrupt_waits_while_python_starts(checkout, tmp_path):
    lock = hashlib.sha256((checkout / "requirements.lock").read_bytes()).hexdigest()
    environment = tmp_path / "state/cache/environments-v1" / lock
    (environment / "bin").mkdir(parents=True)
    (environment / "complete").touch()
    (environment / "env-blocks-signals").touch()
    (environment / "bin/python").write_text("#!/bin/sh\nexec grep SigBlk /proc/self/status\n")
    (environment / "bin/python").chmod(0o755)
    out, err = start(checkout, tmp_path, "images").communicate(timeout=60)
    assert (int(out.split()[1], 16), err) == (1 << signal.SIGINT - 1, "")


def test_what_the_launcher_runs_takes_an_interrupt_that_has_waited():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        words = [sys.executable, "-I", "-S", ROOT / "tools/start.py", "doctor", "--offline"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "canceled\n")
    assert process.returncode == 130


def test_what_the_launcher_runs_imports_no_more_than_the_entry_point():
    words = ["-I", "-S", "-X", "importtime", str(ROOT / "tools/start.py"), "--version"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.stdout == SAID
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert "site" not in names, "an interrupt in it would be a traceback"
    assert names[names.index("aerogel") :] == ["aerogel", "aerogel.cli", "__future__", "aerogel.cli.main"]


def test_the_packages_of_the_environment_are_found_without_site():
    """As the launcher starts it; `version` lists all packages."""
    words = ["-I", "-S", str(ROOT / "tools/start.py"), "version", "--json"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["parts"]["msgspec"] is not None


def test_through_a_link_and_with_a_missing_interpreter(checkout, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(checkout / "aerogel")
    process = subprocess.run(
        [link, "--version"],
        capture_output=True,
        text=True,
        env={"PATH": os.defpath, "AEROGEL_ROOT": str(tmp_path / "s"), "AEROGEL_PYTHON": "no-such-python"},
    )
    assert process.returncode == 3
    assert process.stderr.startswith(
        "error: aerogel needs Python 3.11 or newer, and there is no `no-such-python`\nhint:"
    )


def test_missing_venv_module_is_named(tmp_path):
    program = (
        "import runpy, sys\n"
        "sys.modules['ensurepip'] = None\n"
        f"sys.argv = ['environment.py', {str(tmp_path / 'e')!r}, {str(ROOT / 'requirements.lock')!r}]\n"
        f"runpy.run_path({str(ROOT / 'tools/environment.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 3
    assert "hint: on Debian: apt-get install python3-venv" in done.stderr
