"""A build that is killed, at any moment: the next one uses the store without complaint and makes the same image.

Whatever the killed build had started is found by making this process the reaper of orphans, so that nothing can hide in
a session or namespace of its own.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input import leftovers
from process import Aerogel

pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.slow]

SEED = 20261121
STEP_KILLS = 16
COMPOSE_KILLS = 4
PR_SET_CHILD_SUBREAPER = 36
DOCKERFILE = """\
FROM debian AS build
WORKDIR /src
COPY files /src/files
RUN for i in 1 2 3 4 5 6 7 8 9; do mkdir -p d/$i; for j in 1 2 3 4 5 6 7 8 9; do echo $i.$j > d/$i/$j; done; done
RUN rm -r d/7 && chmod 700 d/8 && ln d/9/1 d/9/one && head -c 6000000 /dev/zero | tr '\\\\0' x > big
FROM build AS other
RUN sleep 0.1; cat files/* | sha256sum > sum

FROM scratch
COPY --from=build /src /src
COPY --from=other /src/sum /sum
COPY files /files
LABEL done=yes
"""


@pytest.fixture(autouse=True, scope="module")
def reaper() -> Iterator[None]:
    """Orphans of what a test starts become children of this process."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    assert prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@pytest.fixture(scope="module")
def aerogel(aerogel: Aerogel) -> Aerogel:
    """Each process that a test leaves is found."""
    return aerogel.alone()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "files").mkdir()
    for number in range(40):
        (folder / "files" / f"{number}.bin").write_bytes(random.Random(number).randbytes(100_000))
    return folder


@pytest.fixture(scope="module")
def undisturbed(aerogel: Aerogel, context: Path) -> str:
    """The image id of a build that nobody disturbs, in another store; its cache has the base and its packages."""
    return aerogel.json("build", str(context))["image_id"]


def children() -> set[int]:
    """The processes below this one, each reaped if it has ended."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(map(int, (task / "children").read_text().split()))
    return {pid for pid in found if not reaped(pid)}


def reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def mounts(state: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(state) in line]


class Running:
    """A build in the background, in a process group of its own as a shell makes it."""

    def __init__(self, aerogel: Aerogel, *words: str) -> None:
        self.before = children()
        self.aerogel = aerogel
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            aerogel.argv(*words),
            env=aerogel.env,
            cwd=aerogel.checkout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )

    def wait_for(self, text: str) -> str:
        """Reads the output up to a line with the text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return line
        raise AssertionError(f"no line has {text!r}")

    def signal_after(self, seconds: float, number: int, *, group: bool = False) -> tuple[int, str]:
        """Waits, sends the signal, and returns exit status and output when everything is gone."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, number)
        try:
            output = self.process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still there after signal {number}: {error.output}") from error
        deadline = time.monotonic() + 60
        while (left := children() - self.before) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
        assert mounts(self.aerogel.state) == []
        return self.process.returncode, output


def build_again(aerogel: Aerogel, context: Path, *words: str) -> str:
    """The build after a killed one: no word of complaint, nothing left of the other; the image id."""
    done = aerogel("build", str(context), "--progress=plain", *words)
    said = [line for line in done.stderr.splitlines() if not line.startswith(("#", "FROM ", "image "))]
    assert said == []
    assert leftovers(aerogel.state, locks=False) == []
    return done.stdout.strip()


def moments(number: int, length: float) -> list[float]:
    """Random moments, one in each of as many parts of the time that the build takes."""
    chance = random.Random(SEED)
    return [(part + chance.random()) * length / number for part in range(number)]


def test_killed_in_steps(aerogel: Aerogel, context: Path, undisturbed: str) -> None:
    began = time.monotonic()
    assert build_again(aerogel, context, "--no-cache") == undisturbed
    length = time.monotonic() - began
    killed = 0
    for number, part in enumerate(moments(STEP_KILLS, 1.0)):
        running = Running(aerogel, "build", str(context), "--no-cache")
        moment = part * length
        status, output = running.signal_after(moment, signal.SIGKILL)
        assert status in (-signal.SIGKILL, 0), output
        killed += status != 0
        if status == 0:  # it was faster: a build takes as long as what else the host does lets it
            length = min(length, moment) * 0.8
        words = ["--no-cache"] if number % 2 else []
        assert build_again(aerogel, context, *words) == undisturbed, f"killed after {moment:.2f} s"
    assert killed > STEP_KILLS // 2


def test_killed_while_composing(aerogel: Aerogel, context: Path, undisturbed: str, tmp_path: Path) -> None:
    """Each kill leaves what it was about to do to the next build, which is killed later or, at the end, completes."""
    packages = aerogel.state / "cache" / "debian-v1"
    disturbed = Aerogel(tmp_path / "state").alone()
    shutil.copytree(packages, disturbed.state / "cache" / "debian-v1")
    for moment in (0.6, 1.7, 3.1, 4.6)[:COMPOSE_KILLS]:
        status, output = Running(disturbed, "build", str(context)).signal_after(moment, signal.SIGKILL)
        assert status == -signal.SIGKILL, output
    assert build_again(disturbed, context) == undisturbed


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("text", ["FROM debian", "RUN for", "COPY --from=build"])
def test_interrupted(aerogel: Aerogel, context: Path, undisturbed: str, number: int, expected: int, text: str) -> None:
    """Ctrl-C goes to every process of the terminal; all is cleaned before the command ends."""
    running = Running(aerogel, "build", str(context), "--no-cache", "--progress=plain")
    running.wait_for(text)
    status, output = running.signal_after(0, number, group=number == signal.SIGINT)
    assert status == expected, output
    assert "Traceback" not in output
    assert output.splitlines()[-1] in ("canceled", "terminated")
    assert leftovers(aerogel.state, locks=False) == []
    assert build_again(aerogel, context) == undisturbed


def test_killed_as_ordinary_user(ordinary: Aerogel, context: Path, undisturbed: str) -> None:
    """What belongs to subordinate ids can only be removed by the helper, and is."""
    assert ordinary.checkout is not None
    own = ordinary.checkout.parent / "kill"
    shutil.copytree(context, own)
    own.chmod(0o755)
    assert ordinary("build", str(own)).stdout.strip() == undisturbed
    running = Running(ordinary, "build", str(own), "--no-cache", "--progress=plain")
    running.wait_for("RUN for")
    status, _ = running.signal_after(0, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert build_again(ordinary, own, "--no-cache") == undisturbed
