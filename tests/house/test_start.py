"""What a start costs: modules that are imported, and processor time against Python's own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

HEAVY = {"asyncio", "ssl", "http", "http.client", "email", "rich", "urllib3", "urllib.request", "sqlite3", "logging"}
TYPED = {"msgspec", "argparse", "typing", "dataclasses", "pathlib", "json", "re", "subprocess", "threading"}


def loaded(*words: str, tmp_path: Path) -> set[str]:
    """The modules that one run of the command line leaves in `sys.modules`."""
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(SOURCE)!r})\n"
        "from aerogel.cli.main import main\n"
        f"status = main({list(words)!r})\n"
        "sys.stdout.flush()\n"
        "names = sorted(sys.modules)\n"
        "import json\n"
        "sys.stderr.write('\\n' + json.dumps([status, names]))\n"
    )
    environ = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, env=environ, cwd=tmp_path
    )
    status, names = json.loads(done.stderr.splitlines()[-1])
    assert status == 0, done.stderr
    return set(names)


def test_version_imports_nothing(tmp_path):
    names = loaded("--version", tmp_path=tmp_path)
    assert not names & (HEAVY | TYPED)
    assert {one for one in names if one.startswith("aerogel")} == {"aerogel", "aerogel.cli", "aerogel.cli.main"}


def test_overview_imports_no_command(tmp_path):
    names = loaded("--help", tmp_path=tmp_path)
    assert not names & (HEAVY | TYPED)
    assert {one for one in names if one.startswith("aerogel.commands")} == {
        "aerogel.commands",
        "aerogel.commands.table",
    }


@pytest.mark.parametrize("command", ["build", "version"])
def test_help_of_a_command_imports_that_command(command, tmp_path):
    names = loaded(command, "--help", tmp_path=tmp_path)
    assert not names & (HEAVY | {"zstandard", "deflate", "isal", "pysequoia", "yaml", "tomllib", "shtab"})


NO_OP = {"aerogel", "aerogel.cli", "aerogel.cli.main", "aerogel.cli.replay", "aerogel.witness"}
"""All of aerogel that a build with nothing to do imports."""

BESIDE = {"_blake2", "__future__"}
"""All else that it imports, beside what Python has at its start."""


def test_a_build_with_nothing_to_do_imports_next_to_nothing(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    (tmp_path / "file").write_text("content")
    time.sleep(0.06)
    loaded("build", ".", tmp_path=tmp_path)
    assert "aerogel.solve.solver" in loaded("build", ".", tmp_path=tmp_path)
    plain = loaded("--version", tmp_path=tmp_path)
    names = loaded("build", ".", tmp_path=tmp_path)
    assert {name for name in names if name.startswith("aerogel")} == NO_OP
    assert names - plain - NO_OP <= BESIDE


def test_a_build_with_nothing_to_do_costs_little_more_than_python(tmp_path):
    """The goal is 50 ms in all; Python alone takes 10 to 20 of them."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    (tmp_path / "file").write_text("content")
    time.sleep(0.06)
    program = (
        f"import os, sys; sys.path.insert(0, {str(SOURCE)!r}); os.environ['AEROGEL_ROOT'] = {str(tmp_path)!r}\n"
        f"from aerogel.cli.main import main; main(['build', '-q', {str(tmp_path)!r}])"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-I", "-c", program], check=True, stdout=subprocess.DEVNULL)
    assert cpu_s("-c", program) < cpu_s("-c", "pass") + 0.03


def cpu_s(*words: str) -> float:
    """The least processor time of a few runs of Python with these words, in seconds."""
    best = 1e9
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-I", *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def test_version_costs_less_than_importing_argparse():
    program = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from aerogel.cli.main import main; main(['--version'])"
    assert cpu_s("-c", program) < cpu_s("-c", "import argparse") + 0.005


def test_parsing_a_command_line_stays_cheap():
    """Reading the options of `build`, the way to a build that has nothing to do: under 120 ms beyond Python itself."""
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from aerogel.commands.table import find_command\n"
        "from aerogel.cli.parse import parse, specification\n"
        "from aerogel.settings import load_settings\n"
        "command, words = find_command(['build', '-t', 'a', '--build-arg', 'A=1', '.'])\n"
        "assert parse(specification(command), words, load_settings({'HOME': '/'}, '/')).options.context == '.'\n"
    )
    assert cpu_s("-c", program) < cpu_s("-c", "pass") + 0.12
