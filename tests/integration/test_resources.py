"""`--memory` and `--cpus`: held by a control group where one can be made, else a warning; no group is left.

Debian packages: busybox-static.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from process import Aerogel

from aerogel.errors import AerogelError
from aerogel.sandbox.cgroup import Resources, make_group

pytestmark = pytest.mark.host("busybox")

HEAD = """FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-ec"]
ENV PATH=/bin
RUN ["/bin/busybox", "--install", "-s", "/bin"]
"""


def why_not() -> str:
    try:
        make_group(Resources(64 << 20, 0.5)).close()
    except AerogelError as error:
        return error.message
    return ""


def context(folder: Path, text: str) -> Path:
    folder.mkdir()
    shutil.copy(shutil.which("busybox") or "", folder / "busybox")
    (folder / "Dockerfile").write_text(HEAD + text)
    return folder


def groups() -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").rglob("aerogel-[0-9]*-[0-9]*") if path.is_dir()]


@pytest.mark.skipif(bool(why_not()), reason=f"this host allows no control group: {why_not()}")
def test_memory_and_processors_are_held(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    folder = context(tmp_path / "context", "RUN x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}\n")
    done = aerogel("build", "--progress=plain", "--memory=64m", str(folder), check=False)
    assert done.returncode == 1
    assert "error: RUN failed: it was killed because memory ran out\n" in done.stderr
    assert "hint: the limit of `--memory`" in done.stderr
    assert groups() == []
    text = "RUN cat /proc/self/cgroup; timeout 1 sh -c 'while :; do :; done' || cat /proc/uptime >/dev/null; times\n"
    folder = context(tmp_path / "busy", text)
    done = aerogel("build", "--progress=plain", "--cpus=0.1", str(folder))
    assert "/aerogel-" in done.stderr
    used = [line.split()[-1] for line in done.stderr.splitlines() if line.count("m") == 2 and line.endswith("s")]
    seconds = sum(float(each.split("m")[1].rstrip("s")) for each in used)
    assert seconds < 0.6, done.stderr
    assert groups() == []


@pytest.mark.skipif(os.getuid() != 0, reason="the account is made by root")
def test_a_warning_where_none_can_be_made(ordinary: Aerogel) -> None:
    folder = context(Path(ordinary.env["HOME"]) / "limits", "RUN true\nRUN echo done\n")
    done = ordinary("build", "--progress=plain", "--memory=64m", "--cpus=2", str(folder))
    said = (
        "warning: `--memory` and `--cpus` cannot be held here: no control group can be made: permission denied\nhint: "
    )
    assert done.stderr.count(said) == 1, done.stderr
    assert "#4 done\n" in done.stderr


@pytest.mark.parametrize(("word", "code"), [("--cpus=many", "number of processors"), ("--memory=lots", "not a size")])
def test_what_is_no_limit(tmp_path: Path, word: str, code: str) -> None:
    done = Aerogel(tmp_path)("build", word, str(tmp_path), check=False)
    assert (done.returncode, code in done.stderr) == (2, True), done.stderr


@pytest.mark.skipif(bool(why_not()), reason=f"this host allows no control group: {why_not()}")
def test_a_container_is_held(tmp_path: Path) -> None:
    """Memory, processors and processes of `run`, in the foreground, in the background and of what joins."""
    aerogel = Aerogel(tmp_path / "state")
    folder = context(tmp_path / "context", 'ENTRYPOINT ["/bin/sh", "-c"]\n')
    aerogel("build", "--progress=plain", "-t", "held", str(folder))
    eats = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"
    done = aerogel("run", "-m", "64m", "held", eats, check=False)
    assert (done.returncode, "out of memory" in done.stderr) == (137, True), done.stderr
    forks = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait; echo all"
    done = aerogel("run", "--pids-limit", "8", "held", forks.replace("sleep 1", "sleep 60"), check=False)
    assert (done.returncode, done.stdout, "can't fork" in done.stderr) == (2, "", True), done
    done = aerogel("run", "--pids-limit", "20", "held", forks)
    assert done.stdout == "all\n"
    name = aerogel("run", "-d", "--rm", "--memory=64m", "--cpus=0.5", "held", "sleep 60").stdout.strip()
    try:
        own = aerogel("exec", name, "cat", "/proc/1/cgroup", "/proc/self/cgroup").stdout
        assert len({line.split(":", 1)[1] for line in own.splitlines() if "/aerogel-" in line}) == 2, own
        done = aerogel("exec", name, "sh", "-c", eats, check=False)
        assert done.returncode == 137, done
    finally:
        aerogel("kill", name, check=False)
    assert groups() == []


@pytest.mark.skipif(os.getuid() != 0, reason="the account is made by root")
def test_a_container_without_a_group_is_warned_of(ordinary: Aerogel) -> None:
    folder = context(Path(ordinary.env["HOME"]) / "free", 'ENTRYPOINT ["/bin/echo"]\n')
    ordinary("build", "--progress=plain", "-t", "free", str(folder))
    done = ordinary("run", "--memory=64m", "--cpus=1", "--pids-limit=9", "free", "done")
    said = "`--memory` and `--cpus` and `--pids-limit` cannot be held here: no control group can be made: permission denied"
    assert (done.stdout, said in done.stderr, "Delegate=yes" in done.stderr) == ("done\n", True, True), done.stderr
