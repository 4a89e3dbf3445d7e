"""All tests of this directory, and the red team's, again as a real ordinary user with subordinate ids, and one without.

Needs root, and a Python of the same version that other users may execute. Debian packages: uidmap, passwd.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import aerogel

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can make the accounts"),
]

NAME = "aerogel-test"
HERE = Path(__file__).parent


def may_execute(path: str) -> bool:
    """Whether another user can execute it: every directory above lets everybody through."""
    real = Path(os.path.realpath(path))
    return all(os.stat(parent).st_mode & 0o001 for parent in (real, *real.parents))


def other_python() -> str:
    version = f"python3.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if os.path.exists(candidate) and may_execute(candidate):
            return candidate
    pytest.skip(f"no {version} that other users may execute")


@pytest.fixture(params=["subid", "none"])
def account(request):
    """A fresh account, with and without subordinate ids, and a directory of its own."""
    if shutil.which("useradd") is None:
        pytest.skip("no useradd")
    name = f"{NAME}-{request.param}"
    subprocess.run(["userdel", "-r", name], capture_output=True)
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True, capture_output=True)
    try:
        if request.param == "none":
            drop_ranges(name)
        elif not has_range(name):
            ranges = ["--add-subuids", "700000-765535", "--add-subgids", "700000-765535"]
            subprocess.run(["usermod", *ranges, name], check=True)
        yield request.param, name
    finally:
        subprocess.run(["userdel", "-r", name], check=False, capture_output=True)


def has_range(name: str) -> bool:
    return any(line.startswith(f"{name}:") for line in Path("/etc/subuid").read_text().split("\n"))


def drop_ranges(name: str) -> None:
    """useradd of Debian gives every new account a range."""
    for kind in ("uid", "gid"):
        for line in Path(f"/etc/sub{kind}").read_text().split("\n"):
            owner, _, rest = line.partition(":")
            if owner == name:
                start, _, count = rest.partition(":")
                last = int(start) + int(count) - 1
                subprocess.run(["usermod", f"--del-sub{kind}s", f"{start}-{last}", name], check=True)


def as_user(name: str, *arguments: str) -> subprocess.CompletedProcess:
    home = Path(f"/home/{name}")
    source = home / "src"
    if not source.exists():
        shutil.copytree(Path(aerogel.__file__).parent, source / "aerogel", ignore=shutil.ignore_patterns("__pycache__"))
        for place, copy in (
            (HERE, "tests"),
            (HERE.parents[1] / "support", "support"),
            (HERE.parents[1] / "redteam", "redteam"),
        ):
            shutil.copytree(place, home / copy, ignore=shutil.ignore_patterns("__pycache__"))
        marks = (
            '[tool.pytest.ini_options]\nmarkers = ["host: x", "slow: x", "network: x"]\nfilterwarnings = ["error"]\n'
        )
        (home / "pyproject.toml").write_text(marks)
    return subprocess.run(
        [other_python(), "-B", *arguments],
        user=name,
        group=name,
        extra_groups=[],
        cwd=home,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": f"{source}:{home / 'support'}:{sysconfig.get_path('purelib')}",
            "TMPDIR": str(home),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_as_an_ordinary_user(account):
    _, name = account
    done = as_user(
        name,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-rs",
        "tests",
        "redteam",
        "--ignore=tests/test_emulation.py",
        "--ignore=tests/test_many_steps.py",
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    skipped = [line for line in done.stdout.split("\n") if line.startswith("SKIPPED")]
    unexpected = [line for line in skipped if "accounts" not in line and "taken away" not in line]
    assert unexpected == []
