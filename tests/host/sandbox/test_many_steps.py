"""Many steps, side by side and one after the other, and ends at random moments: nothing grows and nothing is left.

`AEROGEL_TEST_STEPS` makes it as many as the release does by hand: 10000.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from boxes import gone, mounts_below

from aerogel.sandbox.launch import Helper
from aerogel.sandbox.plain import descendants
from aerogel.sandbox.spec import Rootfs, Sandbox

pytestmark = pytest.mark.host
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root has this rung besides the best one")

STEPS = int(os.environ.get("AEROGEL_TEST_STEPS", "200"))
KILLS = int(os.environ.get("AEROGEL_TEST_KILLS", "200"))
SEED = 20261121
WITHOUT_RIGHTS = {"proot": ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]}
KILLS_OF = {"auto": KILLS, "chroot": KILLS // 5, "proot": KILLS // 5}
MOTHER = """
import os, signal, sys, threading
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import *
null = os.open(os.devnull, os.O_RDWR)
signal.signal(signal.SIGINT, signal.default_int_handler)

def main(state, layer, mark):
    with Helper.start(state, isolation=sys.argv[1], preload=()) as helper:
        script = f"trap '' INT HUP; setsid nohup sleep {mark} & echo x >/tmp/x; sleep 0.01"
        def work():
            while True:
                with helper.run(Sandbox(argv=("sh", "-c", script), root=Rootfs(lowers=(layer,))), stdout=null, stderr=null) as one:
                    one.wait()
        for _ in range(2):
            threading.Thread(target=work, daemon=True).start()
        os.write(1, b"%d\\n" % os.getpid())
        threading.Event().wait()

for line in sys.stdin:
    if not os.fork():
        main(*line.rstrip("\\n").split("\\t"))
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                break
        except ChildProcessError:
            break
"""


def memory_of(pid):
    """Kilobytes that a process has of its own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.split("\n") if line.startswith("Private_"))


def files_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def run_true(helper, layer):
    with helper.run(Sandbox(argv=("true",), root=Rootfs(lowers=(layer,))), stdout=1, stderr=2) as process:
        assert process.wait(60).code == 0


@pytest.mark.parametrize("rung", ["auto", pytest.param("chroot", marks=AS_ROOT)])
def test_one_after_the_other(layer, tmp_path, rung):
    """Neither this process nor one of the helper's gets more descriptors, or memory that grows with the steps."""
    others = set(descendants(os.getpid()))
    with Helper.start(str(tmp_path), isolation=rung, preload=()) as helper:
        for _ in range(100 if rung == "auto" else 30):
            run_true(helper, layer)
        watched = [os.getpid(), *sorted(set(descendants(os.getpid())) - others)]
        before = {pid: (files_of(pid), memory_of(pid)) for pid in watched}
        steps = STEPS if rung == "auto" or STEPS > 200 else 40
        for _ in range(steps):
            run_true(helper, layer)
        after = {pid: (files_of(pid), memory_of(pid)) for pid in watched}
        grown = {pid: (after[pid][0] - before[pid][0], after[pid][1] - before[pid][1]) for pid in watched}
        print(f"{steps} steps: descriptors and kB by process: {grown}")
        assert all(files == 0 for files, _ in grown.values()), grown
        assert all(kilobytes < 1024 for _, kilobytes in grown.values()), grown
        assert mounts_below(str(tmp_path)) == []
    assert os.listdir(tmp_path) == []


def test_100_side_by_side(layer, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    said = {}
    with Helper.start(str(tmp_path), preload=()) as helper:

        def step(number):
            read, write = os.pipe()
            sandbox = Sandbox(
                argv=("sh", "-c", f"echo {number} >/tmp/n; sleep 0.2; cat /tmp/n"), root=Rootfs(lowers=(layer,))
            )
            with open(read, "rb") as output:
                try:
                    process = helper.run(sandbox, stdout=write, stderr=write)
                finally:
                    os.close(write)
                with process:
                    text = output.read()
                    said[number] = (process.wait(120).code, text)

        threads = [threading.Thread(target=step, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert said == {number: (0, b"%d\n" % number) for number in range(100)}
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


class Mother:
    """A process that has all modules and makes a main process of itself on demand, which is much faster than a start."""

    def __init__(self, rung):
        paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [*WITHOUT_RIGHTS.get(rung, []), sys.executable, "-c", MOTHER, rung],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=paths,
        )

    def bear(self, *words):
        """The process id of a main process that runs steps."""
        with self._lock:
            self._process.stdin.write("\t".join(words).encode() + b"\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        self._process.stdout.close()


def end_at_random(mother, state, layer, mark, chance):
    """Starts a main process and sends a signal to it or to one of the helper's; what was left of it, which is nothing."""
    main = mother.bear(str(state), layer, mark)
    time.sleep(chance.random() * 0.15)
    number = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
    below = descendants(main)
    victim = chance.choice([main, *below[:3]])
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, number)
    if victim != main:
        time.sleep(0.02)
        below = list({*below, *descendants(main)})
        os.kill(main, signal.SIGKILL)
    until = time.monotonic() + 60
    while (left := [pid for pid in (main, *below) if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.01)
    role = "main" if victim == main else f"process {below.index(victim)} of the helper"
    return [f"signal {number} to {role}: {left}"] if left else []


def alive(pid):
    """Whether a process is there and no zombie, which the mother's are until she looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.host("setpriv", "proot")
@pytest.mark.parametrize("rung", ["auto", *(pytest.param(rung, marks=AS_ROOT) for rung in ("chroot", "proot"))])
def test_ends_at_random_moments(layer, tmp_path, rung):
    """The main process or one of the helper's gets a signal: no process, no mount, nothing that the next one keeps."""
    mark, kills = f"7{os.getpid()}", KILLS_OF[rung]
    mother = Mother(rung)
    with ThreadPoolExecutor(4) as pool:
        ended = [
            pool.submit(end_at_random, mother, tmp_path, layer, f"{mark}.{attempt}", random.Random(SEED + attempt))
            for attempt in range(kills)
        ]
        left = [line for one in ended for line in one.result()]
    mother.close()
    assert left == []
    assert gone(f"sleep {mark}")
    assert mounts_below(str(tmp_path)) == []
    sessions = list(tmp_path.iterdir())
    assert len(sessions) > kills / 10, "most that are killed leave a folder"
    for session in sessions:
        os.utime(session, (1, 1))  # as if it were older than a minute
    with Helper.start(str(tmp_path), preload=()):
        pass
    assert list(tmp_path.iterdir()) == []
