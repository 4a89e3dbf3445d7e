"""The rung `chroot`: as root of a container that may neither mount nor unshare."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from boxes import Box, gone, processes_with

from aerogel.errors import AerogelError
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.plain import children
from aerogel.sandbox.spec import Mount, Rootfs, Sandbox

pytestmark = [pytest.mark.host, pytest.mark.skipif(os.getuid() != 0, reason="rights are taken away from root")]

MAIN = """
import sys, time
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import *
state, layer, mark = sys.argv[1:]
helper = Helper.start(state, isolation="chroot", preload=())
script = f"trap '' INT TERM HUP; setsid nohup sleep {mark} & echo up >&2; while :; do sleep {mark}; done"
runs = [helper.run(Sandbox(argv=("sh", "-c", script), root=Rootfs(lowers=(layer,))), stdout=1, stderr=1) for _ in range(2)]
time.sleep(60)
"""

OF_32_BITS = r"""
static char secret[] = "/run/secrets/s", name[] = "/proc/self/comm", data[64];
static unsigned numbers[32], extended[64];
static int call(int number, void *a, void *b, int c, int d, void *e) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
    return result;
}
static void show(char *path) {
    int fd = call(295, (void *)-100, path, 0, 0, 0);
    int size = call(3, (void *)(long)fd, data, sizeof data, 0, 0);
    call(4, (void *)1, data, size > 0 ? size : 0, 0, 0);
}
void _start(void) {
    show(secret);
    show(name);
    call(195, secret, numbers, 0, 0, 0);
    call(383, (void *)-100, secret, 0, 0x7ff, extended);
    int right = numbers[4] == 0100440 && numbers[5] == 1 && numbers[6] == 5 && numbers[7] == 6 && numbers[11] == 10;
    right = right && extended[4] == 1 && extended[5] == 5 && extended[10] == 10 && call(5, secret, (void *)1, 0, 0, 0) == -30;
    call(1, (void *)(long)!right, 0, 0, 0, 0);
    for (;;);
}
"""
"""Reads a secret and its own name by the calls of 32-bit programs, and looks whether a file is what it should be."""


@pytest.fixture
def box(tmp_path, layer):
    with Helper.start(str(tmp_path / "state"), isolation="chroot", preload=()) as helper:
        assert (helper.rung.name, helper.rung.copies) == ("chroot", True)
        yield Box(helper, layer, tmp_path)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("no-such-program", 127), ("kill -TERM $$", 143)]
)
def test_exit_codes(box, script, code):
    assert box.run("sh", "-c", script)[0].code == code


def test_missing_program(box):
    ended, _ = box.run("/bin/none")
    assert ended.code == 127
    assert ended.fault is not None
    assert ended.fault.code == "sandbox.not-found"


@pytest.mark.parametrize("user", ["", "app"])
def test_proc_is_shown(box, user):
    said = box.sh(
        "cat /proc/self/comm; ls -d /proc/$$ >/dev/null && echo own; ls /proc/self/fd | wc -l; echo in | cat /dev/stdin; "
        "echo out >/dev/stdout; grep -c . /proc/version; test -d /proc/self && test -e /proc/meminfo && echo there; "
        "stat -c %F /proc/self/exe; ls -l /proc/$$/exe | sed 's/.*-> //'",
        user=user,
    )
    assert said == "cat\nown\n4\nin\nout\n1\nthere\nsymbolic link\n/bin/busybox\n"


def test_what_is_masked_and_may_not_be_written(box):
    said = box.sh(
        "cat /proc/kcore >/dev/null || echo masked; echo b >/proc/sysrq-trigger || echo refused; "
        "echo 1 >/proc/sys/kernel/printk || echo read-only"
    )
    assert said.replace("\n", " ").count("masked") == 1
    assert "refused" in said
    assert "read-only" in said


def test_rights(box):
    """Those of a step anywhere, but that no program can get more: only so may an ordinary process load a filter."""
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr '\\t' ' '"
    nothing, default = "0" * 16, "00000000a80425fb"
    sets = [f"CapInh: {nothing}", *(f"Cap{name}: {default}" for name in ("Prm", "Eff", "Bnd")), f"CapAmb: {nothing}"]
    assert box.sh(script).split("\n") == [*sets, "NoNewPrivs: 1", "Seccomp: 2", ""]
    of_user = box.sh(script, user="app").split("\n")
    assert [f"CapPrm: {nothing}", f"CapEff: {nothing}"] == of_user[1:3]


def test_nothing_is_left_behind(box):
    mark = f"8{os.getpid()}"
    box.sh(f"(setsid nohup sleep {mark} >/dev/null 2>&1 &); sleep {mark} >/dev/null 2>&1 & echo")
    assert processes_with(f"sleep {mark}") == []
    assert [name for name in os.listdir(box.scratch / "state") if name.startswith("run-")] == []


@pytest.mark.parametrize("victim", ["main", "helper"])
def test_killed(tmp_path, layer, victim):
    mark = f"7{os.getpid()}.{time.monotonic_ns() % 100000}"
    main = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(tmp_path), layer, mark],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    said = b""
    while said.count(b"up") < 2:
        data = os.read(main.stdout.fileno(), 100)
        assert data
        said += data
    if victim == "helper":
        os.kill(children(main.pid)[0], signal.SIGKILL)
    else:
        main.kill()
    assert gone(f"sleep {mark}")
    main.kill()
    main.wait()
    main.stdout.close()


def test_without_network(box):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def accept() -> None:
            server.accept()[0].close()

        threading.Thread(target=accept, daemon=True).start()
        port = server.getsockname()[1]
        assert box.run("nc", "-w1", "127.0.0.1", str(port), network="host")[0].code == 0
        ended, said = box.run("nc", "-w1", "127.0.0.1", str(port), network="none")
    assert ended.code != 0
    assert "Address family not supported" in said


def test_a_folder_of_the_host_is_shown_read_only_or_not_at_all(box, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere") / "host"
    folder.mkdir()
    (folder / "f").write_text("host\n")
    mount = Mount(kind="bind", source=str(folder), target="/m", readonly=True)
    assert box.sh("cat /m/f; echo x >/m/f", mounts=(mount,)) == "host\n"
    assert (folder / "f").read_text() == "host\n"
    with pytest.raises(AerogelError) as caught:
        box.run("true", mounts=(Mount(kind="bind", source=str(folder), target="/m"),))
    assert caught.value.code == "sandbox.mount"


def test_the_upper_has_what_changed(box):
    root = box.upper()
    script = "echo new >/etc/new; rm /etc/group; rm -r /srv; mkdir /srv; chmod 700 /home; touch -d @5 /root/x; ln /etc/new /etc/n2"
    box.sh(script, root=root)
    upper = Path(root.upper)
    assert sorted(str(path.relative_to(upper)) for path in upper.rglob("*")) == [
        *("etc", "etc/group", "etc/n2", "etc/new", "home", "root", "root/x", "srv"),
    ]
    assert (upper / "etc/group").is_socket()
    assert (upper / "etc/new").samefile(upper / "etc/n2")
    assert os.getxattr(upper / "srv", "user.overlay.opaque") == b"y"
    again = Rootfs(lowers=(box.layer, root.upper))
    said = box.sh("cat /etc/new; ls /etc; stat -c '%a %Y' /home /root/x", root=again)
    assert said.split("\n")[:1] == ["new"]
    assert "group" not in said
    assert "700 " in said
    assert "644 5" in said


def test_the_layer_below_is_never_written_to(box):
    before = {path: path.lstat().st_ctime_ns for path in Path(box.layer).rglob("*")}
    box.sh("echo x >>/etc/passwd; chmod 600 /bin/busybox; chmod 755 /bin/busybox; rm -rf /home /srv")
    assert {path: path.lstat().st_ctime_ns for path in Path(box.layer).rglob("*")} == before


def test_a_process_that_is_killed_from_outside(box):
    mark = f"6{os.getpid()}"
    read, write = os.pipe()
    sandbox = Sandbox(argv=("sh", "-c", f"sleep {mark} & echo up; wait"), root=Rootfs(lowers=(box.layer,)))
    with box.helper.run(sandbox, stdout=write, stderr=write) as process:
        os.close(write)
        assert os.read(read, 10) == b"up\n"
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(60).signal == signal.SIGKILL
    os.close(read)
    assert gone(f"sleep {mark}")


@pytest.mark.host("gcc")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only there such programs run")
def test_programs_of_32_bits_see_secrets_and_proc(box):
    source, root = box.scratch / "program.c", box.upper()
    source.write_text(OF_32_BITS)
    flags = ["-nostdlib", "-static", "-no-pie", "-fno-stack-protector", "-mno-red-zone", "-w"]
    subprocess.run(["gcc", *flags, "-o", str(Path(root.upper, "program")), str(source)], check=True)
    secret = Mount(kind="file", target="/run/secrets/s", data=b"in memory\n", is_secret=True, mode=0o440, uid=5, gid=6)
    lowers = (*root.lowers, root.upper)
    ended, said = box.run("/program", root=Rootfs(lowers=lowers), mounts=(secret,))
    assert (ended.code, said) == (0, "in memory\nprogram\n")
