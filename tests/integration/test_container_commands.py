"""Commands for containers beside starting and ending them: files, terminal, processes, names, documents, as docker has them."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import tarfile
import termios
import time

import pytest
from process import Aerogel
from small_image import build_small_image
from waiting import read_until, until

pytestmark = pytest.mark.host("busybox")

MORE = (
    "RUN ln -s /etc /lnk && ln -s ../../../../../../etc/passwd /esc && ln -s ../../../../../.. /up && mkfifo /srv/pipe\n"
    "EXPOSE 80 53/udp\nENV A=1\n"
)
RUNGS = ("single", "chroot") if os.getuid() == 0 else ()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """A store with the image `small`, on the rung that is usual here."""
    return store(tmp_path_factory.mktemp("commands"), "auto")


@pytest.fixture
def small(usual):
    yield usual
    tidy(usual)


@pytest.fixture(params=("auto", *RUNGS))
def each_rung(request, usual, tmp_path_factory):
    """The same on each rung that can be forced."""
    aerogel = usual if request.param == "auto" else store(tmp_path_factory.mktemp("commands"), request.param)
    yield aerogel
    tidy(aerogel)


def store(folder, rung):
    aerogel = Aerogel(folder / "state")
    aerogel.env["AEROGEL_ISOLATION"] = rung
    build_small_image(aerogel, folder / "image", "small", MORE)
    return aerogel


def tidy(aerogel):
    """Removes what a test leaves."""
    left = aerogel("ps", "-aq").stdout.split()
    if left:
        aerogel("rm", "-f", *left)


def has_mounts(small):
    return small.env["AEROGEL_ISOLATION"] != "chroot"


@pytest.fixture
def tree(tmp_path):
    """Files of the host."""
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "sub/x").write_text("x\n")
    (top / "sub/x").chmod(0o741)
    os.link(top / "sub/x", top / "hard")
    (top / "link").symlink_to("sub/x")
    (tmp_path / "one").write_text("one\n")
    return tmp_path


@pytest.mark.parametrize("runs", [True, False])
def test_files_both_ways(each_rung, tree, runs):
    small = each_rung
    small("run", "-d", "--name", "box", "small", "sleep", "1000")
    if not runs:
        small("stop", "-t", "0", "box")
    small("cp", "one", "box:/srv", cwd=tree)
    small("cp", "one", "box:/srv/two", cwd=tree)
    small("cp", "tree", "box:/srv", cwd=tree)
    small("cp", "tree/.", "box:/srv/new", cwd=tree)
    small("cp", "tree/.", "box:/lnk", cwd=tree)  # a link inside is followed inside
    tar = subprocess.run(small.argv("cp", "box:/srv", "-"), env=small.env, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        names = set(archive.getnames())
        assert archive.extractfile("srv/two").read() == b"one\n"
        assert archive.getmember("srv/tree/sub/x").mode == 0o741
        linked = [each for each in archive.getmembers() if each.name.startswith("srv/tree/") and each.islnk()]
        assert [each.linkname.startswith("srv/tree/") for each in linked] == [True]
    assert names >= {"srv", "srv/one", "srv/tree/link", "srv/new/sub/x", "srv/new/hard"}
    small("cp", "box:/etc/sub/x", "back", cwd=tree)
    assert (tree / "back").read_text() == "x\n"
    small("cp", "box:srv/tree", "copy", cwd=tree)
    assert os.readlink(tree / "copy/link") == "sub/x"
    assert os.stat(tree / "copy/hard").st_ino == os.stat(tree / "copy/sub/x").st_ino
    small("cp", "box:/srv/tree", "copy", cwd=tree)
    assert (tree / "copy/tree/hard").read_text() == "x\n"
    done = subprocess.run(small.argv("cp", "-", "box:/tmp"), env=small.env, input=tar, capture_output=True, check=True)
    assert done.stdout == done.stderr == b""
    if not runs:
        small("start", "box")
    assert small("exec", "box", "cat", "/tmp/srv/tree/link").stdout == "x\n"
    assert small("exec", "box", "stat", "-c", "%a", "/srv/new/sub/x").stdout == "741\n"


def test_no_link_leads_out_of_the_container(small, tmp_path):
    (tmp_path / "mark").write_text("of the host")
    small("run", "-d", "--name", "box", "small", "sleep", "1000")
    assert small("cp", "-L", "box:/esc", "-").stdout.count("app:x:1000:1001") == 1
    small("cp", "box:/esc", "esc", cwd=tmp_path)
    assert os.readlink(tmp_path / "esc") == "../../../../../../etc/passwd"
    small("cp", "mark", f"box:/up{tmp_path.parent}", cwd=tmp_path, check=False)
    assert sorted(os.listdir(tmp_path.parent)) == sorted({*os.listdir(tmp_path.parent)} - {"mark"})
    small("cp", "mark", "box:/up/tmp/mark", cwd=tmp_path)
    assert small("exec", "box", "cat", "/tmp/mark").stdout == "of the host"


def test_a_hostile_tree_on_its_way_out(small, tmp_path):
    """A link in the place of a folder is not written through on this host."""
    small("run", "-d", "--name", "box", "small", "sh", "-c", "mkdir -p /bad/d && echo evil >/bad/d/f; sleep 1000")
    until(lambda: small("exec", "box", "ls", "/bad/d/f", check=False).returncode == 0)
    (tmp_path / "out/bad").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    (tmp_path / "out/bad/d").symlink_to("../../victim")
    small("cp", "box:/bad", "out", cwd=tmp_path, check=False)
    assert os.listdir(tmp_path / "victim") == []


def test_owners_of_what_is_copied(small, tmp_path):
    small("run", "-d", "--name", "box", "-u", "app", "small", "sleep", "1000")
    (tmp_path / "f").write_text("f")
    if os.getuid() == 0:
        os.chown(tmp_path / "f", 7, 8)
        small("cp", "f", "box:/srv/f", cwd=tmp_path)
        tar = subprocess.run(small.argv("cp", "box:/srv/f", "-"), env=small.env, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            assert [(each.uid, each.gid) for each in archive] == [(7, 8)]
    small("cp", "-a", "f", "box:/srv/g", cwd=tmp_path)
    tar = subprocess.run(small.argv("cp", "box:/srv/g", "-"), env=small.env, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert [(each.uid, each.gid) for each in archive] == [(1000, 1001)]
    small("cp", "box:/srv/g", "back", cwd=tmp_path)
    assert os.stat(tmp_path / "back").st_uid == os.getuid()


def test_what_cannot_be_copied_whole_leaves_nothing(small, tmp_path):
    """Files that the kernel makes up have no size beforehand."""
    small("run", "-d", "--name", "box", "small", "sleep", "1000")
    for source, target in (
        ("box:/proc/self/net", "new"),
        ("box:/proc/self/status", "."),
        ("box:/proc/sys/kernel", "."),
    ):
        done = small("cp", source, target, cwd=tmp_path, check=False)
        assert done.returncode == 1, done.stderr
        assert " changed while it was read: it had 0 bytes\n" in done.stderr
        assert "is read by `aerogel exec NAME cat FILE`" in done.stderr
        assert os.listdir(tmp_path) == []


WRONG_WORDS = [
    (["box:/none", "x"], "there is no `/none` in container `box`"),
    (["none", "box:/x"], "there is no `"),
    (["box:/etc/passwd", "none/there/"], "there is no directory `"),
    (["f", "box:/none/there/"], "there is no directory `/none/there/` in container `box`"),
    (["f", "box:/none/there"], "there is no directory `/none` in container `box`"),
    (["d", "box:/etc/passwd"], "`/etc/passwd` is a file, and a directory is copied in container `box`"),
    (["d/f", "box:/srv"], "`f` is no directory, and what is there now is one: it is not replaced"),
    (["box:/a", "box:/b"], "files are not copied from container to container"),
    (["a", "b"], "neither is in a container"),
    (["box:", "b"], "`box:` is not `CONTAINER:PATH`"),
    (["none:/a", "b"], "there is no container `none`"),
    (["-", "box:/etc/passwd"], "`/etc/passwd` is not a directory in container `box`"),
    (["-", "box:/etc"], "tar archive is damaged at byte 0: "),
    (["box:/etc/passwd", "/sys/x"], "cannot unpack `/x`: "),
    (["box:/etc", "/sys/x"], "cannot unpack `/x`: "),
]


def test_wrong_words_of_cp(small, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("f")
    (tmp_path / "f").write_text("f")
    small("run", "-d", "--name", "box", "small", "sh", "-c", "mkdir /srv/f; sleep 1000")
    until(lambda: small("exec", "box", "ls", "/srv/f", check=False).returncode == 0)
    for words, said in WRONG_WORDS:
        done = small("cp", *words, check=False, cwd=tmp_path, input="no tar" * 200)
        assert done.returncode in (1, 2)
        assert f"error: {said}" in done.stderr


def test_attach_to_a_terminal(small):
    """Its window, its keys, leaving it with keys, its end."""
    small("run", "-dit", "--name", "box", "small", "sh")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (33, 99))
    before = termios.tcgetattr(slave)

    def attach(*words):
        return subprocess.Popen(
            small.argv("attach", *words, "box"), env=small.env, stdin=slave, stdout=slave, stderr=slave
        )

    process = attach()
    until(lambda: termios.tcgetattr(slave) != before)
    os.write(master, b"stty size\n")
    read_until(master, b"33 99")
    os.write(master, b"\x10\x11")
    assert process.wait(60) == 0
    assert b"goes on" in read_until(master, b"goes on")
    assert termios.tcgetattr(slave) == before
    process = attach("--detach-keys", "ctrl-x,y")
    until(lambda: termios.tcgetattr(slave) != before)
    os.write(master, b"\x10\x11\x18")  # the keys of the default, and the first of the two
    time.sleep(0.2)
    os.write(master, b"z\x18y")
    assert process.wait(60) == 0
    process = attach()
    until(lambda: termios.tcgetattr(slave) != before)
    os.write(master, b"\x15\nexit 5\n")
    assert process.wait(60) == 5
    os.close(master)
    os.close(slave)


def test_attach_without_a_terminal(small):
    script = (
        # the shell's `read` fails when a signal comes while it waits
        "trap 'echo usr1' USR1; while :; do read line || continue; echo got $line; echo err $line >&2; "
        "[ $line = end ] && exit 7; done"
    )
    small("run", "-di", "--name", "box", "small", "sh", "-c", script)
    with subprocess.Popen(
        small.argv("attach", "box"),
        env=small.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got one\n"
        process.send_signal(signal.SIGUSR1)
        process.stdin.write(b"two\n")
        process.stdin.flush()
        assert b"usr1\n" in process.stdout.readline() + process.stdout.readline()
        process.stdin.close()  # the command's input stays open
        with subprocess.Popen(
            small.argv("attach", "box"),
            env=small.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as other:
            out, err = other.communicate(b"end\n", timeout=60)
            assert (other.returncode, out, err) == (7, b"got end\n", b"err end\n")
        assert process.wait(60) == 7
        assert process.stdout.read().endswith(b"got end\n")
    assert small("logs", "box").stdout.endswith("got end\n")


def test_what_cannot_be_attached_to(small):
    small("run", "-d", "--name", "box", "-t", "-i", "small", "sh")
    done = small("attach", "box", check=False, stdin=subprocess.DEVNULL)
    assert done.stderr.startswith("error: standard input is not a terminal, and the container has one\n")
    done = small("attach", "--detach-keys", "ctrl-", "box", check=False)
    assert done.stderr.startswith("error: `--detach-keys ctrl-`: `ctrl-` is not a key\n")
    small("stop", "-t", "0", "box")
    assert "is not running" in small("attach", "box", check=False).stderr


def test_processes(each_rung):
    small = each_rung
    small("run", "-d", "--name", "box", "small", "sh", "-c", "sleep 1000.5 & exec sleep 1001.5")
    small("exec", "-d", "box", "sleep", "1002.5")
    until(lambda: small("top", "box").stdout.count("sleep 100") == 3)
    lines = small("top", "box").stdout.splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    shown = {line.split(None, 1)[1] for line in small("top", "box", "-o", "pid,args").stdout.splitlines()[1:]}
    assert shown == {"sleep 1000.5", "sleep 1001.5", "sleep 1002.5"}
    assert small("top", "box", "aux").stdout.split()[:4] == ["USER", "PID", "%CPU", "%MEM"]
    done = small("top", "box", "-o", "pids", check=False)
    assert done.stderr == "error: column `pids` is not known\nhint: did you mean `pid`?\n"
    assert "option `-Z` of ps is not known here" in small("top", "box", "-Z", check=False).stderr
    if has_mounts(small):
        inside = small("exec", "box", "ps", "-o", "args").stdout
        assert "aerogel-init" in inside
        assert "helper.py" not in inside
        assert str(small.state) not in inside


def test_what_it_uses(small):
    small(
        "run",
        "-d",
        "--name",
        "box",
        "small",
        "sh",
        "-c",
        "x=$(head -c 20000000 /dev/zero | tr '\\0' y); while :; do :; done",
    )
    small("run", "-d", "--name", "calm", "small", "sleep", "1000")

    def line(name):
        (one,) = small.json("stats", "--no-stream", name)["containers"]
        return one

    busy = until(lambda: found if (found := line("box"))["memory_bytes"] > 19_000_000 else None)
    assert until(lambda: line("box")["cpu_percent"] > 5)
    assert busy["pids"] >= 1
    assert line("calm")["cpu_percent"] < 5
    names = small("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}").stdout.split("\n")
    assert {each.split()[0] for each in names if each} == {"box", "calm"}
    with subprocess.Popen(small.argv("stats", "calm"), env=small.env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"CONTAINER ID")
        assert b"calm" in process.stdout.readline()
        assert process.stdout.readline().startswith(b"CONTAINER ID")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user has control groups only where they were given")
def test_pause(small, tmp_path):
    script = "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.01; done"
    small("run", "-d", "--name", "box", "small", "sh", "-c", script)
    until(lambda: small("exec", "box", "cat", "/tmp/n", check=False).stdout.strip() not in ("", "1"))
    assert small("pause", "box").stdout == "box\n"
    assert small("ps", "--format", "{{.Status}}", "-f", "status=paused").stdout.endswith("(Paused)\n")
    assert small("inspect", "-f", "{{.State.Status}} {{.State.Paused}}", "box").stdout == "paused true\n"
    (tmp_path / "mark").write_text("new")
    small("cp", "mark", "box:/tmp", cwd=tmp_path)  # as docker does it
    copies = []
    for _ in range(2):
        small("cp", "box:/tmp/n", "n", cwd=tmp_path)
        copies.append((tmp_path / "n").read_text())
        time.sleep(0.05)
    assert len(set(copies)) == 1
    assert small("exec", "box", "true", check=False).stderr.startswith("error: the container is paused\nhint: ")
    assert small("pause", "box", check=False).stderr == "error: the container is paused already\n"
    small("unpause", "box")
    assert small("unpause", "box", check=False).stderr == "error: the container is not paused\n"
    assert small("exec", "box", "cat", "/tmp/mark").stdout == "new"
    seen = small("exec", "box", "cat", "/tmp/n").stdout
    until(lambda: small("exec", "box", "cat", "/tmp/n").stdout not in ("", seen))
    small("pause", "box")
    small("kill", "box")
    assert small("wait", "box").stdout == "137\n"


def test_names_and_documents(small):
    small(
        "run",
        "-d",
        "--name",
        "box",
        "-l",
        "tier=front",
        "--restart",
        "on-failure:3",
        "-e",
        "B=2",
        "--expose",
        "9000",
        "small",
        "sleep",
        "1000",
    )
    assert small.json("rename", "box", "other")["name"] == "other"
    assert small("exec", "other", "true").returncode == 0
    assert "there is no container `box`" in small("exec", "box", "true", check=False).stderr
    small("run", "-d", "--name", "box", "small", "true")
    done = small("rename", "other", "box", check=False)
    assert done.stderr.startswith("error: there is a container `box` already\n")
    assert "`a b` is not a name" in small("rename", "other", "a b", check=False).stderr
    (found,) = json.loads(small("inspect", "other").stdout)
    assert found["Name"] == "/other"
    assert found["Path"] == "sleep"
    assert found["Args"] == ["1000"]
    assert found["State"]["Status"] == "running"
    assert found["State"]["Pid"] > 0
    assert found["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert found["Config"]["Labels"] == {"tier": "front"}
    assert {"A=1", "B=2"} <= set(found["Config"]["Env"])
    assert found["Config"]["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}, "9000/tcp": {}}
    assert (
        small("inspect", "-f", '{{index .Config.Labels "tier"}} {{.State.Running}}', "other").stdout == "front true\n"
    )
    mixed = small("inspect", "-f", "{{.Id}}", "small", "other").stdout.split()
    assert [each.partition(":")[0] == "sha256" for each in mixed] == [True, False]
    assert "there is no container `small`" in small("inspect", "--type", "container", "small", check=False).stderr
    assert small("ps", "--format", "{{.Ports}}", "-f", "name=other").stdout == "53/udp, 80/tcp, 9000/tcp\n"
    done = small("port", "other", "80", check=False)
    assert done.stderr.startswith("error: no port of the host leads to `80/tcp` of container `other`\n")
    assert small("port", "other").stdout == ""


def test_checks_are_told(small):
    words = ["--health-cmd", "echo seen; exit 3", "--health-interval", "50ms", "--health-retries", "2"]
    small("run", "-d", "--name", "box", *words, "small", "sleep", "1000")
    until(lambda: small("inspect", "-f", "{{.State.Health.Status}}", "box").stdout == "unhealthy\n")
    (found,) = json.loads(small("inspect", "box").stdout)
    health = found["State"]["Health"]
    assert 2 <= len(health["Log"]) <= 5
    assert {(each["ExitCode"], each["Output"]) for each in health["Log"]} == {(3, "seen\n")}
    assert health["FailingStreak"] >= 2


def test_prune(small):
    for name in ("one", "two"):
        small("run", "-d", "--name", name, "-l", f"n={name}", "small", "true")
        small("wait", name)
    small("run", "-d", "--name", "box", "small", "sleep", "1000")
    assert small("container", "prune", "--filter", "until=1h").stdout == "Total reclaimed space: 0B\n"
    done = small("container", "prune", "-f", "--filter", "label!=n=one").stdout
    assert done.startswith("Deleted Containers:\n")
    assert set(small("ps", "-a", "--format", "{{.Names}}").stdout.split()) == {"one", "box"}
    assert (
        "filter `lable=x` is not known\nhint: did you mean `label`?"
        in small("container", "prune", "--filter", "lable=x", check=False).stderr
    )
    small("container", "prune")
    assert small("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["box"]


def test_one_more_group(small):
    assert small("run", "--group-add", "77", "--group-add", "app", "small", "id", "-G").stdout.split() == [
        "0",
        "77",
        "1001",
    ]
    done = small("run", "--group-add", "nosuch", "small", "id", check=False)
    assert "the image has no group `nosuch`" in done.stderr


def test_prune_leaves_what_a_container_needs(small):
    """Also when the image is gone and everything is to go; and it says what it left."""
    small("tag", "small", "gone")
    small("run", "-d", "--name", "box", "gone", "sh", "-c", "echo here; touch /kept")
    small("wait", "box")
    small("volume", "create", "lonely")
    said = small("prune").stdout
    assert "left: 1 container that ended: `aerogel container prune`\n" in said
    assert "left: 1 volume that no container has: `aerogel volume prune -a`\n" in said
    assert " step results (" in said
    small("prune", "-a")
    small("start", "box")
    small("wait", "box")
    assert small("logs", "box").stdout == "here\nhere\n"
    used = small.json("du")
    assert (used["containers"], used["volumes"]) == (1, 1)
    assert used["containers_bytes"] > 0
    small("volume", "rm", "lonely")


def test_a_command_that_ends_at_once(small):
    """Its end may come before the news of its start."""
    for _ in range(5):
        small("run", "-d", "--rm", "small", "true")
