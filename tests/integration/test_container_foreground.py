"""Containers that are started in the foreground and stay: attached from the first word on, left with keys, started again."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios

import pytest
from process import Aerogel
from small_image import build_small_image
from waiting import read_until, until

pytestmark = pytest.mark.host("busybox")

RUNGS = ("single",) if os.getuid() == 0 else ()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return store(tmp_path_factory.mktemp("foreground"), "auto")


@pytest.fixture
def small(usual):
    yield usual
    tidy(usual)


@pytest.fixture(params=("auto", *RUNGS))
def each_rung(request, usual, tmp_path_factory):
    """The same on each rung that can be forced."""
    aerogel = usual if request.param == "auto" else store(tmp_path_factory.mktemp("foreground"), request.param)
    yield aerogel
    tidy(aerogel)


def store(folder, rung):
    aerogel = Aerogel(folder / "state")
    aerogel.env["AEROGEL_ISOLATION"] = rung
    build_small_image(aerogel, folder / "image", "small", "VOLUME /kept\n")
    return aerogel


def tidy(aerogel):
    left = aerogel("ps", "-aq").stdout.split()
    if left:
        aerogel("rm", "-fv", *left)


class Terminal:
    """A terminal with a command of aerogel's on it."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (33, 99))
        self.before = termios.tcgetattr(self.slave)

    def start(self, aerogel, *words):
        process = subprocess.Popen(
            aerogel.argv(*words), env=aerogel.env, stdin=self.slave, stdout=self.slave, stderr=self.slave
        )
        until(lambda: termios.tcgetattr(self.slave) != self.before)
        return process

    def type(self, data):
        os.write(self.master, data)


@pytest.fixture
def terminal():
    made = Terminal()
    yield made
    os.close(made.master)
    os.close(made.slave)


def test_one_that_is_kept(each_rung):
    """Nothing of its output is lost, its input ends, its status and files are there afterwards."""
    small = each_rung
    script = "echo err >&2; n=$(wc -c); echo $n >>/tmp/n; cat /tmp/n; head -c 300000 /dev/zero | tr '\\0' x; exit 7"
    words = ["run", "-i", "--rm=false", "--name", "box", "small", "sh", "-c", script]
    done = small(*words, input="x" * 200_000, check=False)
    assert (done.returncode, done.stderr) == (7, "err\n")
    assert done.stdout == "200000\n" + "x" * 300_000
    assert small("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout.startswith("box Exited (7)")
    assert small("logs", "box").stdout == done.stdout
    again = small("start", "-ai", "box", input="four", check=False)
    assert again.returncode == 7
    assert again.stdout == "200000\n4\n" + "x" * 300_000


def test_one_that_cannot_start(small):
    done = small("run", "--rm=false", "--name", "box", "small", "nosuch", check=False)
    assert done.returncode == 127
    assert done.stderr.startswith("error: `nosuch` ")
    assert small("ps", "-aq", "--no-trunc").stdout.count("\n") == 1
    again = small("start", "-a", "box", check=False)
    assert again.returncode == 127
    assert again.stderr.startswith("error: `nosuch` ")


def test_signals(small):
    """SIGTERM is the stop signal of the container; killing the one who looks does not end what is kept."""
    script = "trap 'echo quit; exit 9' QUIT; trap 'echo usr1' USR1; while :; do echo up; sleep 0.05; done"
    words = ["run", "--rm=false", "--name", "box", "--stop-signal", "QUIT", "small", "sh", "-c", script]
    with subprocess.Popen(small.argv(*words), env=small.env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.kill()
    assert small("inspect", "-f", "{{.State.Running}}", "box").stdout == "true\n"
    with subprocess.Popen(small.argv("start", "-a", "box"), env=small.env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGUSR1)
        while (line := process.stdout.readline()) == b"up\n":
            pass
        assert line == b"usr1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 9
    assert small("logs", "box").stdout.endswith("quit\n")


def test_one_that_does_not_end(small):
    script = "trap '' TERM INT; echo up; while :; do sleep 0.05; done"
    words = ["run", "--rm=false", "--name", "box", "--stop-timeout", "0", "small", "sh", "-c", script]
    with subprocess.Popen(small.argv(*words), env=small.env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 137


def test_left_with_keys(small, terminal):
    process = terminal.start(small, "run", "-it", "--rm=false", "--name", "box", "small", "sh", "-c", "stty size; sh")
    read_until(terminal.master, b"33 99")  # the window of this terminal from the first word on
    terminal.type(b"\x10\x11")
    assert process.wait(60) == 0
    read_until(terminal.master, b"container `box` goes on")
    assert termios.tcgetattr(terminal.slave) == terminal.before
    process = terminal.start(small, "exec", "-it", "--detach-keys", "ctrl-x", "box", "sh")
    terminal.type(b"echo $((6*7)) $$ >/tmp/pid; cat /tmp/pid\n")
    read_until(terminal.master, b"42 ")
    terminal.type(b"\x18")
    assert process.wait(60) == 0
    assert small("exec", "box", "sh", "-c", "read a pid </tmp/pid; kill -0 $pid && echo lives").stdout == "lives\n"
    process = terminal.start(small, "start", "-ai", "--detach-keys", "ctrl-y", "box")  # it runs: attached
    terminal.type(b"\x10\x11\nexit 5\n")
    assert process.wait(60) == 5
    assert small("inspect", "-f", "{{.State.ExitCode}} {{.Config.OpenStdin}}", "box").stdout == "5 true\n"


def test_left_with_keys_and_removed_in_the_end(small, terminal):
    before = small("volume", "ls", "-q").stdout
    process = terminal.start(small, "run", "-it", "--detach-keys", "q", "--name", "box", "small", "sh")
    terminal.type(b"q")
    assert process.wait(60) == 0
    assert small("ps", "--format", "{{.Names}}").stdout == "box\n"
    small("stop", "-t", "0", "box")
    until(lambda: small("ps", "-aq").stdout == "")
    assert small("volume", "ls", "-q").stdout == before
    done = small("run", "--detach-keys", "q", "small", "sh", "-c", "exit 3", check=False)
    assert done.returncode == 3
    assert small("ps", "-aq").stdout == ""


def test_a_foreground_that_is_killed_leaves_no_volumes(small):
    """Its folder and the volumes that were made for it, whoever their files belong to; nothing waits in the store."""
    volumes = small.state / "data/volumes-v1"
    script = "touch /kept/f; chown 7:8 /kept/f /kept; echo up; sleep 1000.75"
    words = small.argv("run", "-v", "named:/named", "-v", "/more", "small", "sh", "-c", script)
    with subprocess.Popen(words, env=small.env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        assert len(list(volumes.glob("?" * 64))) == 2
        process.kill()
    until(lambda: small("ps", "-aq").stdout == "")
    assert small("run", "small", "echo", "next").stdout == "next\n"
    assert list(volumes.glob("?" * 64)) == []
    assert list(volumes.glob(".*")) == []
    left = [path for path in (small.state / "data/scratch").glob("*/*") if path.name != "lock"]
    assert left == []
    assert small("volume", "ls", "-q").stdout == "named\n"
    small("volume", "rm", "named")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--rm=false", "--detach-keys", "ctrl-", "small"], "`--detach-keys ctrl-`: `ctrl-` is not a key"),
        (["start", "-a", "one", "two"], "only one container can have this terminal"),
        (["start", "-a", "none"], "there is no container `none`"),
        (["run", "-it", "--rm=false", "small"], "standard input is not a terminal, so `-it` cannot be"),
    ],
)
def test_wrong_words(small, words, said):
    done = small(*words, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode in (1, 2)
    assert f"error: {said}" in done.stderr
