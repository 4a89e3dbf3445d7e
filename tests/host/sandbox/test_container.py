"""`aerogel run`: the image's config, the options, terminal and signals."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import termios
import threading

import pytest

from aerogel.errors import AerogelError
from aerogel.oci.types import ContainerConfig
from aerogel.runtime.container import ContainerOptions, run

pytestmark = pytest.mark.host

CONFIG = ContainerConfig(
    entrypoint=("/bin/sh", "-c"),
    cmd=('echo "$0 $@ $GREETING $PATH $HOSTNAME $TERM"; pwd; id -u; exit 5',),
    env=("PATH=/bin", "GREETING=hi"),
    working_dir="/made",
    user="app",
)


@pytest.fixture
def ran(box):
    def function(config=CONFIG, given=b"", **options):
        with contextlib.ExitStack() as stack:
            read, write = os.pipe()
            output = stack.enter_context(open(read, "rb"))
            input_read, input_write = os.pipe()
            os.write(input_write, given)
            os.close(input_write)
            try:
                ended = run(
                    box.helper, [box.layer], config, ContainerOptions(**options), stdio=(input_read, write, write)
                )
            finally:
                os.close(write)
                os.close(input_read)
            return ended, output.read().decode()

    return function


def test_the_config_of_the_image(ran):
    ended, said = ran()
    assert (ended.code, said) == (5, "/bin/sh  hi /bin aerogel \n/made\n1000\n")


def test_options_change_it(ran):
    ended, said = ran(
        entrypoint="/bin/echo", arguments=("a", "b c"), user="0", workdir="/tmp", env=(("GREETING", "yo"),)
    )
    assert (ended.code, said) == (0, "a b c\n")
    assert ran(arguments=("echo $GREETING; id -u",), env=(("GREETING", "yo"),), user="0:0")[1] == "yo\n0\n"
    assert ran(entrypoint="", arguments=("pwd",))[1] == "/made\n"


def test_no_command(ran):
    with pytest.raises(AerogelError) as caught:
        ran(ContainerConfig())
    assert caught.value.code == "run.no-command"


def test_standard_input(ran):
    assert ran(entrypoint="cat", given=b"words\n", interactive=True)[1] == "words\n"
    assert ran(entrypoint="cat", given=b"words\n")[1] == ""


def test_volumes(ran, tmp_path):
    tmp_path.chmod(0o755)
    source = tmp_path / "new/dir"
    ran(entrypoint="", user="0", arguments=("sh", "-c", "echo x >/data/file"), volumes=(f"{source}:/data",))
    assert (source / "file").read_text() == "x\n"
    ended, said = ran(
        entrypoint="",
        user="0",
        arguments=("sh", "-c", "cat /data/file; touch /data/y"),
        volumes=(f"{source}:/data:ro",),
    )
    assert ended.code == 1
    assert "Read-only" in said


@pytest.mark.parametrize("text", ["src:/dst", "/src:dst", "/only", "/a:/b:rx", "", ":/x", "./a:/b"])
def test_volumes_that_are_wrong(ran, text):
    with pytest.raises(AerogelError) as caught:
        ran(volumes=(text,))
    assert caught.value.code in ("run.volume", "sandbox.mount-target")


def test_capabilities(ran):
    arguments = ("sh", "-c", "grep CapEff /proc/self/status")
    assert ran(entrypoint="", user="0", arguments=arguments, cap_drop=("ALL",))[1] == f"CapEff:\t{'0' * 16}\n"
    said = ran(entrypoint="", user="0", arguments=arguments, cap_drop=("ALL",), cap_add=("cap_net_raw",))[1]
    assert said == "CapEff:\t0000000000002000\n"
    with pytest.raises(AerogelError) as caught:
        ran(cap_add=("NET_ROW",))
    assert caught.value.code == "sandbox.unknown-capability"


def test_what_is_written_is_thrown_away(ran, box):
    script = ("sh", "-c", "echo x >/root/file; ls /root")
    for _ in range(2):
        assert ran(entrypoint="", user="0", arguments=script)[1] == "file\n"
    assert os.listdir(f"{box.layer}/root") == []


def test_a_missing_program_has_a_fault(ran):
    ended, _ = ran(entrypoint="/nowhere")
    assert (ended.code, ended.fault.code) == (127, "sandbox.not-found")


def test_a_terminal(box):
    """Keys go in raw, the window has the size of the user's, and its terminal is as before at the end."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 120))
    before = termios.tcgetattr(slave)
    said = b""

    def watch():
        nonlocal said
        while not said.endswith(b"ready\r\n"):
            said += os.read(master, 1000)
        os.write(master, b"\x03")

    watcher = threading.Thread(target=watch)
    watcher.start()
    options = ContainerOptions(
        entrypoint="", arguments=("sh", "-c", "stty size; echo ready; sleep 30"), tty=True, interactive=True
    )
    ended = run(box.helper, [box.layer], ContainerConfig(), options, stdio=(slave, slave, slave))
    watcher.join()
    assert ended.code == 130
    assert said == b"40 120\r\nready\r\n"
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


class Early:
    """A helper whose callers get a signal when the command runs, before they know it."""

    def __init__(self, helper, number):
        self.helper, self.number = helper, number
        self.rung = helper.rung

    def run(self, *words, **options):
        process = self.helper.run(*words, **options)
        signal.raise_signal(self.number)
        return process


@pytest.mark.parametrize(
    ("script", "number", "code"), [("sleep 60", signal.SIGINT, 130), ("sleep 60", signal.SIGTERM, 143)]
)
def test_a_signal_while_the_command_is_started_is_relayed(box, script, number, code):
    before = signal.getsignal(number)
    options = ContainerOptions(arguments=("sh", "-c", script), grace_s=20)
    assert run(Early(box.helper, number), [box.layer], ContainerConfig(), options).code == code
    assert signal.getsignal(number) == before


MAIN = """
import sys
from aerogel.oci.types import ContainerConfig
from aerogel.runtime.container import ContainerOptions, run
from aerogel.sandbox.launch import Helper
with Helper.start(sys.argv[1], preload=()) as helper:
    options = ContainerOptions(arguments=("sh", "-c", sys.argv[3]), grace_s=0.3)
    ended = run(helper, [sys.argv[2]], ContainerConfig(), options)
sys.exit(ended.code)
"""


@pytest.mark.parametrize(
    ("script", "number", "code"),
    [
        ("trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done", signal.SIGINT, 9),
        ("echo ready; sleep 60; echo over", signal.SIGINT, 130),
        ("trap '' INT TERM; echo ready; while :; do sleep 1; done", signal.SIGTERM, 137),
    ],
)
def test_signals_are_relayed(tmp_path, layer, script, number, code):
    main = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(tmp_path), layer, script],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    with main:
        assert main.stdout.readline() == b"ready\n"
        main.send_signal(number)
        assert main.wait(60) == code
    assert os.listdir(tmp_path) == []
