"""A second command beside a running one: it sees the same, has its own terminal and rights, and ends with it."""

import contextlib
import os
import signal

import pytest
from boxes import Box, gone, processes_with
from waiting import until

from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import Rootfs, Sandbox

pytestmark = pytest.mark.host


@pytest.fixture(scope="module", params=["auto", "single", "chroot"] if os.getuid() == 0 else ["auto", "single"])
def rung(request, tmp_path_factory):
    with Helper.start(str(tmp_path_factory.mktemp("state")), isolation=request.param, preload=()) as helper:
        yield helper


@pytest.fixture
def box(rung, layer, tmp_path):
    return Box(rung, layer, tmp_path)


def is_plain(box):
    """Whether there are no namespaces: then names and devices are the host's."""
    return box.helper.rung.name == "chroot"


@contextlib.contextmanager
def running(box, script="echo up; sleep 1000", **fields):
    """A command that others may join, when it has said something."""
    read, write = os.pipe()
    fields.setdefault("root", Rootfs(lowers=(box.layer,)))
    sandbox = Sandbox(argv=("sh", "-c", script), joinable=True, **fields)
    with box.helper.run(sandbox, stdout=write, stderr=write) as process:
        os.close(write)
        assert os.read(read, 100) == b"up\n"
        yield process
    os.close(read)


def joined(box, process, *argv, **fields):
    """How a command beside `process` ends, and what it says."""
    read, write = os.pipe()
    with open(read, "rb") as output:
        try:
            other = box.helper.join(process, Sandbox(argv=argv, root=Rootfs(), **fields), stdout=write, stderr=write)
        finally:
            os.close(write)
        with other:
            said = output.read().decode()
            return other.wait(60), said


def test_it_sees_what_the_first_one_sees(box):
    with running(box, "echo mine >/tmp/file; echo up; sleep 1000", hostname="there") as process:
        ended, said = joined(box, process, "sh", "-c", "cat /tmp/file; hostname; ps | grep -c '[s]leep 1000'; id -u")
        name = os.uname().nodename if is_plain(box) else "there"
        assert (ended.code, said) == (0, f"mine\n{name}\n1\n0\n")
        ended, said = joined(
            box, process, "sh", "-c", "id -u; id -G; echo $HOME $X; pwd", user="app", cwd="/srv", env=(("X", "y"),)
        )
        assert (ended.code, said) == (0, "1000\n1001 44 63\n/home/app y\n/srv\n")
        assert joined(box, process, "sh", "-c", "echo two >/tmp/two; exit 7")[0].code == 7
        assert joined(box, process, "cat", "/tmp/two")[1] == "two\n"


def test_what_cannot_be_started(box):
    with running(box) as process:
        ended, _ = joined(box, process, "nosuch", env=(("PATH", "/bin"),))
        assert (ended.code, ended.fault.code) == (127, "sandbox.not-found")
        assert joined(box, process, "sh", "-c", "kill -9 $$")[0] == (137, 9, False, None)


def test_the_same_rights_and_filters(box):
    script = "grep -E '^(Cap(Eff|Bnd)|Seccomp|NoNewPrivs)' /proc/self/status; ls /proc/self/fd | wc -l"
    with running(box) as process:
        assert joined(box, process, "sh", "-c", script)[1] == box.sh(script)
        assert joined(box, process, "unshare", "-U", "true")[0].code != 0


def test_its_own_network(box):
    script = "grep -c : /proc/net/dev"
    with running(box, network="none") as process:
        expected = box.sh(script, network="none") if is_plain(box) else "1\n"
        assert joined(box, process, "sh", "-c", script)[1] == expected


def test_a_terminal(box):
    with running(box) as process:
        sandbox = Sandbox(
            argv=("sh", "-c", "tty; stty size; read x; echo got $x"), root=Rootfs(), tty=True, window=(33, 99)
        )
        with box.helper.join(process, sandbox, stdout=1, stderr=2) as other:
            said = b""
            while b"33 99" not in said:
                said += os.read(other.tty, 100)
            os.write(other.tty, b"key\n")
            while b"got key" not in said:
                said += os.read(other.tty, 100)
            assert other.wait(60).code == 0
        assert said.startswith(b"not a tty" if is_plain(box) else b"/dev/pts/")


def test_the_first_ones_end_ends_it(box):
    mark = f"8{os.getpid()}.1"
    with running(box) as process:
        sandbox = Sandbox(argv=("sh", "-c", f"trap '' TERM; sleep {mark}"), root=Rootfs())
        other = box.helper.join(process, sandbox, stdout=1, stderr=2)
        process.kill()
        assert other.wait(60).code == 137
        other.close()
    assert gone(f"sleep {mark}")


def test_what_it_leaves_behind_lives_as_long_as_the_first(box):
    mark = f"8{os.getpid()}.2"
    with running(box) as process:
        assert joined(box, process, "sh", "-c", f"setsid sleep {mark} >/dev/null 2>&1 &")[0].code == 0
        lives = box.helper.rung.name not in ("single", "chroot")
        until(lambda: len(processes_with(f"sleep {mark}")) == lives)
    assert gone(f"sleep {mark}")


def test_letting_go_of_it_ends_it_alone(box):
    mark = f"8{os.getpid()}.3"
    with running(box) as process:
        sandbox = Sandbox(argv=("sleep", mark), root=Rootfs())
        box.helper.join(process, sandbox, stdout=1, stderr=2).close()
        assert gone(f"sleep {mark}")
        other = box.helper.join(process, sandbox, stdout=1, stderr=2)
        other.signal(signal.SIGTERM)
        assert other.wait(60).signal == signal.SIGTERM
        other.close()
        assert joined(box, process, "true")[0].code == 0
