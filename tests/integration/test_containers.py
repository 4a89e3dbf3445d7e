"""Containers: started in the background, listed, read, joined, stopped, started again, removed; what docker's words mean."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest
from process import Aerogel
from small_image import build_small_image
from waiting import until

pytestmark = pytest.mark.host("busybox")

SERVER = "echo ready; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A store of its own with the image `small`."""
    folder = tmp_path_factory.mktemp("containers")
    aerogel = Aerogel(folder / "state")
    build_small_image(aerogel, folder / "image", "small")
    return aerogel


@pytest.fixture
def tidy(small):
    """Removes what a test leaves, and sees that nothing else is left."""
    yield
    left = small("ps", "-aq").stdout.split()
    if left:
        small("rm", "-f", *left)
    folder = small.state / "data/containers-v1"
    assert not folder.exists() or os.listdir(folder) == ["lock"]


def one(small, name):
    (line,) = [line for line in small.json("ps", "-a")["containers"] if line["name"] == name]
    return line


def test_a_life(small, tidy):
    made = small("run", "-d", "--name", "web", "-l", "tier=front", "small", "sh", "-c", SERVER).stdout.strip()
    assert len(made) == 64
    line = one(small, "web")
    assert (line["id"], line["image"], line["status"], line["labels"]) == (made, "small", "running", {"tier": "front"})
    until(lambda: small("logs", "web").stdout == "ready\n")
    assert small("ps", "-q", "--no-trunc", "-f", "label=tier").stdout == f"{made}\n"
    assert small("ps", "--format", "{{.Names}} {{.State}}").stdout == "web running\n"
    assert small("ps", "-q", "-f", "name=other").stdout == ""
    assert small("exec", made[:8], "sh", "-c", "echo $0 $1; exit 9", "a", "b", check=False).returncode == 9
    assert small("stop", "web").stdout == "web\n"
    assert one(small, "web")["status_text"].startswith("Exited (3) ")
    assert small("wait", "web").stdout == "3\n"
    assert small("logs", "--tail", "1", "web").stdout == "bye\n"
    assert small("ps", "-q").stdout == ""
    small("start", "web")
    until(lambda: small("logs", "web").stdout == "ready\nbye\nready\n")
    small("kill", "-s", "KILL", "web")
    until(lambda: one(small, "web")["status"] == "exited")
    assert one(small, "web")["code"] == 137
    assert small("rm", "web").stdout == "web\n"
    assert small("ps", "-aq").stdout == ""


def test_what_it_wrote_is_there_when_it_starts_again(small, tidy):
    script = "cat /kept 2>/dev/null; echo again >>/kept; rm -f /bin/awk; ls /bin/awk 2>/dev/null"
    small("run", "-d", "--name", "job", "small", "sh", "-c", script)
    small("wait", "job")
    small("start", "job")
    small("wait", "job")
    assert small("logs", "job").stdout == "again\n"
    assert small("run", "small", "sh", "-c", "ls /kept /bin/awk", check=False).stdout == "/bin/awk\n"


@pytest.mark.skipif(os.getuid() != 0, reason="rights are taken away from root")
def test_what_it_wrote_where_nothing_can_be_mounted(small, tidy, monkeypatch):
    monkeypatch.setitem(small.env, "AEROGEL_ISOLATION", "chroot")
    script = "wc -l /kept 2>/dev/null; echo again >>/kept; ls /bin/awk 2>/dev/null; rm -f /bin/awk; mkdir -p /d; echo x >/d/$$"
    small("run", "-d", "--name", "job", "small", "sh", "-c", script)
    for _ in range(2):
        small("wait", "job")
        small("start", "job")
    small("wait", "job")
    assert small("logs", "job").stdout == "/bin/awk\n1 /kept\n2 /kept\n"
    assert one(small, "job")["code"] == 0
    assert small("debug", "job", "wc", "-l", "/kept").stdout == "3 /kept\n"


def test_both_streams_and_long_output(small, tidy):
    script = "printf 'a\\377b'; head -c 100000 /dev/zero | tr '\\0' x; echo; echo err >&2; printf end"
    small("run", "-d", "--name", "job", "small", "sh", "-c", script)
    small("wait", "job")
    done = subprocess.run(small.argv("logs", "job"), env=small.env, capture_output=True)
    assert done.stdout == b"a\xffb" + b"x" * 100000 + b"\nend"
    assert done.stderr == b"err\n"
    stamped = small("logs", "-t", "--tail", "1", "job").stdout
    assert stamped.endswith("Z end")
    assert small("logs", "--since", "1h", "--tail", "1", "job").stdout == "end"
    assert small("logs", "--until", "1h", "job").stdout == ""


def test_codes_in_a_command(small, tidy):
    small("run", "-d", "--name", "job", "small", "true", "\033[2J\nx")
    small("wait", "job")
    line = small("ps", "-a", "--no-trunc").stdout.split("\n")[1]
    assert "\033" not in line
    assert "?[2J?x" in line


def test_following(small, tidy):
    small("run", "-d", "--name", "job", "small", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done")
    assert small("logs", "-f", "job").stdout == "1\n2\n3\n"


def test_removed_at_its_end(small, tidy):
    small("run", "-d", "--rm", "--name", "job", "small", "sh", "-c", SERVER)
    small("stop", "-t", "5", "job")
    until(lambda: small("ps", "-aq").stdout == "")


def test_killed_when_it_does_not_stop(small, tidy):
    small("run", "-d", "--name", "job", "small", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    small("stop", "-t", "0", "job")
    assert one(small, "job")["code"] == 137


def test_it_outlives_its_terminal(small, tidy):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(
            "/bin/sh",
            ["sh", "-c", " ".join([*small.argv("run", "-d", "--name", "job", "small", "sleep", "1000")])],
            small.env,
        )
    said = b""
    while b"\n" not in said:
        said += os.read(fd, 1000)
    os.waitpid(pid, 0)
    os.close(fd)  # the terminal is gone
    assert one(small, "job")["status"] == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_holder_is_killed(small, tidy, number):
    small("run", "-d", "--name", "job", "small", "sleep", "1000.5")
    line = one(small, "job")
    holder = int(Path(f"/proc/{line['pid']}/status").read_text().split("PPid:")[1].split()[0])
    for _ in range(3):  # the helper's processes are between the two
        holder = int(Path(f"/proc/{holder}/status").read_text().split("PPid:")[1].split()[0])
    assert b"runtime.keeper" in Path(f"/proc/{holder}/cmdline").read_bytes()
    os.kill(holder, number)
    until(lambda: one(small, "job")["status"] == "exited")
    until(lambda: not os.path.exists(f"/proc/{line['pid']}"))
    assert one(small, "job")["code"] == (143 if number == signal.SIGTERM else 137)


def test_names(small, tidy):
    small("run", "-d", "--name", "job", "small", "sleep", "1000")
    done = small("run", "-d", "--name", "job", "small", "true", check=False)
    assert done.stderr == (
        "error: there is a container `job` already\nhint: `aerogel rm job` removes it, or choose another `--name`\n"
    )
    assert small("exec", "jib", "true", check=False).stderr == (
        "error: there is no container `jib`\nhint: did you mean `job`?\n"
    )
    done = small("rm", "job", check=False)
    assert done.stderr == (
        "error: container `job` is running\nhint: `aerogel stop job` stops it, `aerogel rm -f job` kills it first\n"
    )
    small("stop", "-t", "0", "job")
    assert small("exec", "job", "true", check=False).stderr == (
        "error: container `job` is not running\nhint: `aerogel start job` starts it again\n"
    )
    assert small("stop", "job").returncode == 0


def test_a_command_that_cannot_be_started(small, tidy):
    done = small("run", "-d", "--name", "job", "small", "nosuch", check=False)
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("error: `nosuch` is not in the image\n")
    assert one(small, "job")["error"] == "`nosuch` is not in the image"
    done = small("run", "-d", "--rm", "small", "/etc", check=False)
    assert done.returncode == 126
    small("rm", "job")


def test_in_the_foreground(small, tidy, tmp_path):
    words = small.argv("run", "-i", "--name", "front", "--cidfile", str(tmp_path / "id"), "small", "sh")
    with subprocess.Popen(words, env=small.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"echo up\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"up\n"
        assert one(small, "front")["id"] == (tmp_path / "id").read_text()
        assert small("exec", "front", "sh", "-c", "echo $$ >/tmp/seen; cat /tmp/seen").stdout.strip().isdigit()
        assert "writes to the terminal" in small("logs", "front", check=False).stderr
        process.stdin.write(b"exit 4\n")
        process.stdin.close()
        assert process.wait() == 4
    assert small("ps", "-aq").stdout == ""


def test_a_foreground_that_is_killed_leaves_nothing(small, tidy):
    words = small.argv("run", "--name", "front", "small", "sh", "-c", "echo up; sleep 1000.25")
    with subprocess.Popen(words, env=small.env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.kill()
    until(lambda: small("ps", "-aq").stdout == "")


def test_exec(small, tidy):
    small("run", "-d", "--name", "job", "-e", "A=1", "-w", "/srv", "-u", "app", "small", "sleep", "1000")
    script = "echo $A $B; pwd; id -u; echo $HOME; cat"
    done = small("exec", "-i", "-e", "B=2", "job", "sh", "-c", script, input="given\n")
    assert done.stdout == "1 2\n/srv\n1000\n/home/app\ngiven\n"
    assert small("exec", "-u", "0", "-w", "/tmp", "job", "sh", "-c", script, input="no\n").stdout == "1\n/tmp\n0\n/\n"
    assert small("exec", "job", "nosuch", check=False).returncode == 127
    assert small("exec", "job", "sh", "-c", "kill -9 $$", check=False).returncode == 137
    small("exec", "-d", "job", "sh", "-c", "sleep 0.2; echo x >/tmp/late")
    until(lambda: small("exec", "job", "sh", "-c", "cat /tmp/late", check=False).stdout == "x\n")
    assert "not a terminal" in small("exec", "-it", "job", "sh", check=False, stdin=subprocess.DEVNULL).stderr


def test_exec_on_a_terminal(small, tidy):
    """Size of the window, its changes, keys, and the terminal's state afterwards."""
    small("run", "-d", "--name", "job", "small", "sleep", "1000")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (33, 99))
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        small.argv("exec", "-it", "job", "sh"), env=small.env, stdin=slave, stdout=slave, stderr=slave
    )
    os.write(master, b"tty; stty size\n")
    said = b""
    while b"33 99" not in said:
        said += os.read(master, 1000)
    assert b"/dev/pts/" in said
    termios.tcsetwinsize(slave, (44, 111))
    process.send_signal(signal.SIGWINCH)
    time.sleep(0.1)
    os.write(master, b"stty size; exit 5\n")
    while b"44 111" not in said:
        said += os.read(master, 1000)
    assert process.wait(60) == 5
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_restarts(small, tidy):
    script = "echo x >>/n; cat /n | wc -l; exit 2"
    small("run", "-d", "--name", "job", "--restart", "on-failure:2", "small", "sh", "-c", script)
    until(lambda: one(small, "job")["status"] == "exited")
    assert small("logs", "job").stdout.split() == ["1", "2", "3"]
    small("run", "-d", "--name", "ever", "--restart", "always", "small", "sh", "-c", "echo x; sleep 0.01")
    until(lambda: small("logs", "ever").stdout.count("x") > 2)
    small("stop", "ever")
    assert one(small, "ever")["status"] == "exited"


def test_health(small, tidy):
    words = ["--health-cmd", "echo seen; test -e /tmp/well", "--health-interval", "50ms", "--health-retries", "2"]
    small("run", "-d", "--name", "job", *words, "small", "sleep", "1000")
    until(lambda: one(small, "job")["health"] == "unhealthy")
    assert one(small, "job")["status_text"].endswith("(unhealthy)")
    small("exec", "job", "touch", "/tmp/well")
    until(lambda: one(small, "job")["health"] == "healthy")
    assert small("ps", "-q", "-f", "health=healthy").stdout != ""
    state = json.loads((small.state / "data/containers-v1" / one(small, "job")["id"] / "state.json").read_text())
    assert state["said"] == "seen\n"


def test_health_of_the_image(small, tidy, tmp_path):
    check = 'HEALTHCHECK --interval=100ms --timeout=100ms --start-period=1h --retries=1 CMD ["sleep", "9"]\n'
    build_small_image(small, tmp_path / "image", "checked", check)
    small("run", "-d", "--name", "job", "--health-start-period", "0s", "checked", "sleep", "1000")
    until(lambda: one(small, "job")["health"] == "unhealthy")
    small("run", "-d", "--name", "young", "checked", "sleep", "1000")
    time.sleep(0.5)
    assert one(small, "young")["health"] == "starting"
    small("run", "-d", "--name", "none", "--no-healthcheck", "checked", "sleep", "1000")
    assert one(small, "none")["health"] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--restart", "always", "small"], "`--restart` needs `-d`"),
        (["run", "-d", "--restart", "sometimes", "small"], "`--restart sometimes` is not known"),
        (["run", "-d", "--rm", "--restart", "always", "small"], "`--restart` and `--rm` exclude each other"),
        (
            ["run", "--health-interval", "soon", "--health-cmd", "x", "small", "true"],
            "`--health-interval soon` is not a time",
        ),
        (
            ["run", "--no-healthcheck", "--health-cmd", "x", "small", "true"],
            "`--no-healthcheck` and `--health-cmd` exclude each other",
        ),
        (["run", "--cidfile", "/", "small", "true"], "`--cidfile /`: "),
        (["logs", "--tail", "few", "nothing"], "there is no container `nothing`"),
        (["ps", "-f", "nam=x"], "filter `nam=x` is not known\nhint: did you mean `name`?"),
        (["kill", "-s", "SIGHOP", "x"], "`SIGHOP` is not a signal"),
    ],
)
def test_wrong_words(small, tidy, words, said):
    done = small(*words, check=False)
    assert done.returncode in (1, 2)
    assert f"error: {said}" in done.stderr


def test_prune_leaves_a_running_container_alone(small, tidy):
    small("run", "-d", "--name", "job", "small", "sleep", "1000")
    small("prune", "-a")
    assert small("exec", "job", "echo", "here").stdout == "here\n"
