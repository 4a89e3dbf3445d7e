"""Whoever is killed: no process, no mount, no directory is left. And what it costs when nobody is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boxes import gone, mounts_below, processes_with
from waiting import until

from aerogel.errors import AerogelError
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.probe import probe, sentences
from aerogel.sandbox.spec import Rootfs, Sandbox

pytestmark = pytest.mark.host

MAIN = """
import sys, threading, time
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import *
state, layer, mark = sys.argv[1:]
helper = Helper.start(state, preload=())
script = f"echo up >&2; trap '' INT TERM HUP; setsid nohup sleep {mark} & while :; do sleep {mark}; done"
runs = [helper.run(Sandbox(argv=("sh", "-c", script), root=Rootfs(lowers=(layer,))), stdout=1, stderr=1) for _ in range(3)]
print("ready", flush=True)
time.sleep(60)
"""


def start_main(state, layer, mark):
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(state), layer, mark],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    said = b""
    while said.count(b"up") < 3 or b"ready" not in said:
        data = os.read(process.stdout.fileno(), 100)
        assert data
        said += data
    return process


def parent(pid):
    """The parent of a process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def helper_pids(main):
    """The processes of the helper of this main process, the first one first."""
    found = []
    for line in processes_with("sandbox/helper.py"):
        pid = int(line.split()[0])
        above = pid
        while above > 1 and above != main.pid:
            above = parent(above)
        if above == main.pid:
            found.append(pid)
    return sorted(found)


@pytest.mark.parametrize("victim", ["main", "helper", "both"])
def test_killed(tmp_path, layer, victim):
    mark = f"9{os.getpid()}.{time.monotonic_ns() % 100000}"
    state = tmp_path / "state"
    main = start_main(state, layer, mark)
    until(lambda: len(processes_with(f"sleep {mark}")) >= 6)
    mine = helper_pids(main)
    assert len(mine) >= 2
    if victim != "main":
        os.kill(mine[0], signal.SIGKILL)
    if victim != "helper":
        main.kill()
        main.wait()
    assert gone(f"sleep {mark}")
    until(lambda: not any(parent(pid) for pid in mine))
    main.kill()
    main.wait()
    main.stdout.close()
    assert mounts_below(str(state)) == []

    (session,) = state.iterdir()
    os.utime(session, (1, 1))  # as if it were older than a minute
    with Helper.start(str(state), preload=()):
        assert not session.exists()
    assert list(state.iterdir()) == []


def test_a_forced_rung_that_does_not_work(tmp_path):
    """Root without subordinate ids of its own cannot take `subid`, a user cannot take `root`."""
    wrong = "subid" if os.getuid() == 0 else "root"
    if wrong == "subid" and any(f.works for f in probe(str(tmp_path)).findings if f.rung == wrong):
        pytest.skip("root has subordinate ids here")
    with pytest.raises(AerogelError) as caught:
        Helper.start(str(tmp_path), isolation=wrong, preload=())
    assert (caught.value.code, caught.value.exit_status) == ("sandbox.no-namespaces", 3)
    assert caught.value.detail.startswith(f"{wrong}: ")
    assert os.listdir(tmp_path) == []


def test_the_probe(tmp_path):
    found = probe(str(tmp_path))
    works = {finding.rung for finding in found.findings if finding.works}
    assert found.rung in (("root",) if os.getuid() == 0 else ("subid", "single"))
    assert [finding.rung for finding in found.findings] == ["root", "ident", "subid", "single", "chroot", "proot"]
    assert "single" in works
    assert any(line.startswith(f"{found.rung}: works") for line in sentences(found))
    assert os.listdir(tmp_path) == []


def test_a_state_directory_that_cannot_be_made():
    with pytest.raises(AerogelError) as caught:
        Helper.start("/proc/nowhere", preload=())
    assert caught.value.code == "sandbox.state-directory"


@pytest.mark.slow
def test_cost_of_a_step(layer, tmp_path):
    """RUN true stays below 40 ms of CPU, start of the helper included once."""
    before = os.times()
    with Helper.start(str(tmp_path), preload=()) as helper:
        for _ in range(40):
            with helper.run(Sandbox(argv=("true",), root=Rootfs(lowers=(layer,))), stdout=1, stderr=2) as process:
                assert process.wait().code == 0
    after = os.times()
    cpu_s = sum(after[:4]) - sum(before[:4])
    assert cpu_s / 40 < 0.040


def test_a_python_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    """As when another user's environment is used: it must not wait for a helper that never comes."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(AerogelError) as caught:
        Helper.start(str(tmp_path / "state"))
    assert (
        caught.value.message == f"the sandbox helper cannot be started: `{tmp_path}/python`: no such file or directory"
    )
    assert caught.value.hints
