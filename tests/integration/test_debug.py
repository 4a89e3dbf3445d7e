"""`aerogel debug`: a shell where there is none, in images and beside containers, which stay as they were."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = pytest.mark.host("busybox")

BARE = 'FROM scratch\nCOPY busybox /app/busybox\nUSER 1000\nENV MARK=here\nWORKDIR /app\nCMD ["/app/busybox", "sleep", "1000"]\n'
RUNGS = ("auto", "ident", "single", "chroot") if os.getuid() == 0 else ("auto",)


@pytest.fixture(scope="module", params=RUNGS)
def bare(request, tmp_path_factory):
    """A store with an image that has no shell, on one rung."""
    folder = tmp_path_factory.mktemp("debug")
    aerogel = Aerogel(folder / "state")
    aerogel.env["AEROGEL_ISOLATION"] = request.param
    context = folder / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "Dockerfile").write_text(BARE)
    aerogel("build", "-q", "-t", "bare", str(context))
    yield aerogel
    left = aerogel("ps", "-aq").stdout.split()
    if left:
        aerogel("rm", "-f", *left)


def test_an_image(bare):
    said = bare("debug", "bare", "sh", "-c", "ls /; id -u; pwd; echo $MARK; touch /new; which vi").stdout
    assert said.split() == ["app", "dev", "etc", "proc", "sys", "0", "/app", "here", "/.aerogel/vi"]
    assert bare("debug", "bare", "sh", "-c", "ls /new", check=False).returncode == 1
    assert bare("debug", "-u", "1000", "bare", "id", "-u").stdout == "1000\n"
    assert bare("debug", "bare", "sh", "-c", "exit 9", check=False).returncode == 9


def test_a_read_only_container(bare):
    bare("run", "-d", "--read-only", "--name", "web", "bare")
    script = (
        "ls /; ps | grep -c '[s]leep 1000'; echo x 2>/dev/null >/app/new || echo refused; which vi; touch /dev/shm/seen"
    )
    done = bare("debug", "web", "sh", "-c", script, check=False)
    if bare.env["AEROGEL_ISOLATION"] == "chroot":
        assert done.stderr.startswith(
            "error: tools cannot be shown beside a running command where nothing can be mounted\n"
        )
        return
    assert done.stdout.split() == ["app", "dev", "etc", "proc", "sys", "1", "refused", "/.aerogel/vi"]
    said = bare("exec", "web", "/app/busybox", "ls", "/", "/dev/shm").stdout
    assert said.split() == ["/:", "app", "dev", "etc", "proc", "sys", "/dev/shm:", "seen"]
    assert bare("exec", "web", "/.aerogel/busybox", "true", check=False).returncode == 127


def test_a_container_that_ended(bare):
    bare("run", "-d", "--name", "job", "-u", "0", "bare", "/app/busybox", "touch", "/app/made")
    bare("wait", "job")
    done = bare("debug", "job", "ls", "/app")
    assert done.stdout.split() == ["busybox", "made"]
    assert "this is a copy of its files" in done.stderr


def test_what_is_neither(bare, monkeypatch):
    monkeypatch.setitem(bare.env, "AEROGEL_BASES", "builtin")
    done = bare("debug", "nothing", check=False)
    assert done.returncode == 1
    assert "error: image `nothing` was not found" in done.stderr


def test_on_a_terminal(bare):
    """Without a command it is a shell that asks."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        bare.argv("debug", "bare"), env=bare.env, stdin=follower, stdout=follower, stderr=follower
    )
    os.write(leader, b"echo $((6*7)); exit 3\n")
    said = b""
    while b"42\r\n" not in said:
        said += os.read(leader, 1000)
    assert process.wait(60) == 3
    os.close(leader)
    os.close(follower)


@pytest.mark.network
def test_programs_of_packages(tmp_path):
    """They run by their own loader, as another user, beside a read-only container and in an image; nothing is left."""
    aerogel = Aerogel(tmp_path / "state")
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "Dockerfile").write_text(BARE)
    aerogel("build", "-q", "-t", "bare", str(context))
    aerogel("run", "-d", "--read-only", "--name", "web", "bare")
    try:
        tools = ("--tools", "strace,lsof")
        script = "strace -V | head -n 1; strace -qq -e trace=exit_group true 2>&1; lsof -p 2 | grep -c txt; id -u"
        said = aerogel("debug", *tools, "-u", "1000", "web", "sh", "-c", script).stdout.splitlines()
        assert said[0].startswith("strace -- version ")
        assert said[1:] == ["exit_group(0)                           = ?", "1", "1000"]
        seen = aerogel("debug", *tools, "web", "sh", "-c", "touch /.aerogel/root/x 2>&1; ls -d /.aerogel/root").stdout
        assert "Read-only file system" in seen
        assert aerogel("exec", "web", "/app/busybox", "ls", "/.aerogel", check=False).returncode != 0
        assert aerogel("debug", *tools, "bare", "strace", "-V").stdout.startswith("strace -- version ")
    finally:
        aerogel("rm", "-f", "web")
    done = aerogel("debug", "--tools", "no/such", "bare", check=False)
    assert "\nerror: `no/such` is not the name of a Debian package\n" in done.stderr
    done = aerogel("debug", "--tools", "stracee", "bare", check=False)
    assert done.returncode != 0
    assert "stracee" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.network
def test_a_base_with_packages_is_an_image_everywhere(tmp_path):
    """The name that FROM takes, where an image is run, looked into, fetched and described."""
    aerogel = Aerogel(tmp_path / "state")
    name = "aerogel/static+busybox-static"
    assert aerogel("pull", "-q", name).stdout == f"{name}\n"
    (found,) = json.loads(aerogel("inspect", name).stdout)
    assert (found["RepoTags"], found["Os"], len(found["RootFS"]["Layers"])) == ([name], "linux", 1)
    assert aerogel("run", "--entrypoint", "busybox", name, "echo", "here").stdout == "here\n"
    assert aerogel("debug", name, "sh", "-c", "which busybox").stdout == "/usr/bin/busybox\n"
    done = aerogel("run", "--pull=never", "aerogel/cc+strace", check=False)
    assert done.stderr.startswith("error: there is no image `aerogel/cc+strace` in the local store\n")
    done = aerogel("pull", "aerogel/none+tzdata", check=False)
    assert done.stderr.startswith("error: `aerogel/none+tzdata` is not a built-in base image\n")


WHY = {
    "well": ('COPY busybox /app/busybox\nCMD ["/app/busybox", "true"]', []),
    "missing": ('COPY busybox /app/busybox\nCMD ["/app/busybx"]', ["fault: `/app/busybx` is not in the image"]),
    "script": (
        'COPY --chmod=755 script /app/script\nENTRYPOINT ["/app/script"]',
        ["fault: `/app/script` is a script for `/bin/bash`, which is not in the image"],
    ),
    "loader": (
        'COPY --chmod=755 python /app/python\nCMD ["/app/python"]',
        ["is linked dynamically and its loader `/lib", "is not in the image", "hint: link it statically"],
    ),
    "machine": (
        'COPY --chmod=755 foreign /app/foreign\nCMD ["/app/foreign"]',
        ["fault: `/app/foreign` is built for s390x and the image for "],
    ),
    "rights": (
        'COPY --chmod=700 busybox /app/busybox\nUSER 1000\nCMD ["/app/busybox"]',
        ["fault: user `1000` may not enter `/app`, which is drwx------ and belongs to 0:0"],
    ),
    "file": (
        'COPY script /app/\nCOPY --chmod=740 busybox /app/busybox\nUSER 1000:7\nCMD ["/app/busybox"]',
        ["fault: user `1000:7` may not execute `/app/busybox`, which is -rwxr----- and belongs to 0:0"],
    ),
    "library": (
        'COPY --chmod=755 python /app/python\nCOPY loader LOADER\nCMD ["/app/python"]',
        ["fault: `/app/python` needs the librar", "`libc.so.6`, which "],
    ),
    "module": (
        'COPY busybox /app/busybox\nCOPY module /app/lib/python3.11/site-packages/fast/_fast.abi3.so\nCMD ["/app/busybox"]',
        [
            "fault: `/app/lib/python3.11/site-packages/fast/_fast.abi3.so` needs the librar",
            "`libc.so.6`, which ",
        ],
    ),
    "own-module": (
        'COPY busybox /app/busybox\nCOPY module /usr/lib/python3.11/lib-dynload/_x.abi3.so\nCMD ["/app/busybox"]',
        [],
    ),
    "minor": (
        'COPY busybox /app/bin/python3.11\nCOPY script /app/lib/python3.13/site-packages/one.py\nCMD ["/app/bin/python3.11"]',
        ["fault: `/app/lib/python3.13/site-packages` is for Python 3.13, and the image has Python 3.11"],
    ),
    "user": (
        'COPY busybox /app/busybox\nUSER web\nCMD ["/app/busybox"]',
        ["fault: the image has no user `web`"],
    ),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A store with images that do not start."""
    folder = tmp_path_factory.mktemp("why")
    aerogel = Aerogel(folder / "state")
    shutil.copy(shutil.which("busybox") or "", folder / "busybox")
    shutil.copy("/usr/bin/env", folder / "python")
    loader = re.search(rb"/lib[\w/-]*/ld-[\w.-]+", (folder / "python").read_bytes())[0].decode()
    shutil.copy(loader, folder / "loader")
    shutil.copy(next(Path("/lib").glob("*-linux-gnu/libm.so.6")), folder / "module")
    (folder / "script").write_text("#!/bin/bash\necho here\n")
    header = (
        b"\x7fELF\x02\x02\x01" + bytes(9) + struct.pack(">HHIQQQIHHHHHH", 2, 22, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0)
    )
    (folder / "foreign").write_bytes(header + bytes(64))
    yield aerogel, folder, loader
    aerogel("rm", "-f", "job", check=False)


@pytest.mark.parametrize("name", WHY)
def test_why_it_does_not_start(broken, name):
    aerogel, folder, loader = broken
    text, said = WHY[name]
    text = text.replace("LOADER", loader)
    (folder / "Dockerfile").write_text(f"FROM scratch\n{text}\n")
    aerogel("build", "-q", "-t", name, str(folder))
    done = aerogel("debug", "--why", name, check=False)
    assert done.returncode == (1 if said else 0), done.stderr
    assert done.stdout.startswith('command: ["/app/')
    for words in said or ["nothing is known that keeps it from starting"]:
        assert words in done.stdout
    if name == "missing":
        assert aerogel("run", "-d", "--name", "job", name, check=False).returncode == 127
        done = aerogel("debug", "--why", "job", check=False)
        assert done.returncode == 1
        assert "fault: `/app/busybx` is not in the image\nhint: did you mean `/app/busybox`?" in done.stdout
        assert "container `job` ended with 127" in done.stderr
        assert 'its command is ["/app/busybx"]' in aerogel("debug", "job", "true").stderr
        assert aerogel("debug", "--why", "job", "/app/busybox").stdout.startswith('command: ["/app/busybox"]\n')
