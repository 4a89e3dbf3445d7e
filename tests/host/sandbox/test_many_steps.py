"""Many steps, side by side and one after the other, and ends at random moments: nothing grows and nothing is left.

`AEROGEL_TEST_STEPS` and `AEROGEL_TEST_KILLS` make it as many as the release does by hand: 10000 and 200.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from boxes import gone, mounts_below

from aerogel.sandbox.launch import Helper
from aerogel.sandbox.plain import descendants
from aerogel.sandbox.spec import Rootfs, Sandbox

pytestmark = pytest.mark.host

STEPS = int(os.environ.get("AEROGEL_TEST_STEPS", "200"))
KILLS = int(os.environ.get("AEROGEL_TEST_KILLS", "10"))
SEED = 20261121
MAIN = """
import os, sys, threading
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import *
state, layer, mark = sys.argv[1:]
null = os.open(os.devnull, os.O_RDWR)
with Helper.start(state, preload=()) as helper:
    script = f"trap '' INT HUP; setsid nohup sleep {mark} & echo x >/tmp/x; sleep 0.01"
    def work():
        while True:
            with helper.run(Sandbox(argv=("sh", "-c", script), root=Rootfs(lowers=(layer,))), stdout=null, stderr=null) as one:
                one.wait()
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()
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


def test_one_after_the_other(layer, tmp_path):
    """Neither this process nor one of the helper's gets more descriptors, or memory that grows with the steps."""
    others = set(descendants(os.getpid()))
    with Helper.start(str(tmp_path), preload=()) as helper:
        for _ in range(100):
            run_true(helper, layer)
        watched = [os.getpid(), *sorted(set(descendants(os.getpid())) - others)]
        before = {pid: (files_of(pid), memory_of(pid)) for pid in watched}
        for _ in range(STEPS):
            run_true(helper, layer)
        after = {pid: (files_of(pid), memory_of(pid)) for pid in watched}
        grown = {pid: (after[pid][0] - before[pid][0], after[pid][1] - before[pid][1]) for pid in watched}
        print(f"{STEPS} steps: descriptors and kB by process: {grown}")
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


def test_ends_at_random_moments(layer, tmp_path):
    """The main process or one of the helper's gets a signal: no process, no mount, nothing that the next one keeps."""
    random.seed(SEED)
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for attempt in range(KILLS):
        mark = f"7{os.getpid()}.{attempt}"
        state = tmp_path / str(attempt)
        main = subprocess.Popen(
            [sys.executable, "-c", MAIN, str(state), layer, mark],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=paths,
        )
        assert main.stdout.readline() == b"ready\n"
        time.sleep(random.random() * 0.2)
        number = random.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
        below = descendants(main.pid)
        # the helper ignores what can be ignored: it ends with the main process
        victim = random.choice([main.pid, *below[:3]]) if number == signal.SIGKILL else main.pid
        os.kill(victim, number)
        if victim != main.pid:
            time.sleep(0.05)
            main.kill()
        main.wait(20)
        main.stdout.close()
        assert gone(f"sleep {mark}"), (attempt, number)
        until = time.monotonic() + 10
        while any(os.path.exists(f"/proc/{pid}") for pid in below) and time.monotonic() < until:
            time.sleep(0.01)
        assert [pid for pid in below if os.path.exists(f"/proc/{pid}")] == [], (attempt, number)
        assert mounts_below(str(state)) == []
        for session in state.iterdir():
            os.utime(session, (1, 1))  # as if it were older than a minute
        with Helper.start(str(state), preload=()):
            pass
        assert list(state.iterdir()) == [], (attempt, number)
