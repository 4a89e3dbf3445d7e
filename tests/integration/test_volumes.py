"""Volumes: made by name or by an image, filled from it, kept and removed as docker does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from process import Aerogel
from small_image import build_small_image
from waiting import until

pytestmark = pytest.mark.host("busybox")

MORE = "RUN mkdir -p /data/sub && echo first >/data/sub/f && chown -R 1000:1001 /data && chmod 750 /data && ln -s sub/f /data/l\n"
RUNGS = ("auto", "single") if os.getuid() == 0 else ("auto",)


def store(folder, rung):
    aerogel = Aerogel(folder / "state")
    aerogel.env["AEROGEL_ISOLATION"] = rung
    build_small_image(aerogel, folder / "image", "small", MORE)
    build_small_image(aerogel, folder / "declares", "declares", MORE + "VOLUME /data /other\n")
    return aerogel


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return store(tmp_path_factory.mktemp("volumes"), "auto")


@pytest.fixture
def small(usual):
    """A store with two images; a test leaves neither containers nor volumes."""
    yield usual
    left = usual("ps", "-aq").stdout.split()
    if left:
        usual("rm", "-f", *left)
    usual("volume", "prune", "-a")
    assert usual("volume", "ls", "-q").stdout == ""


@pytest.mark.parametrize("rung", RUNGS)
def test_an_empty_volume_gets_what_the_image_has(usual, rung, tmp_path_factory):
    small = usual if rung == "auto" else store(tmp_path_factory.mktemp("volumes"), rung)
    script = "stat -c '%u:%g %a' /data; cat /data/l; echo more >>/data/sub/f; ls /data"
    first = small("run", "-u", "app", "-v", "kept:/data", "small", "sh", "-c", script).stdout
    assert first == "1000:1001 750\nfirst\nl\nsub\n"
    small("run", "-u", "app", "-v", "kept:/data", "small", "rm", "/data/l")
    again = small("run", "--mount", "type=volume,src=kept,dst=/x", "small", "sh", "-c", "ls /x; cat /x/sub/f").stdout
    assert again == "sub\nfirst\nmore\n"
    done = small("run", "-v", "kept:/x:ro", "small", "touch", "/x/y", check=False)
    assert "Read-only file system" in done.stderr
    assert small("run", "-v", "bare:/data:nocopy", "small", "ls", "-a", "/data").stdout.split() == [".", ".."]
    small("volume", "rm", "kept", "bare")


def test_volumes_of_an_image(small):
    """Each container has its own, which goes with it."""
    script = "ls /data; echo x >/other/mark; grep -c ' /data ' /proc/mounts"
    assert small("run", "declares", "sh", "-c", script).stdout == "l\nsub\n1\n"
    assert small("volume", "ls", "-q").stdout == ""
    small("run", "-d", "--rm", "--name", "gone", "declares", "sleep", "1000")
    assert len(small("volume", "ls", "-q").stdout.split()) == 2
    small("stop", "-t", "0", "gone")
    assert small("volume", "ls", "-q").stdout == ""
    small(
        "run", "-d", "--name", "box", "-v", "named:/data", "declares", "sh", "-c", "echo x >>/other/n; wc -l </other/n"
    )
    small("wait", "box")
    (own, named) = sorted(small("volume", "ls", "-q").stdout.split(), key=len, reverse=True)
    assert (len(own), named) == (64, "named")
    small("start", "box")
    small("wait", "box")
    assert small("logs", "box").stdout == "1\n2\n"
    small("rm", "-v", "box")
    assert small("volume", "ls", "-q").stdout == "named\n"


def test_nothing_is_left_of_a_container_that_came_to_nothing(small):
    small("run", "-d", "--name", "box", "small", "sleep", "1000")
    done = small("run", "--name", "box", "declares", "true", check=False)
    assert "there is a container `box` already" in done.stderr
    done = small("run", "-d", "--cidfile", "/", "declares", "true", check=False)
    assert "--cidfile" in done.stderr
    assert small("volume", "ls", "-q").stdout == ""


def test_one_that_another_container_has_outlives_a_killed_one(small):
    words = small.argv("run", "--name", "first", "declares", "sh", "-c", "echo x >/other/mark; echo up; sleep 1000")
    with subprocess.Popen(words, env=small.env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        small("run", "-d", "--name", "second", "--volumes-from", "first", "small", "sleep", "1000")
        process.kill()
    until(lambda: small("ps", "-a", "--format", "{{.Names}}").stdout == "second\n")
    small("run", "small", "true")
    assert small("exec", "second", "cat", "/other/mark").stdout == "x\n"


def test_volumes_of_another_container(small, tmp_path):
    (tmp_path / "f").write_text("lent\n")
    small("run", "-d", "--name", "box", "-v", "kept:/data", "-v", f"{tmp_path}:/lent", "small", "sleep", "1000")
    script = "cat /data/l /lent/f; touch /data/new /lent/new 2>&1 | grep -c Read-only"
    assert small("run", "--volumes-from", "box:ro", "small", "sh", "-c", script).stdout == "first\nlent\n2\n"
    small("run", "--volumes-from", "box", "small", "touch", "/data/new")
    assert small("exec", "box", "ls", "/data/new").returncode == 0
    (found,) = json.loads(small("inspect", "box").stdout)
    assert [(each["Type"], each.get("Name"), each["Destination"]) for each in found["Mounts"]] == [
        ("bind", None, "/lent"),
        ("volume", "kept", "/data"),
    ]
    assert small("ps", "--format", "{{.Mounts}}").stdout == f"{tmp_path},kept\n"
    assert len(small("ps", "-q", "-f", "volume=kept").stdout.split()) == 1


def test_list_and_remove(small):
    assert small("volume", "create", "-l", "tier=db", "db").stdout == "db\n"
    assert small("volume", "create", "db").stdout == "db\n"
    assert len(small("volume", "create").stdout) == 65
    (found,) = json.loads(small("volume", "inspect", "db").stdout)
    assert (found["Name"], found["Labels"], found["Scope"]) == ("db", {"tier": "db"}, "local")
    assert Path(found["Mountpoint"]).is_dir()
    assert small("inspect", "-f", "{{.Driver}}", "db").stdout == "local\n"
    assert small("volume", "ls", "-q", "-f", "label=tier").stdout == "db\n"
    small("run", "-d", "--name", "box", "-v", "db:/d", "small", "true")
    small("wait", "box")
    assert small("volume", "ls", "-q", "-f", "dangling=false").stdout == "db\n"
    done = small("volume", "rm", "db", check=False)
    assert done.stderr.startswith("error: volume `db` is in use by `")
    assert small("volume", "prune").stdout.startswith("Deleted Volumes:\n")
    assert small("volume", "ls", "-q").stdout == "db\n"
    small("volume", "prune", "-a")
    assert small("volume", "ls", "-q").stdout == "db\n"
    small("rm", "box")
    assert small("volume", "rm", "db").stdout == "db\n"
    done = small("volume", "rm", "db", check=False)
    assert done.stderr == "error: there is no volume `db`\nhint: `aerogel volume ls` lists what is there\n"
    assert small("volume", "rm", "-f", "db").returncode == 0


WRONG = [
    (["run", "-v", "x:/a", "small", "true"], "`x` is not a name for a volume"),
    (["run", "-v", "name:a", "small", "true"], "volume `name:a`: `a` is not an absolute path"),
    (["run", "-v", "name:/a:rx", "small", "true"], "volume `name:/a:rx`: `rx` is not `ro`, `rw` or `nocopy`"),
    (["run", "-v", "one:/a", "--tmpfs", "/a/", "small", "true"], "two things are to be mounted at `/a`"),
    (
        ["run", "--mount", "type=volume,src=a1,dst=/a,tmpfs-size=1", "small", "true"],
        "`--mount type=volume,src=a1,dst=/a,tmpfs-size=1`: a mount of type `volume` has no `size`",
    ),
    (["run", "--volumes-from", "none", "small", "true"], "there is no container `none`"),
    (["run", "--volume-driver", "nfs", "small", "true"], "`aerogel run` has no flag `--volume-driver`"),
    (["volume", "create", "a/b"], "`a/b` is not a name for a volume"),
    (["volume", "create", "-o", "type=nfs", "n1"], "a volume has no option `type=nfs`"),
    (["volume", "ls", "-f", "nam=x"], "filter `nam=x` is not known\nhint: did you mean `name`?"),
]


def test_wrong_words(small):
    for words, said in WRONG:
        done = small(*words, check=False)
        assert done.returncode in (1, 2)
        assert f"error: {said}" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="rights are taken away from root")
def test_where_nothing_can_be_mounted(small, monkeypatch):
    monkeypatch.setitem(small.env, "AEROGEL_ISOLATION", "chroot")
    assert small("run", "declares", "sh", "-c", "ls /data; touch /other/x").stdout == "l\nsub\n"
    done = small("run", "-v", "kept:/data", "small", "true", check=False)
    assert done.returncode == 3
    assert done.stderr.startswith(
        "error: volume `kept` cannot be shown at `/data`: nothing can be mounted here\nhint: "
    )


@pytest.mark.skipif(os.getuid() != 0, reason="other rungs are forced by root")
def test_owners_of_another_rung(small, monkeypatch):
    small("run", "-v", "kept:/data", "small", "true")
    monkeypatch.setitem(small.env, "AEROGEL_ISOLATION", "single")
    done = small("run", "-v", "kept:/data", "small", "true", check=False)
    assert done.stderr.startswith("error: the files of volume `kept` have other owners (`")


class Unable(Aerogel):
    """As root of a container that has no capabilities."""

    def argv(self, *words):
        return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *super().argv(*words)]


@pytest.mark.host("setpriv", "proot")
@pytest.mark.skipif(os.getuid() != 0, reason="rights are taken away from root")
def test_on_proot(tmp_path):
    """Volumes and folders of the host are shown by proot itself; files are copied in and out by hand."""
    small = Unable(tmp_path / "state")
    small.env["AEROGEL_ISOLATION"] = "proot"
    build_small_image(small, tmp_path / "image", "small", MORE + "RUN ln -s /data/sub /way\n")
    (tmp_path / "lent").mkdir()
    (tmp_path / "lent/run").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "lent/run").chmod(0o755)
    script = "stat -c '%u:%g %a' /data; cat /data/l; echo more >>/data/sub/f; touch /data/mine; chmod 604 /data/mine"
    said = small("run", "-u", "app", "-v", "kept:/data", "small", "sh", "-c", script).stdout
    assert said == "1000:1001 750\nfirst\n"
    said = small("run", "-v", "kept:/x", "small", "sh", "-c", "cat /x/sub/f; stat -c '%u:%g %a' /x/mine").stdout
    assert said == "first\nmore\n1000:1001 604\n"
    said = small(
        "run", "-v", f"{tmp_path}/lent:/lent", "-w", "/lent", "small", "sh", "-c", "./run; /lent/run; echo x >new"
    )
    assert said.stdout == "/lent\n/lent\n"
    assert (tmp_path / "lent/new").read_text() == "x\n"
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/sub/g").write_text("g\n")
    small(
        "run",
        "-d",
        "--name",
        "box",
        "-v",
        "kept:/data",
        "-u",
        "app",
        "small",
        "sh",
        "-c",
        "umask 077; echo o >/tmp/own; sleep 1000",
    )
    until(lambda: small("exec", "box", "cat", "/tmp/own", check=False).stdout == "o\n")
    assert small("exec", "box", "cat", "/data/sub/f").stdout == "first\nmore\n"
    for runs in (True, False):
        small("cp", "dir", "box:/way", cwd=tmp_path)  # by a link into the volume
        small("cp", "dir/.", "box:/srv/new", cwd=tmp_path)
        small("cp", "-a", "dir/sub/g", "box:/srv/g", cwd=tmp_path)
        small("cp", "-L", "box:/way", f"followed-{runs}", cwd=tmp_path)
        assert (tmp_path / f"followed-{runs}/dir/sub/g").read_text() == "g\n"
        tar = subprocess.run(small.argv("cp", "box:/srv", "-"), env=small.env, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            assert {"srv/g", "srv/new/sub/g"} <= set(archive.getnames())
            assert (archive.getmember("srv/g").uid, archive.getmember("srv/g").gid) == (1000, 1001)
        tar = subprocess.run(
            small.argv("cp", "box:/tmp/own", "-"), env=small.env, capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            (own,) = archive
            assert (own.name, own.uid, own.gid, own.mode) == ("own", 1000, 1001, 0o600)
        assert "there is no `/none/x` in container" in small("cp", "box:/none/x", "y", cwd=tmp_path, check=False).stderr
        if runs:
            assert small("exec", "box", "cat", "/srv/new/sub/g").stdout == "g\n"
            small("stop", "-t", "0", "box")
    small("rm", "box")
