"""`aerogel build --verify`: two builds under other conditions, the first file that differs, and the likely cause.

Debian package: busybox-static.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = pytest.mark.host("busybox")

HEAD = """\
FROM scratch
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
"""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.context = folder / "context"
        self.context.mkdir()
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, self.context / "busybox")
        for name in ("b", "a", "c"):
            (self.context / name).write_text(name)
        self.aerogel = Aerogel(folder / "state")
        self.aerogel.env.pop("SOURCE_DATE_EPOCH", None)

    def verify(self, dockerfile: str, *words: str) -> subprocess.CompletedProcess[str]:
        (self.context / "Dockerfile").write_text(HEAD + dockerfile)
        command = ("build", "--verify", str(self.context), "--progress=plain", *words)
        return self.aerogel(*command, check=False)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("verify"))


def test_what_is_the_same(bench: Bench) -> None:
    done = bench.verify("COPY . /src/\nWORKDIR /work\nRUN ls -lR /src > list && date > /dev/null && gzip -c list > z\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reproducible: two builds gave `sha256:")
    scratch = [*bench.aerogel.state.glob("*/scratch/*")]
    assert scratch == [], "the second build leaves nothing behind"


@pytest.mark.parametrize(
    ("step", "path", "cause"),
    [
        ("date > /stamp", "/stamp", "a date"),
        ("date +%s%N > /stamp", "/stamp", "a date"),
        ("head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n' > /id", "/id", "something random"),
        ("cat /proc/sys/kernel/random/uuid > /id", "/id", "something random"),
        ("mkdir -p /etc/ssh && cat /proc/sys/kernel/random/uuid > /etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_rsa_key", "a random key"),
        ("mkdir -p /var/log && date > /var/log/my.log", "/var/log/my.log", "a log with dates"),
        ("mktemp -d /opt.XXXXXX", "/opt.", "a name that differs from run to run"),
        ("(seq 100; cat /proc/sys/kernel/random/uuid) | md5sum | cut -c1-3 > /n; seq 1 2000 | shuf > /order", "/order", "order"),
        ("mkdir -p /run && cut -d. -f1 /proc/uptime > /run/x.pid", "/run/x.pid", "the number of a process"),
    ],
    ids=["date", "seconds", "bytes", "uuid", "key", "log", "name", "order", "pid"],
)  # fmt: skip
def test_what_differs(bench: Bench, step: str, path: str, cause: str) -> None:
    step = step.replace("md5sum | cut -c1-3 > /n", "cat > /dev/null")
    done = bench.verify(f"RUN {step}\n", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["is_reproducible"] is False
    assert found["digest"] != found["second_digest"]
    difference = found["difference"]
    assert difference["path"].startswith(path)
    assert difference["cause"].startswith(cause), difference
    assert difference["layer"] == 3
    assert difference["step"].startswith("RUN /bin/sh -c ")


def test_what_is_said(bench: Bench) -> None:
    done = bench.verify("RUN echo built > /a; cat /proc/sys/kernel/random/uuid > /id\n")
    lines = done.stdout.splitlines()
    assert lines[0] == "not reproducible: two builds differ first in content of `/id`"
    assert lines[1].startswith("  in      layer 3: `RUN /bin/sh -c echo built > /a; ")
    assert lines[2].startswith("  first   at byte ")
    assert lines[3].startswith("  second  at byte ")
    assert lines[4] == "  likely  something random: an identity, a key, a salt"


def test_a_time(bench: Bench) -> None:
    """One that the step sets itself stays."""
    done = bench.verify(
        "RUN touch /f && touch -d @$(( $(cut -d. -f1 /proc/uptime) * 1 )) /f\n",
        "--json",
        "--build-arg=SOURCE_DATE_EPOCH=1700000000",
    )
    difference = json.loads(done.stdout)["difference"]
    assert (difference["what"], difference["path"]) == ("time", "/f")
    assert difference["cause"] == "the time of the step: it was set by the step itself, so it was kept"


def test_the_old_way_is_not_reproducible(bench: Bench) -> None:
    done = bench.verify("RUN sleep 1.1\n", "--timestamps=keep", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["difference"]["what"] in ("time", "config")


def test_a_step_that_fails_the_second_time(bench: Bench) -> None:
    mount = "--mount=type=cache,target=/c"
    done = bench.verify(f"RUN {mount} true\nRUN {mount} test -e /c/seen || {{ touch /c/seen; test ! -e /never; }}\n")
    assert done.returncode == 0, "a cache mount of the second build is a new one"
    done = bench.verify("RUN test $(( $(cat /sys/kernel/uevent_seqnum 2>/dev/null || echo 0) )) -ge 0 && test -w /\n")
    assert done.returncode == 0


def test_standard_input_cannot_be_read_twice(bench: Bench) -> None:
    done = bench.aerogel("build", "--verify", "-", check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: `--verify` reads the sources twice, and standard input can be read once\n"
        "hint: give the context as a folder and the Dockerfile as a file\n"
    )
