"""What a RUN step sees and may do, against docker's BuildKit: the same, or a difference that has its reason here.

And a build inside a default container of that docker. Debian packages: busybox-static, docker.io (dockerd on a socket
of its own, without network).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import ROOT, Buildkit, buildkit

from aerogel.sandbox import capabilities

pytestmark = pytest.mark.host("busybox")

HEAD = """FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
ENV PATH=/bin
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /tmp && echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd && \\
    printf 'app:x:1000:1001::/home/app:/bin/sh\\n' >>/etc/passwd && printf 'root:x:0:\\nmail:x:8:app\\napp:x:1001:\\n' >/etc/group
"""
SCRIPT = r"""
exec >/tmp/seen-$(id -u) 2>&1
say() { name=$1; shift; "$@" 2>&1 | sed "s|^|$name: |"; }
try() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "may $name: yes"; else echo "may $name: no"; fi; }
say id id
say umask umask
say pwd pwd
say hostname hostname
env | sort | sed 's/^/env: /'
for each in -c -d -f -n -s -t -u -v; do echo "ulimit $each: $(ulimit $each)"; done
for each in -n -c; do echo "hard limit $each: $(ulimit -H $each)"; done
grep -E '^(Cap|Seccomp:|NoNewPrivs|Groups|SigBlk|SigIgn|SigCgt|Umask)' /proc/self/status | tr '\t' ' ' | sed 's/^/status: /'
ls -l /dev /dev/pts /dev/mqueue | grep -v ^total | awk '/:$/ {at=$1; next} NF {print "dev: " at, $1, $3, $4, ($1 ~ /^[cb]/ ? $5 $6 " " $10 : $9 " " $10 " " $11)}'
awk '{print "mount: " $2, $3, $4}' /proc/mounts | sed -E 's/,(size|nr_inodes|lowerdir|upperdir|workdir|inode64|index|metacopy|redirect_dir|xino|uuid|volatile|gid)[^, ]*//g' | sort
grep -v '^#' /etc/hosts | tr '\t' ' ' | sed 's/^/hosts: /'
say resolv cat /etc/resolv.conf
ls -ld /dev/shm /tmp /etc/hosts /etc/resolv.conf /root / | awk '{print "modes: " $1, $3, $4, $NF}'
say fds sh -c 'ls /proc/self/fd | tr "\n" " "; echo'
say init sh -c 'tr "\0" " " </proc/1/cmdline | cut -c 1-20'
say net sh -c 'test -t 0 && echo terminal; readlink /proc/self/fd/0'
for each in acpi asound interrupts kcore keys latency_stats timer_list timer_stats sched_debug scsi; do
    test -e /proc/$each && echo "masked /proc/$each: $(cat /proc/$each 2>/dev/null | head -c 20 | wc -c) $(ls -A /proc/$each 2>/dev/null | grep -v / | wc -l)"
done
for each in bus fs irq sys/kernel/domainname sysrq-trigger; do try "write /proc/$each" sh -c "test -w /proc/$each"; done
try "see firmware" sh -c 'test -n "$(ls -A /sys/firmware 2>/dev/null)"'
try "write /sys" mkdir /sys/fs/cgroup/x
try mount mount -t tmpfs x /tmp
try "unshare mounts" unshare -m true
try "unshare users" unshare -U true
try "unshare network" unshare -n true
try chroot chroot / true
try "set the host name" hostname x
try "set the clock" date -s 2000-01-01
try "make a disk" mknod /tmp/disk b 8 0
try "make a null" mknod /tmp/null c 1 3
try "change an interface" ip link set lo mtu 60000
try "read the kernel log" dmesg
try "become another" su app -c true
try "ping" ping -c 1 -W 1 127.0.0.1
try "give away" chown 1234:5678 /tmp/null
try "bind a low port" timeout 1 nc -l -p 7 -w 1 127.0.0.1 7
try "renice" nice -n -5 true
try "write a sysctl" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
try "kill init" kill -0 1
try "load a module" insmod /bin/busybox
try "swap" swapon /bin/busybox
true
"""

EXPLAINED = (
    (
        "mount: / ",
        "an overlay of ours lets no device of an image be opened, and syncs nothing: a layer is made at once",
    ),
    (
        "mount: /dev tmpfs ",
        "nodes made later give nothing: those that work are mounts of their own, for ordinary users too",
    ),
    ("mount: /dev/(full|null|random|tty|urandom|zero) ", "the same"),
    (
        "mount: /etc/(hosts|hostname|resolv.conf) ",
        "they come from memory, so the host's disk is not seen; docker binds files",
    ),
    ("mount: /(proc|sys)/", "what is masked is masked by a file system with fewer rights (nosuid, nodev, noexec)"),
    ("mount: /sys/fs/cgroup", "no control groups are shown: a step has none of its own unless it is limited"),
    (
        "may write /sys: ",
        "with them goes the folder of control groups, the one place of /sys that docker lets be written",
    ),
    ("masked /proc/interrupts: ", "masked by docker since 2025 (moby 28.0.2), which this one is older than"),
    ("init: ", "process 1 reaps and ends what a step leaves behind; docker's is the step itself"),
    ("may kill init: ", "the same: it is of the user of the step there, and root's here"),
    ("net: ", "standard input is empty in both: /dev/null here, a closed pipe there"),
)
"""Differences in a line (of ours or theirs) that begins so, and why."""


OF_THE_HOST = ("the clock", "an interface", "a sysctl", "a module", '"swap"', "/sys/fs/cgroup/x")
"""Lines of the script that would do so to the host in an insecure step."""
INSECURE = (
    *EXPLAINED,
    (
        "id: |status: (Groups|SigIgn)|env: HOSTNAME|hosts: ",
        "of a container that is run, not of a step: those are compared above",
    ),
    ("status: Cap(Prm|Eff|Bnd)", "all that this host has; docker.io knows none of the newest three"),
    ("mount: /sys sysfs ", "writable, as `--privileged` makes it; the switches that are taken here do not"),
)
"""The same, for a step of `--security=insecure`."""


_NEWER_CAPABILITIES = 38
"""PERFMON and those after it."""


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildkit]:
    with buildkit(tmp_path_factory.mktemp("dockerd")) as found:
        yield found


def test_surroundings(docker: Buildkit, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "script").write_text(SCRIPT)
    text = f"{HEAD}RUN chmod 1777 /tmp\nCOPY script /script\nRUN sh /script\nUSER app\nRUN sh /script\n"
    (context / "Dockerfile").write_text(text)
    theirs = docker.client("build", "--network=host", "-o", str(tmp_path / "theirs"), str(context))
    assert theirs.returncode == 0, theirs.stderr
    env = {**os.environ, "AEROGEL_ROOT": str(tmp_path / "store"), "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "aerogel", "build", "--ca=none", "-o", str(tmp_path / "ours"), str(context)]
    subprocess.run(words, env=env, check=True, capture_output=True, timeout=300)
    for number in ("0", "1000"):
        compare(*((tmp_path / name / f"tmp/seen-{number}").read_text() for name in ("theirs", "ours")), EXPLAINED)


def compare(theirs: str, ours: str, explained: tuple[tuple[str, str], ...]) -> None:
    """Every difference has a reason."""
    docker, aerogel = theirs.splitlines(), ours.splitlines()
    different = [f"docker   {line}" for line in docker if line not in aerogel]
    different += [f"aerogel  {line}" for line in aerogel if line not in docker]
    left = [line for line in different if not any(re.match(pattern, line[9:]) for pattern, _ in explained)]
    assert left == [], "\n".join(left)
    assert len(aerogel) > 90


def own_capabilities() -> list[str]:
    """All that this process could give, by name, of those that docker.io knows."""
    (mask,) = re.findall(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())
    return [
        name
        for number, name in enumerate(capabilities.NAMES)
        if number < _NEWER_CAPABILITIES and int(mask, 16) >> number & 1
    ]


def test_insecure_steps(docker: Buildkit, tmp_path: Path) -> None:
    """Against a container with docker's three switches: the builder of docker.io has no `RUN --security=insecure`."""
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    harmless = [line for line in SCRIPT.splitlines() if not any(word in line for word in OF_THE_HOST)]
    assert len(harmless) == len(SCRIPT.splitlines()) - len(OF_THE_HOST)
    (context / "script").write_text("\n".join(harmless))
    text = f"{HEAD}RUN chmod 1777 /tmp\nCOPY script /script\n"
    (context / "Dockerfile").write_text(text)
    built = docker.client("build", "--network=host", "-t", "insecure", str(context))
    assert built.returncode == 0, built.stderr
    switches = [word for name in own_capabilities() for word in ("--cap-add", name)]
    switches += [
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "systempaths=unconfined",
        "--network=host",
        "--hostname=buildkitsandbox",
    ]
    theirs = docker.client(
        "run", "--rm", *switches, "insecure", "sh", "-c", "sh /script </dev/null; umount /tmp; cat /tmp/seen-0"
    )
    assert theirs.returncode == 0, theirs.stderr
    (context / "Dockerfile").write_text(f"{text}RUN --security=insecure sh /script\n")
    env = {**os.environ, "AEROGEL_ROOT": str(tmp_path / "store"), "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "aerogel", "build", "--ca=none", "--allow=security.insecure"]
    subprocess.run(
        [*words, "-o", str(tmp_path / "ours"), str(context)], env=env, check=True, capture_output=True, timeout=300
    )
    ours = (tmp_path / "ours/tmp/seen-0").read_text()
    compare(theirs.stdout.decode(), ours, INSECURE)
    (all_of_them,) = re.findall(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())
    assert f"status: CapEff: {all_of_them}\n" in ours
    assert "status: Seccomp: 0\n" in ours


@pytest.mark.network
def test_a_build_inside_a_default_container(docker: Buildkit, tmp_path: Path) -> None:
    """The interpreter and its modules are lent to a container of the `debian` image, which aerogel makes."""
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    more = "RUN echo x >/tmp/x && chown 5:6 /tmp/x && chmod 4755 /tmp/x && cat /proc/self/comm >/tmp/comm\nUSER app\n"
    (context / "Dockerfile").write_text(f"{HEAD}RUN chmod 1777 /tmp\n{more}RUN id >/tmp/id; echo y | cat /dev/stdin\n")
    env = {**os.environ, "AEROGEL_ROOT": str(tmp_path / "store"), "PYTHONPATH": str(ROOT / "src")}
    here = [sys.executable, "-m", "aerogel"]

    def run(*words: str) -> str:
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    outside = run(*here, "build", "--ca=none", str(context))
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer/Dockerfile").write_text(
        "FROM debian\nRUN apt-get update && apt-get install -y --no-install-recommends python3\n"  # for its libraries
    )
    run(*here, "build", "-q", "-t", "outer", "-o", f"type=docker,dest={tmp_path}/o.tar", f"{tmp_path}/outer")
    loaded = docker.client("load", "-i", f"{tmp_path}/o.tar")
    assert loaded.returncode == 0, loaded.stderr
    lent = {os.path.realpath(sys.base_prefix), sys.prefix, str(ROOT / "src"), str(context)}
    words = [word for path in sorted(lent) for word in ("-v", f"{path}:{path}:ro")]
    words += ["-e", f"PYTHONPATH={ROOT / 'src'}", "-e", "AEROGEL_ROOT=/state", "--network=none", "--rm", "outer", *here]
    told = docker.client("run", *words, "doctor", "--offline")
    assert b"isolation chroot   works" in told.stdout, told.stderr.decode()
    inside = docker.client("run", *words, "build", "--ca=none", "--progress=plain", str(context))
    assert inside.returncode == 0, inside.stderr.decode()
    assert inside.stdout.decode().strip() == outside


def test_the_red_team_inside_a_default_container(docker: Buildkit, tmp_path: Path) -> None:
    """As its root, on the rung that is left there; the host lends its libraries, its interpreter and the tests."""
    shutil.copy(shutil.which("busybox") or "", tmp_path / "busybox")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sleep\n")
    built = docker.client("build", "--network=host", "-t", "team", str(tmp_path))
    assert built.returncode == 0, built.stderr
    lent = {"/usr", "/lib", "/lib64", "/etc/passwd", os.path.realpath(sys.base_prefix), sys.prefix}
    lent |= {str(ROOT / "src"), str(ROOT / "tests")}
    words = [word for path in sorted(lent) for word in ("-v", f"{path}:{path}:ro")]
    words += [
        "-e",
        f"PYTHONPATH={ROOT / 'src'}:{ROOT / 'tests/support'}",
        "-e",
        "TMPDIR=/state",
        "-e",
        "PATH=/bin:/usr/bin",
    ]
    words += ["-v", f"{tmp_path}/state:/state", "--network=none", "--rm", "team", sys.executable, "-B", "-m", "pytest"]
    words += ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "-k", "chroot"]
    team = docker.client("run", *words, f"{ROOT}/tests/redteam/test_redteam.py")
    said = team.stdout.decode()
    assert team.returncode == 0, said[-4000:] + team.stderr.decode()
    assert re.search(r"\b1[0-9][0-9] passed", said), said
