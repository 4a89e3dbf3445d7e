"""What a command sees, and what is left of it."""

import os
import signal
import termios
import threading
import time

import pytest
from boxes import Box, gone, mounts_below
from waiting import read_until

from aerogel.errors import AerogelError
from aerogel.sandbox.spec import Limit, Mount, Rootfs, Sandbox

pytestmark = pytest.mark.host


def test_surroundings(box):
    said = box.sh(
        "hostname; pwd; umask; echo $HOME; echo $GREETING; cat; echo $$ >/dev/null; ls /proc/self/fd | wc -l; cat /etc/hostname",
        env=(("GREETING", "hällo"), ("PATH", "/bin")),
        cwd="/srv",
    )
    # ls itself opens the directory: 0, 1, 2 and that
    assert said.split("\n") == ["aerogel", "/srv", "0022", "/root", "hällo", "4", "aerogel", ""]


def test_environment_that_is_not_utf8(box):
    assert box.sh("echo ${#ODD}", env=(("ODD", "\udcff\udcfe"), ("PATH", "/bin"))) == "2\n"


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("exit 0", 0, 0),
        ("exit 42", 42, 0),
        ("exit 255", 255, 0),
        ("kill -KILL $$", 137, 9),
        ("kill -TERM $$", 143, 15),
        ("kill -SEGV $$", 139, 11),
        ("nosuchprogram", 127, 0),
    ],
)
def test_exit_codes(box, script, code, number):
    ended, _ = box.run("sh", "-c", script)
    assert (ended.code, ended.signal, ended.oom, ended.fault) == (code, number, False, None)


def test_missing_program(box):
    ended, said = box.run("nosuchprogram", env=(("PATH", "/bin:/usr/bin"),))
    assert (ended.code, said) == (127, "")
    assert ended.fault is not None
    assert ended.fault.code == "sandbox.not-found"
    assert ended.fault.message == "`nosuchprogram` is not in the image"
    assert ended.fault.hints == ("PATH is `/bin:/usr/bin`",)


def test_no_shell(box, tmp_path):
    (tmp_path / "empty").mkdir()
    ended, _ = box.run("/bin/sh", "-c", "true", root=Rootfs(lowers=(str(tmp_path / "empty"),)))
    assert ended.code == 127
    assert "has no shell" in ended.fault.hints[0]


def test_programs_that_cannot_be_executed(box):
    upper = box.upper()
    box.sh(
        "echo hi >/a; printf '#!/usr/bin/perl\\n' >/b; printf '#!/bin/sh\\r\\n' >/c; chmod +x /b /c; mkdir /d;"
        "printf '\\177ELF\\002\\001\\001\\0\\0\\0\\0\\0\\0\\0\\0\\0\\002\\0\\267\\0' >/e; echo plain >/f; chmod +x /e /f",
        root=upper,
    )
    root = Rootfs(lowers=(*upper.lowers, upper.upper))

    def outcome(program):
        ended, _ = box.run(program, root=root)
        return ended.code, ended.fault.code, ended.fault.message, *ended.fault.hints

    assert outcome("/a")[:3] == (126, "sandbox.not-executable", "`/a` cannot be executed: Permission denied")
    assert outcome("/b")[:3] == (
        127,
        "sandbox.not-found",
        "`/b` is in the image, but the program that runs it, `/usr/bin/perl`, is not",
    )
    assert "Windows line ends" in outcome("/c")[2]
    assert outcome("/d")[2] == "`/d` is a directory"
    assert outcome("/e")[0] == 126
    assert outcome("/e")[3] == f"it is built for aarch64, this machine is {os.uname().machine}"
    assert outcome("/f")[3] == "a script needs a first line such as `#!/bin/sh`"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "0 0 0"),
        ("app", "1000 1001 44 63 1001"),
        ("app:other", "1000 70 70"),
        ("1000", "1000 1001 44 63 1001"),
        ("1234", "1234 0 0"),
        ("1234:5678", "1234 5678 5678"),
        (":app", "0 1001 1001"),
    ],
)
def test_users(box, user, expected):
    uid, gid, *groups = expected.split()
    said = box.sh("id -u; id -g; id -G", user=user).split("\n")
    assert said[:2] == [uid, gid]
    assert sorted(map(int, {*said[2].split(), gid})) == sorted(map(int, groups))


def test_home_of_a_user(box):
    assert box.sh("echo $HOME", user="app") == "/home/app\n"


@pytest.mark.parametrize(("user", "code"), [("nobody", "sandbox.no-user"), ("root:nogroup", "sandbox.no-group")])
def test_unknown_users(box, user, code):
    with pytest.raises(AerogelError) as caught:
        box.run("true", user=user)
    assert caught.value.code == code


def test_output_pipes_can_be_opened_again_by_a_user(box):
    assert box.sh("echo one >/dev/stdout; echo two >/dev/stderr", user="app") == "one\ntwo\n"


def test_capabilities_and_filter(box):
    said = box.sh("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status")
    masks = dict(line.split(":\t") for line in said.strip().split("\n"))
    default = "00000000a80425fb"
    assert [masks[n] for n in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [
        "0" * 16,
        default,
        default,
        default,
        "0" * 16,
    ]
    assert masks["NoNewPrivs"] == "0"
    assert masks["Seccomp"] == "2"


def test_capabilities_of_a_user_and_no_new_privileges(box):
    said = box.sh("grep -E '^(NoNew|CapEff|CapPrm)' /proc/self/status", user="app", no_new_privileges=True)
    assert said.endswith("NoNewPrivs:\t1\n")
    if box.helper.rung.name != "single":  # there a user is one in name only, but kept from what users may not write
        assert said.startswith(f"CapPrm:\t{'0' * 16}\nCapEff:\t{'0' * 16}\n")
    assert box.sh("echo x >/etc/passwd || echo refused", user="app").endswith("refused\n")


@pytest.mark.parametrize(
    "script",
    [
        "mount -t tmpfs x /tmp",
        "umount /proc/sys",
        "unshare -U true",
        "unshare -m true",
        "hostname other",
        "echo 1 >/proc/sys/kernel/printk",
        "echo x >/etc/resolv.conf",
        "echo b >/proc/sysrq-trigger",
        "mknod /dev/raw b 7 0 && head -c1 /dev/raw | grep -q .",
        "mknod /raw c 1 5 && head -c1 /raw | grep -q .",
        "head -c1 /proc/kcore | grep -q .",
        "ls /sys/firmware | grep -q .",
        "mkdir /sys/fs/cgroup/mine",
        "cat /proc/1/environ",
        "ls /proc/1/root/ >/dev/null",
        "for f in /proc/1/fd/*; do ls -l $f | grep -q -- '->' && exit 0; done; exit 1",
        "cat /proc/1/mem",
    ],
)
def test_refused(box, script):
    ended, said = box.run("sh", "-c", script)
    assert ended.code not in (0, 127), said


def test_insecure(box):
    said = box.sh("grep Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted", insecure=True)
    # the calls that process 1 answers for the owners that it records
    assert said == f"Seccomp:\t{2 if box.helper.rung.name == 'single' else 0}\nmounted\n"


def test_init_reaps_and_leaves_nobody(box):
    mark = f"{os.getpid()}.{time.monotonic_ns() % 10000}"
    said = box.sh(
        "i=0; while [ $i -lt 200 ]; do (true &) ; i=$((i+1)); done; i=0;"
        "while grep -q zombie /proc/[0-9]*/status 2>/dev/null && [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done;"
        f"grep -l zombie /proc/[0-9]*/status 2>/dev/null | wc -l; (setsid nohup sleep 7{mark} >/dev/null 2>&1 &); echo $$"
    )
    assert said == "0\n2\n"
    assert gone(f"sleep 7{mark}", 0)


def test_signals_reach_the_command(box):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        read, write = os.pipe()
        script = "trap 'exit 41' TERM INT USR1; echo ready; while :; do sleep 0.05; done"
        process = box.helper.run(
            Sandbox(argv=("sh", "-c", script), root=Rootfs(lowers=(box.layer,))), stdout=write, stderr=write
        )
        os.close(write)
        assert os.read(read, 100) == b"ready\n"
        process.signal(number)
        assert process.wait(60).code == 41
        os.close(read)


def test_stop_kills_what_ignores_signals(box):
    read, write = os.pipe()
    script = "trap '' TERM INT; echo ready; sleep 600 & while :; do sleep 1; done"
    process = box.helper.run(
        Sandbox(argv=("sh", "-c", script), root=Rootfs(lowers=(box.layer,))), stdout=write, stderr=write
    )
    os.close(write)
    assert os.read(read, 100) == b"ready\n"
    with pytest.raises(TimeoutError):
        process.wait(0.05)
    began = time.monotonic()
    ended = process.stop(0.2)
    assert (ended.code, ended.signal) == (137, 9)
    assert time.monotonic() - began < 300, "it waits for no end of what sleeps"
    assert os.read(read, 100) == b""
    os.close(read)


def test_closing_kills(box):
    mark = f"8{os.getpid()}.{time.monotonic_ns() % 10000}"
    with box.helper.run(Sandbox(argv=("sleep", mark), root=Rootfs(lowers=(box.layer,))), stdout=2, stderr=2):
        pass
    assert gone(f"sleep {mark}", 0)


def test_terminal(box):
    sandbox = Sandbox(
        argv=("sh", "-c", "stty size; tty; test -c /dev/console && ls /dev/pts; read x; echo got $x; exit 3"),
        root=Rootfs(lowers=(box.layer,)),
        tty=True,
        window=(31, 97),
    )
    with box.helper.run(sandbox, stdout=1, stderr=2) as process:
        os.write(process.tty, b"word\n")
        said = b""
        while True:
            try:
                said += os.read(process.tty, 1000)
            except OSError:
                break
        assert process.wait().code == 3
    lines = said.decode().split("\r\n")
    lines.remove("word")  # the echo
    assert lines == ["31 97", "/dev/pts/0", "0     ptmx", "got word", ""] or lines[:2] == ["31 97", "/dev/pts/0"]


def test_a_window_that_changes(box):
    """Every program in the foreground is told (SIGWINCH), and the terminal says its new size."""
    script = "trap 'stty size; exit 7' WINCH; stty size; while :; do sleep 0.05; done"
    sandbox = Sandbox(argv=("sh", "-c", script), root=Rootfs(lowers=(box.layer,)), tty=True, window=(31, 97))
    with box.helper.run(sandbox, stdout=1, stderr=2) as process:
        read_until(process.tty, b"31 97\r\n")
        termios.tcsetwinsize(process.tty, (52, 133))
        read_until(process.tty, b"52 133\r\n")
        assert process.wait(60).code == 7


def test_input_that_ends(box):
    """Of a step at once; of a pipe when its writer closes; of a terminal with its key for that."""
    assert box.run("sh", "-c", "cat; read x; echo $?")[1] == "1\n"
    read, write = os.pipe()
    given, giver = os.pipe()
    with box.helper.run(
        Sandbox(argv=("sh", "-c", "cat; echo over"), root=Rootfs(lowers=(box.layer,))),
        stdin=given,
        stdout=write,
        stderr=write,
    ) as process:
        os.close(given)
        os.close(write)
        os.write(giver, b"words\n")
        read_until(read, b"words\n")
        os.close(giver)
        assert process.wait(60).code == 0
        assert os.read(read, 100) == b"over\n"
    os.close(read)
    sandbox = Sandbox(argv=("sh", "-c", "echo up; cat; exit 4"), root=Rootfs(lowers=(box.layer,)), tty=True)
    with box.helper.run(sandbox, stdout=1, stderr=2) as process:
        read_until(process.tty, b"up\r\n")
        os.write(process.tty, b"word\n\x04")
        assert process.wait(60).code == 4


def test_control_c_on_the_terminal(box):
    sandbox = Sandbox(argv=("sh", "-c", "echo ready; sleep 60"), root=Rootfs(lowers=(box.layer,)), tty=True)
    with box.helper.run(sandbox, stdout=1, stderr=2) as process:
        assert os.read(process.tty, 100) == b"ready\r\n"
        os.write(process.tty, b"\x03")
        assert process.wait(60).code == 130


def test_network_none(box):
    said = box.sh("ls /sys/class/net; cat /proc/net/route | wc -l; ls /proc/sys/net >/dev/null", network="none")
    assert said == "lo\n1\n"


def test_network_host_reaches_the_host(box):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def greet():
            with server.accept()[0] as peer:
                peer.sendall(b"hello\n")

        answer = threading.Thread(target=greet, daemon=True)
        answer.start()
        assert box.sh(f"nc 127.0.0.1 {port} </dev/null & wait") == "hello\n"
        answer.join()
    with open("/etc/resolv.conf") as file:
        assert box.sh("cat /etc/resolv.conf") == file.read()


def test_hosts(box):
    said = box.sh("cat /etc/hosts", hostname="box", hosts=(("mirror.example", "192.0.2.7"),), network="none")
    assert said.split("\n") == [
        "127.0.0.1\tlocalhost box",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "192.0.2.7\tmirror.example",
        "",
    ]


def test_limits(box):
    assert box.sh("ulimit -n; ulimit -c", limits=(Limit("nofile", 77, 99), Limit("core", 0, 0))) == "77\n0\n"
    ended, _ = box.run("true", limits=(Limit("nofiles", 1, 1),))
    assert ended.fault.code == "sandbox.unknown-limit"


def test_working_directory(box):
    assert box.sh("pwd", cwd="/made/here", create_cwd=True) == "/made/here\n"
    ended, _ = box.run("pwd", cwd="/nowhere")
    assert ended.fault.code == "sandbox.no-directory"


def test_readonly_root(box):
    ended, said = box.run("touch", "/x", root=Rootfs(lowers=(box.layer,), readonly=True))
    assert ended.code == 1
    assert "Read-only file system" in said


def test_written_files_are_in_the_upper(box):
    upper = box.upper()
    box.sh("echo text >/etc/new; rm /etc/group; chmod 700 /srv", root=upper)
    assert sorted(os.listdir(upper.upper)) == ["etc", "srv"]
    assert sorted(os.listdir(upper.upper + "/etc")) == ["group", "new"]
    again = Rootfs(lowers=(*upper.lowers, upper.upper))
    assert box.sh("cat /etc/new; test -e /etc/group || echo gone", root=again) == "text\ngone\n"


def test_an_upper_is_used_twice(box):
    upper = box.upper()
    box.sh("touch /one", root=upper)
    assert box.sh("ls -d /one; touch /two", root=upper) == "/one\n"
    assert sorted(os.listdir(upper.upper)) == ["one", "two"]


def test_a_private_upper_does_not_hide_the_root(box):
    upper = box.upper()
    os.chmod(upper.upper, 0o700)
    assert box.sh("stat -c %a /; ls -d /bin", root=upper, user="app") == "755\n/bin\n"


@pytest.mark.parametrize("count", [1, 60, 130, 400])
def test_many_layers(box, tmp_path, count):
    lowers = [box.layer]
    for number in range(count):
        path = tmp_path / f"a rather, long: name for\\a layer {number}"
        path.mkdir()
        (path / f"file{number}").touch()
        lowers.append(str(path))
    assert box.sh("ls / | grep -c ^file", root=Rootfs(lowers=tuple(lowers))) == f"{count}\n"


def test_a_missing_layer(box):
    with pytest.raises(AerogelError) as caught:
        box.run("true", root=Rootfs(lowers=("/nowhere/at/all",)))
    assert caught.value.code == "sandbox.no-layer"


def test_many_at_once(box):
    results = []

    def work(number):
        ended, said = box.run("sh", "-c", f"sleep 0.0{number % 5}; echo {number}; exit {number}")
        done = box.helper.call("echo", {"text": str(number)})
        results.append((ended.code, int(said), int(done["text"])))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(n, n, n) for n in range(24)]


def test_no_descriptors_are_left(box):
    box.sh("true")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        box.sh("true")
        with pytest.raises(AerogelError):
            box.run("true", user="nobody")
    assert len(os.listdir("/proc/self/fd")) == before
    assert mounts_below("session-") == []


def test_insecure_names_are_no_paths(box):
    for target in ("relative", "/", "/a/../../b", ""):
        with pytest.raises(AerogelError) as caught:
            box.run("true", mounts=(Mount(kind="tmpfs", target=target),))
        assert caught.value.code == "sandbox.mount-target"
    assert isinstance(box, Box)
