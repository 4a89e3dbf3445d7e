"""The options of `aerogel run`, with the built-in python image: what docker's mean."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import read_until

pytestmark = [pytest.mark.host, pytest.mark.network]

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "gcr.io/distroless/python3"
PYTHON = "/usr/bin/python3.13"


@pytest.fixture(scope="module")
def environ(tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    return {**os.environ, "AEROGEL_ROOT": str(state), "PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def run(environ):
    def run(*words, status=0, **options):
        words = [sys.executable, "-m", "aerogel", "run", *words]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, **options)
        assert done.returncode == status, done.stderr
        return done

    return run


def program(text):
    return [IMAGE, "-c", text]


def test_output_streams_and_status(run):
    done = run(*program("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"), status=7)
    assert done.stdout == "out\n"
    assert done.stderr.endswith("err\n")


def test_environment(run, environ, tmp_path):
    (tmp_path / "env").write_text("# comment\nFILED=yes\n\n")
    environ["AEROGEL_TEST_GIVEN"] = "from outside"
    words = ["-e", "A=1", "--env", "B=x=y", "-e", "AEROGEL_TEST_GIVEN", "-e", "NOWHERE", "--env-file", "env"]
    shown = "import os; print([os.environ.get(n) for n in ('A','B','AEROGEL_TEST_GIVEN','NOWHERE','FILED')])"
    assert run(*words, *program(shown), cwd=tmp_path).stdout == "['1', 'x=y', 'from outside', None, 'yes']\n"


def test_user_folder_and_volume(run, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "in").write_text("data")
    shown = "import os; print(os.getuid(), os.getgid(), os.getcwd(), open('/mnt/in').read())"
    words = ["-u", "1234:77", "-w", "/tmp", "-v", f"{tmp_path}:/mnt:ro"]
    assert run(*words, *program(shown)).stdout == "1234 77 /tmp data\n"
    assert "Read-only" in run("-v", f"{tmp_path}:/mnt:ro", *program("open('/mnt/x', 'w')"), status=1).stderr
    run("-v", f"{tmp_path}:/mnt", *program("open('/mnt/out', 'w').write('made')"))
    assert (tmp_path / "out").read_text() == "made"


def test_nothing_is_kept(run):
    run(*program("open('/kept', 'w')"))
    assert run(*program("import os; print(os.path.exists('/kept'))")).stdout == "False\n"
    assert "Read-only" in run("--read-only", *program("open('/kept', 'w')"), status=1).stderr


def test_standard_input(run):
    shown = "import sys; print(sys.stdin.read())"
    assert run("-i", *program(shown), input="given").stdout == "given\n"
    assert run(*program(shown), input="not given").stdout == "\n"


def test_entry_point(run):
    assert run("--entrypoint", PYTHON, IMAGE, "-c", "print(1)").stdout == "1\n"
    done = run("--entrypoint", "/nothing", IMAGE, status=127)
    assert done.stderr.endswith("error: `/nothing` is not in the image\n")
    assert "`/etc/passwd`" in run("--entrypoint", "/etc/passwd", IMAGE, status=126).stderr


def test_network_none(run):
    shown = "import os; print(sorted(os.listdir('/sys/class/net')) if os.path.exists('/sys/class/net') else ['lo'])"
    assert run("--network", "none", *program(shown)).stdout == "['lo']\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-v", "name:x"], "is not an absolute path"),
        (["--ulimit", "nofile"], "is not a limit"),
        (["--add-host", "x"], "is not a name and an address"),
        (["--init=false"], "`--init=false` cannot be"),
        (["-p", "http"], "`--publish http` is no port"),
        (["--mount", "type=npipe,src=a,dst=/a"], "there is no type `npipe`"),
        (["--stop-signal", "SIGTEMR"], "`SIGTEMR` is not a signal\nhint: did you mean `SIGTERM`?"),
        (["--security-opt", "seccomp=unconfined"], "security option `seccomp=unconfined` is not known"),
        (["--env-file", "/missing"], "`/missing` cannot be read: no such file or directory"),
        (["-it"], "standard input is not a terminal"),
        (["--network", "mine"], "not `mine`"),
    ],
)
def test_wrong_options(words, code, run):
    assert code in run(*words, *program("pass"), status=2).stderr


def test_mounts(run, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "in").write_text("data")
    shown = "import os; s = os.statvfs; print(open('/a/in').read(), s('/b').f_blocks * s('/b').f_frsize >> 20, "
    shown += (
        "oct(os.stat('/b').st_mode), s('/c').f_blocks * s('/c').f_frsize >> 20, bool(s('/c').f_flag & os.ST_NOEXEC), "
    )
    shown += "os.stat('/c').st_uid, s('/dev/shm').f_blocks * s('/dev/shm').f_frsize >> 20, bool(s('/a').f_flag & 1))"
    words = ["--mount", "type=bind,src=.,dst=/a,readonly", "--mount", "type=tmpfs,dst=/b,tmpfs-size=3m,tmpfs-mode=750"]
    words += ["--tmpfs", "/c:size=2m,uid=7", "--shm-size", "5m", "-v", "./in:/d"]
    said = run(*words, *program(shown + "; print(open('/d').read())"), cwd=tmp_path).stdout
    assert said == "data 3 0o40750 2 True 7 5 True\ndata\n"


def test_names_of_the_network(run):
    shown = "import socket; print(socket.gethostname(), open('/etc/resolv.conf').read(), socket.gethostbyname('db'))"
    words = ["--hostname", "box", "--dns", "192.0.2.9", "--dns-search", "example.org", "--dns-option", "ndots:2"]
    said = run(*words, "--add-host", "db:192.0.2.7", *program(shown)).stdout
    assert said.startswith("box ")
    assert "nameserver 192.0.2.9\nsearch example.org\noptions ndots:2\n" in said
    assert said.count("nameserver") == 1
    assert said.endswith(" 192.0.2.7\n")
    assert run("--add-host", "h:host-gateway", *program("import socket; print(socket.gethostbyname('h'))")).stdout == (
        "127.0.0.1\n"
    )


def test_rights_and_limits(run):
    shown = (
        "import resource as r; print([l for l in open('/proc/self/status') if l.startswith('CapEff')][0].split()[1], "
    )
    shown += "r.getrlimit(r.RLIMIT_NOFILE))"
    assert run("--cap-drop", "ALL", "--ulimit", "nofile=70:80", *program(shown)).stdout == "0000000000000000 (70, 80)\n"
    given = run("--cap-drop", "all", "--cap-add", "CAP_CHOWN", "--cap-add", "sys_chroot", *program(shown)).stdout
    assert given.split()[0] == f"{1 << 0 | 1 << 18:016x}"
    every = run("--cap-add", "ALL", "--cap-drop", "CHOWN", *program(shown)).stdout
    assert int(every.split()[0], 16) & 1 == 0
    assert int(every.split()[0], 16) >> 21 & 1, "SYS_ADMIN"


def test_flags_that_change_nothing_are_taken(run):
    words = ["--rm", "--init", "--name", "one", "--pull", "missing", "-q"]
    assert run(*words, *program("print(1)")).stdout == "1\n"
    assert "`a b` is not a name" in run("--name", "a b", *program("print(1)"), status=2).stderr


def test_pull_never_and_unknown_images(run, environ, monkeypatch):
    assert "error: there is no image `nowhere` in the local store" in run("--pull=never", "nowhere", status=1).stderr
    monkeypatch.setitem(environ, "AEROGEL_BASES", "builtin")
    assert "error: image `nowhere` was not found" in run("nowhere", status=1).stderr


@pytest.mark.parametrize(("words", "number"), [(["--stop-signal", "usr1"], 10), (["--stop-signal", "3"], 3)])
def test_stop_signal(environ, words, number):
    text = f"import signal, sys, time; signal.signal({number}, lambda *a: sys.exit(9)); print('ready', flush=True)"
    words = [sys.executable, "-m", "aerogel", "run", *words, *program(text + "; time.sleep(60)")]
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 9


def test_unknown_image_points_at_the_name(run, environ, monkeypatch):
    # The registry is left out: what it says depends on the network.
    monkeypatch.setitem(environ, "AEROGEL_BASES", "builtin")
    done = run("gcr.io/distroless/pyton3", status=1)
    assert " 1 | gcr.io/distroless/pyton3\n   | ^^^^" in done.stderr
    assert "did you mean" in done.stderr


def on_terminal(environ, *words):
    """The process and the other end of its terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "aerogel", "run", *words], {**environ, "TERM": "xterm"})
    return pid, fd


def test_terminal_and_interrupt(environ):
    text = "import os, sys; print('tty', os.isatty(0), os.isatty(1)); input(); import time; time.sleep(60)"
    pid, fd = on_terminal(environ, "-it", *program(text))
    assert b"tty True True" in read_until(fd, b"True True")
    os.write(fd, b"go\n")
    time.sleep(0.3)
    os.write(fd, b"\x03")
    assert b"KeyboardInterrupt" in read_until(fd, b"KeyboardInterrupt")
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 130


def test_termination_is_passed_on(environ):
    text = "import signal, sys, time; signal.signal(15, lambda *a: sys.exit(9)); print('ready', flush=True); time.sleep(60)"
    words = [sys.executable, "-m", "aerogel", "run", *program(text)]
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 9


@pytest.mark.parametrize("user", ["0", "65532"])
def test_output_to_the_callers_terminal(environ, user):
    """Without `-t` the program has the terminal of the host, which keeps its owner."""
    leader, follower = pty.openpty()
    owner = os.fstat(follower).st_uid
    words = [sys.executable, "-m", "aerogel", "run", "--user", user, *program("print('seen', flush=True)")]
    process = subprocess.Popen(words, env=environ, stdin=follower, stdout=follower, stderr=follower)
    assert process.wait(60) == 0
    assert os.fstat(follower).st_uid == owner
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 4096):
            shown += part
    except OSError:  # EIO: the other end is closed
        pass
    os.close(leader)
    assert b"seen\r\n" in shown
