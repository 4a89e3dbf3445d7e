"""RUN with mounts, secrets, agents and limits, built from end to end on a base of one static program.

Debian packages: busybox-static.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from process import Aerogel

pytestmark = pytest.mark.host("busybox")

HEAD = 'FROM scratch AS base\nCOPY busybox /bin/busybox\nSHELL ["/bin/busybox", "sh", "-c"]\nENV PATH=/bin\n'
TOOLS = 'RUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
SECRET = "correct horse? battery+staple"


class Project:
    """A build context with busybox in it, and a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = folder / "context"
        self.context.mkdir()
        shutil.copy(shutil.which("busybox") or "", self.context / "busybox")
        (self.context / "f").write_text("from the context\n")
        self.aerogel = Aerogel(folder / "state")
        self.aerogel.env |= {"AEROGEL_PROGRESS": "plain", "XDG_CONFIG_HOME": str(folder)}
        for name in ("SOURCE_DATE_EPOCH", "SSH_AUTH_SOCK"):
            self.aerogel.env.pop(name, None)

    def write(self, text: str, name: str = "Dockerfile") -> str:
        (self.context / name).write_text(HEAD + text)
        return name

    def build(self, text: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        self.write(text)
        return self.aerogel("build", str(self.context), *words, check=check)

    def result(self, text: str, *words: str) -> dict:
        self.write(text)
        return self.aerogel.json("build", str(self.context), *words)

    def statuses(self, text: str, *words: str) -> list[str]:
        return [step["status"] for step in self.result(text, *words)["steps"]]

    def start(self, text: str, *words: str, name: str) -> subprocess.Popen[str]:
        self.write(text, name)
        argv = self.aerogel.argv("build", "-f", str(self.context / name), str(self.context), *words)
        return subprocess.Popen(argv, env=self.aerogel.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield path


EVERY = (
    "type=bind,target=/a/b",
    "type=bind,target=/a/b,rw",
    "type=bind,source=f,target=/etc/f",
    "type=bind,from=base,target=/image",
    "type=bind,from=base,source=/bin/busybox,target=/one/file,rw",
    "type=cache,target=/var/cache/x",
    "type=cache,target=/var/cache/x,id=seeded,from=base,source=/bin",
    "type=cache,target=/c,sharing=private,ro",
    "type=cache,target=/c,sharing=locked,uid=7,gid=8,mode=0711",
    "type=tmpfs,target=/run/t",
    "type=secret,id=s",
    "type=secret,id=s,target=/root/deep/s,env=S",
    "type=ssh",
)


@pytest.mark.parametrize("mount", EVERY)
def test_a_mount_leaves_nothing_in_a_layer(project: Project, agent: Path, mount: str) -> None:
    (project.folder / "s").write_text(SECRET)
    words = ("--secret", f"id=s,src={project.folder / 's'}", "--ssh", f"default={agent}")
    made = project.result(f'FROM base\nRUN --mount={mount} ["/bin/busybox", "true"]\n', *words)
    assert len(made["layers"]) == 1, "only what COPY made"


RUNGS = ("root", "ident", "single", "chroot", "proot") if os.getuid() == 0 else ("auto",)
TOGETHER = (
    *("type=bind,target=/a/b", "type=bind,target=/a/c,rw", "type=bind,source=f,target=/etc/f"),
    *("type=bind,from=base,target=/image", "type=bind,from=base,source=/bin/busybox,target=/one/file,rw"),
    *("type=cache,target=/var/cache/x", "type=cache,target=/var/cache/y,id=seeded,from=base,source=/bin"),
    *("type=cache,target=/c,sharing=private,ro", "type=cache,target=/d,sharing=locked,uid=7,gid=8,mode=0711"),
    *("type=tmpfs,target=/run/t", "type=secret,id=s", "type=secret,id=s,target=/root/deep/s,env=S", "type=ssh"),
    "type=bind,from=base,source=/bin/busybox,target=/tool/busybox",
)


@pytest.mark.host("setpriv", "proot")
@pytest.mark.parametrize("rung", RUNGS)
def test_nothing_is_left_of_all_kinds_of_mounts(project: Project, agent: Path, rung: str) -> None:
    """On a base, and on none at all, where the program comes with a mount; with hosts, resolv.conf and what the kernel shows."""
    (project.folder / "s").write_text(SECRET)
    words = ["--secret", f"id=s,src={project.folder / 's'}", "--ssh", f"default={agent}", "-t", "x"]
    mounts = " ".join(f"--mount={each}" for each in TOGETHER)
    looks = (
        "for f in /etc/hosts /etc/resolv.conf /a/c/f /var/cache/y/busybox /run/secrets/s; do test -s $f || exit 9; done"
    )
    for base, layers in (("base", 1), ("scratch", 0)):
        text = (
            f'FROM {base}\nRUN {mounts} ["/tool/busybox", "sh", "-c", "{looks}; /tool/busybox touch /a/c/new /d/new"]\n'
        )
        project.write(text)
        weak = {"ident": ["-sys_admin"], "proot": ["-all", "--inh-caps=-all"]}.get(rung)
        prefix = ["setpriv", "--bounding-set", *weak] if weak else []
        argv = [*prefix, *project.aerogel.argv("build", "--json", str(project.context), *words)]
        env = {**project.aerogel.env, "AEROGEL_ISOLATION": rung}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["layers"]) == layers, done.stdout


def test_the_root_is_the_same_on_every_rung(project: Project) -> None:
    (project.folder / "s").write_text(SECRET)
    text = (
        f"{TOOLS}FROM base AS made\nRUN mkdir -p /out && echo x >/out/x && chown 12:34 /out/x\nFROM base\n"
        "RUN --mount=type=bind,target=/ctx cp -a /ctx/f /from-context\n"
        "RUN --mount=type=bind,from=made,source=/out,target=/o,rw cp -a /o /copied; echo y >/o/y\n"
        "RUN --mount=type=cache,target=/c,uid=5,gid=6 echo z >>/c/z; stat -c '%u %g %a' /c >/owner\n"
        "RUN --mount=type=secret,id=s,uid=9,gid=8,mode=0440 stat -c '%u %g %a' /run/secrets/s >/secret\n"
    )
    found = {}
    for rung in ("root", "ident", "subid"):
        state = {"AEROGEL_ROOT": str(project.folder / rung), "AEROGEL_ISOLATION": rung}
        project.write(text)
        done = project.aerogel(
            *("build", str(project.context), "--secret", f"id=s,src={project.folder / 's'}"), env=state, check=False
        )
        if done.returncode != 3:  # this host has no such rung
            assert done.returncode == 0, done.stderr
            found[rung] = done.stdout
    assert len(found) >= 2
    assert len(set(found.values())) == 1, found


def test_a_bound_context_is_what_copy_would_take(project: Project) -> None:
    (project.context / ".dockerignore").write_text("*.o\n!keep.o\ndeep/*/ignored\n")
    for name in ("a.o", "keep.o", "deep/x/ignored", "deep/x/kept"):
        (project.context / name).parent.mkdir(parents=True, exist_ok=True)
        (project.context / name).write_text(name)
    (project.context / "link").symlink_to("deep/x")
    os.chown(project.context / "f", os.getuid(), os.getgid())
    os.utime(project.context / "f", (1234567890, 1234567890))
    made = project.build(
        f"{TOOLS}WORKDIR /src\n"
        "RUN --mount=target=.,rw find . -type f | sort | tr '\\n' ' '; stat -c '%u:%g %Y' f; rm f; echo new >deep/x/kept\n"
        "RUN --mount=source=link,target=sub cat sub/kept; touch sub/x || true; echo $?; ls -d /src/*\n"
    )
    assert "./Dockerfile ./busybox ./deep/x/kept ./f ./keep.o 0:0 1234567890" in made.stderr.replace(
        "./.dockerignore ", ""
    )
    assert "deep/x/kept" in made.stderr
    assert "Read-only file system" in made.stderr
    assert "/src/sub" in made.stderr
    assert (project.context / "f").read_text() == "from the context\n"
    assert (project.context / "deep/x/kept").read_text() == "deep/x/kept"


def test_a_step_runs_again_only_for_what_it_sees(project: Project) -> None:
    (project.context / ".dockerignore").write_text("ignored\n")
    for name in ("src", "other"):
        (project.context / name).mkdir()
        (project.context / name / "file").write_text("1")
    text = (
        f"{TOOLS}FROM base AS made\nARG V\nRUN mkdir -p /out/a /out/b; echo same >/out/a/x; echo $V >/out/b/x\n"
        "FROM base\nRUN --mount=source=src,target=/src cat /src/file >/1\n"
        "RUN --mount=from=made,source=/out/a,target=/a cat /a/x >/2\n"
    )
    assert set(project.statuses(text, "--build-arg", "V=1")) == {"RAN"}
    assert set(project.statuses(text, "--build-arg", "V=1")) <= {"CACHED", "SKIPPED"}
    (project.context / "other/file").write_text("2")
    (project.context / "ignored").write_text("2")
    assert set(project.statuses(text, "--build-arg", "V=1")) <= {"CACHED", "SKIPPED"}
    assert project.statuses(text, "--build-arg", "V=2")[-2:] == ["CACHED", "REUSED"], "the selected part is the same"
    (project.context / "src/file").write_text("2")
    assert project.statuses(text, "--build-arg", "V=2")[-2:] == ["RAN", "RAN"]


def test_a_changed_context_shares_what_is_the_same(project: Project) -> None:
    os.utime(project.context / "busybox", (1, 1))
    text = f"{TOOLS}RUN --mount=target=/ctx,ro cat /ctx/f >/f\n"
    project.build(text)
    (project.context / "f").write_text("changed\n")
    project.build(text)
    copies = list((project.folder / "state/cache/snapshots-v1").glob("*/*/fs/busybox"))
    assert len(copies) == 2
    assert copies[0].samefile(copies[1])


def test_caches_live_on(project: Project) -> None:
    step = f"{TOOLS}RUN --mount=type=cache,target=/c echo one >>/c/log; wc -l </c/log; stat -c %a:%u /c\n"
    assert "1\n" in project.build(step).stderr
    assert "#3 2\n#3 755:0" in project.build(step, "--no-cache").stderr
    named = f"{TOOLS}RUN --mount=type=cache,target=/c,id=my/../odd-id%,uid=3,mode=0700 ls /c; stat -c %a:%u /c\n"
    assert "700:3" in project.build(named).stderr
    other = project.build(step, "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=mine", "--no-cache").stderr
    assert "#3 1\n" in other, "a name space has its own"
    listed = json.loads(project.aerogel("cache", "ls", "--json").stdout)["caches"]
    assert [one["id"] for one in listed] == ["/c", "mine//c", "my/../odd-id%"]
    assert project.aerogel("cache", "rm", "/c").stdout == "/c\n"
    assert "#3 1\n" in project.build(step, "--no-cache").stderr
    project.aerogel("cache", "rm", "--all")
    assert json.loads(project.aerogel("cache", "ls", "--json").stdout)["caches"] == []


def test_a_cache_begins_with_its_source(project: Project) -> None:
    text = (
        f"{TOOLS}FROM base AS seed\nRUN mkdir -p /s/sub; echo seed >/s/sub/f; chown 5:6 /s/sub/f\n"
        "FROM base\nRUN --mount=type=cache,target=/c,from=seed,source=/s echo more >>/c/sub/f; cat /c/sub/f; stat -c %u:%g /c/sub/f\n"
    )
    assert "seed\n" in project.build(text).stderr
    said = project.build(text, "--no-cache-filter", "stage-2").stderr
    assert said.count("more\n") == 2, "the second build finds what the first one wrote"
    assert "5:6" in said


def test_caches_go_to_another_store(project: Project, tmp_path: Path) -> None:
    write = "mkdir /c/d; echo x >/c/d/f; chown 5:6 /c/d /c/d/f; chmod 4755 /c/d/f; ln -s f /c/d/l; echo y >/e/y"
    mounts = "--mount=type=cache,target=/c,uid=7,mode=0711 --mount=type=cache,target=/e,id=odd/../id"
    project.build(f"{TOOLS}RUN {mounts} {write}\n")
    archive = tmp_path / "caches.tar"
    project.aerogel("cache", "export", "-o", str(archive))
    other = Aerogel(tmp_path / "other")
    other.env |= {"AEROGEL_PROGRESS": "plain", "XDG_CONFIG_HOME": str(tmp_path)}
    assert other("cache", "import", str(archive)).stdout == "/c\nodd/../id\n"
    shown = f"{TOOLS}RUN {mounts} stat -c '%n %u:%g %a' /c /c/d /c/d/f; readlink /c/d/l; cat /c/d/f /e/y; rm /e/y\n"
    project.write(shown)
    done = other("build", str(project.context))
    for line in ("/c 7:0 711", "/c/d 5:6 755", "/c/d/f 5:6 4755", "f", "x", "y"):
        assert f"#3 {line}\n" in done.stderr
    assert other("cache", "import", str(archive)).stdout == "/c (was here already)\nodd/../id (was here already)\n"
    assert other("cache", "import", "--replace", str(archive)).stdout == "/c\nodd/../id\n"
    assert "#3 y\n" in other("build", "--no-cache", str(project.context)).stderr
    assert "did you mean `/c`?" in other("cache", "export", "/cc", "-o", "x.tar", check=False).stderr
    (tmp_path / "short.tar").write_bytes(archive.read_bytes()[:2000])
    (tmp_path / "other.tar").write_bytes(b"")
    for name in ("short", "other"):
        done = other("cache", "import", "--replace", str(tmp_path / f"{name}.tar"), check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error: this is no archive of `aerogel cache export`: "), done.stderr


@pytest.mark.parametrize("sharing", ["locked", "shared", "private"])
def test_steps_at_the_same_time(project: Project, sharing: str) -> None:
    project.build(TOOLS)
    builds = [
        project.start(
            f"{TOOLS}RUN --mount=type=cache,target=/c,sharing={sharing} echo {n} >>/c/in; "
            "echo began $(date +%s); sleep 2; wc -l </c/in\n",
            name=f"Dockerfile.{n}",
        )
        for n in range(3)
    ]
    said = [build.communicate(timeout=300)[0] for build in builds]
    assert [build.returncode for build in builds] == [0, 0, 0], said
    lines = [line for text in said for line in text.splitlines()]
    times = [int(line.split()[-1]) for line in lines if " began " in line and "$" not in line]
    assert len(times) == 3
    if sharing == "locked":
        assert max(times) - min(times) >= 4
        assert any("waiting for cache `/c`" in line for line in lines)
    if sharing == "private":
        assert len([line for line in lines if line.endswith(" 1")]) == 3, "each had an empty one"


def test_interrupt_while_waiting_and_while_holding(project: Project) -> None:
    project.build(TOOLS)
    step = f"{TOOLS}RUN --mount=type=cache,target=/c,sharing=locked echo got $((1+{{n}})); sleep {{s}}\n"
    holder = project.start(step.format(n=1, s=900), name="Dockerfile.a")
    assert holder.stdout is not None
    while "got 2" not in (line := holder.stdout.readline()) or "echo" in line:
        assert line
    waiter = project.start(step.format(n=2, s=0), name="Dockerfile.b")
    assert waiter.stdout is not None
    while "waiting for cache" not in waiter.stdout.readline():
        assert waiter.poll() is None
    waiter.send_signal(signal.SIGINT)
    waiter.communicate(timeout=120)
    assert waiter.returncode == 130
    assert holder.poll() is None, "nobody waited for its end"
    third = project.start(step.format(n=3, s=0), name="Dockerfile.c")
    holder.send_signal(signal.SIGINT)
    holder.communicate(timeout=120)
    assert holder.returncode == 130
    said = third.communicate(timeout=120)[0]
    assert third.returncode == 0, said
    assert "got 4" in said


def holds(folder: Path, *needles: bytes) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and any(each in path.read_bytes() for each in needles)
    ]


def test_secrets_are_nowhere(project: Project) -> None:
    (project.folder / "s").write_text(SECRET + "\n")
    text = (
        f"{TOOLS}RUN --mount=type=secret,id=s,required --mount=type=secret,id=v,env=V "
        'cat /run/secrets/s; echo "$V"; base64 /run/secrets/s; test -f /run/secrets/v || echo no file\n'
        'RUN --mount=type=secret,id=absent,target=/x --mount=type=secret,id=absent,env=X test ! -e /x && test -z "$X"\n'
    )
    words = (
        "--secret",
        f"id=s,src={project.folder / 's'}",
        "--secret",
        "id=v,env=TOKEN",
        "--provenance=mode=max",
        "--sbom",
        "-o",
        f"type=oci,dest={project.folder / 'x.tar'}",
    )
    project.aerogel.env["TOKEN"] = "value of a variable"
    done = project.build(text, *words)
    assert "no file" in done.stderr
    forms = [SECRET.encode(), b"value of a variable", base64.b64encode(SECRET.encode())[:36]]
    assert not any(form.decode() in done.stderr + done.stdout for form in forms)
    assert "***" in done.stderr
    assert holds(project.folder / "state", *forms) == []
    assert not any(form in (project.folder / "x.tar").read_bytes() for form in forms)
    (project.folder / "s").write_text("another")
    assert set(project.statuses(text, *words[:4])) <= {"CACHED", "SKIPPED"}, "the value is not in the key"


LEAKS = {
    "plain": ("cp /run/secrets/s /leak", "/leak"),
    "base64": ("(echo -n x; cat /run/secrets/s) | base64 >/leak", "/leak"),
    "base64-shifted": ("(echo -n xy; cat /run/secrets/s; echo tail) | base64 >/leak", "/leak"),
    "hex": ("xxd -p /run/secrets/s >/leak", "/leak"),
    "url": (f"echo 'https://user:{quote(SECRET, safe='')}@host/' >/leak", "/leak"),
    "in-a-big-file": ("mkdir /d; (head -c 3000000 /dev/zero; cat /run/secrets/s) >/d/big", "/d/big"),
    "link": ('ln -s "$(cat /run/secrets/s)" /d', "/d"),
    "variable": ("env >/root-env", "/root-env"),
}


@pytest.mark.parametrize("form", LEAKS)
def test_a_leak_fails_the_build(project: Project, form: str) -> None:
    (project.folder / "s").write_text(SECRET)
    command, path = LEAKS[form]
    words = ("--secret", f"id=s,src={project.folder / 's'}")
    text = f"{TOOLS}RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S {command}\n"
    done = project.build(text, *words, check=False)
    assert done.returncode == 1, done.stderr
    assert f"error: the step wrote the secret `s` into its layer: `{path}`" in done.stderr
    assert "Dockerfile:6:" in done.stderr
    assert holds(project.folder / "state", SECRET.encode(), SECRET.encode().hex().encode()[:24]) == []


def test_a_secret_that_goes_another_way_is_found_too(project: Project) -> None:
    (project.folder / "s").write_text(SECRET)
    words = ("--secret", f"id=s,src={project.folder / 's'}")
    text = (
        f"{TOOLS}RUN --mount=type=secret,id=s --mount=type=cache,target=/c cp /run/secrets/s /c/\n"
        "RUN --mount=type=cache,target=/c cp /c/s /leak\n"
    )
    done = project.build(text, *words, check=False)
    assert "error: the step wrote the secret `s` into its layer: `/leak`" in done.stderr
    assert "Dockerfile:7:" in done.stderr
    (project.context / "dir").mkdir()
    (project.context / "dir/npmrc").write_text(f"//registry/:_authToken={SECRET}\n")
    (project.context / "dir/later").write_text("x" * 100)
    done = project.build("COPY dir /dir\n", *words, check=False)
    assert done.returncode == 1
    assert "error: the step copied the secret `s` into its layer: `/dir/npmrc`" in done.stderr
    assert "Dockerfile:5:" in done.stderr
    assert project.build("COPY dir/later /dir\n", *words).returncode == 0


PRINTED = """
cat /run/secrets/s; for i in 1 2 3; do head -c 9 /run/secrets/s; sleep 0.2; tail -c +10 /run/secrets/s; done
echo; base64 /run/secrets/s; (echo -n x; cat /run/secrets/s) | base64 -w 0; echo; xxd -p /run/secrets/s; hexdump -ve '1/1 "%02X"' /run/secrets/s
(head -c 65530 /dev/zero | tr '\\0' z; cat /run/secrets/s; echo); cat /run/secrets/odd; exit 3
"""


@pytest.mark.parametrize("progress", ["plain", "json"])
def test_what_steps_print_shows_no_secret(project: Project, progress: str) -> None:
    (project.folder / "s").write_text(SECRET)
    (project.folder / "odd").write_text('quo"ted \\ and \x1b[31mred\x1b[0m')
    words = [f"--secret=id={name},src={project.folder / name}" for name in ("s", "odd")]
    text = f"{TOOLS}RUN --mount=type=secret,id=s --mount=type=secret,id=odd <<EOF{PRINTED}EOF\n"
    done = project.build(text, *words, f"--progress={progress}", check=False)
    assert done.returncode == 1
    assert done.stderr.count("***") >= 10
    plain = [SECRET, 'quo"ted', 'quo\\"ted', "battery", SECRET.encode().hex(), SECRET.encode().hex().upper()]
    shifted = base64.b64encode(b"x" + SECRET.encode())[2:30].decode()
    for form in [*plain, base64.b64encode(SECRET.encode()).decode()[:30], shifted]:
        assert form not in done.stderr, form
        assert holds(project.folder / "state", form.encode()) == []


def test_an_agent_is_lent(project: Project, agent: Path) -> None:
    text = f"{TOOLS}RUN --mount=type=ssh --mount=type=ssh,id=b,target=/b,uid=5,gid=6,mode=0660 echo $SSH_AUTH_SOCK; stat -c '%a %u %g %F' $SSH_AUTH_SOCK /b\n"
    done = project.build(text, "--ssh", f"default={agent}", "--ssh", f"b={agent}")
    assert "/run/buildkit/ssh_agent.0\n" in done.stderr
    assert "600 0 0 socket" in done.stderr
    assert "660 5 6 socket" in done.stderr
    without = f"{TOOLS}RUN --mount=type=ssh echo agent=$SSH_AUTH_SOCK.\n"
    assert "agent=." in project.build(without).stderr


def test_network_hosts_and_limits(project: Project) -> None:
    words = ("--add-host", "db:192.0.2.7", "--ulimit", "nofile=77:99", "--shm-size", "3m")
    done = project.build(
        f"{TOOLS}RUN --network=none ls /sys/class/net; grep db /etc/hosts; ulimit -n; df -k /dev/shm | tail -1\n",
        *words,
    )
    for text in ("#3 lo\n", "192.0.2.7\tdb", "#3 77\n", "3072"):
        assert text in done.stderr
    done = project.build(f"{TOOLS}RUN ls /sys/class/net\n", "--network", "none")
    assert done.stderr.count("#3 ") == 3, "only lo"


def test_entitlements(project: Project) -> None:
    text = f"{TOOLS}RUN --security=insecure grep -E 'CapEff|Seccomp:' /proc/self/status\nRUN grep -E 'CapEff|Seccomp:' /proc/self/status\n"
    done = project.build(text, "--allow", "security.insecure")
    seccomp = [line.split()[-1] for line in done.stderr.splitlines() if "Seccomp:" in line and "RUN" not in line]
    assert seccomp == ["0", "2"]
    effective = [
        int(line.split()[-1], 16) for line in done.stderr.splitlines() if "CapEff:" in line and "RUN" not in line
    ]
    assert effective[0] > effective[1] == 0xA80425FB
    project.build(f"{TOOLS}RUN --network=host true\n", "--allow", "network.host")


def test_a_script_and_its_interpreter(project: Project) -> None:
    done = project.build(
        f"{TOOLS}RUN <<EOF\n#!/bin/sh -e\necho script $0\nls /dev/pipes\nEOF\nRUN test ! -e /dev/pipes\n"
    )
    assert "script /dev/pipes/EOF\n" in done.stderr


def test_the_whole_log_is_kept(project: Project) -> None:
    (project.folder / "s").write_text(SECRET)
    text = f"{TOOLS}RUN --mount=type=secret,id=s for n in $(seq 1 500); do echo line $n; done; cat /run/secrets/s; exit 3\n"
    done = project.build(text, "--secret", f"id=s,src={project.folder / 's'}", check=False)
    path = Path(done.stderr.split("all of its output is in `")[1].split("`")[0])
    lines = path.read_text().splitlines()
    assert (lines[0], lines[499], lines[500]) == ("line 1", "line 500", "***")
    assert path.stat().st_mode & 0o077 == 0
    assert "  line 462\n" in done.stderr
    assert "  line 450\n" not in done.stderr


def test_a_step_that_takes_too_long(project: Project) -> None:
    """On every rung, at the same time: each is asked to end, and killed when it does not."""
    project.build(TOOLS)
    began = time.monotonic()
    builds = {}
    for rung in ["root", "ident", "single", "chroot"] if os.getuid() == 0 else ["auto"]:
        project.aerogel.env["AEROGEL_ISOLATION"] = rung
        text = f"{TOOLS}RUN trap 'echo asked on {rung}' TERM; sleep 100 & wait; sleep 100\n"
        builds[rung] = project.start(text, "--timeout", "1s", name=f"Dockerfile.{rung}")
    for rung, build in builds.items():
        said = build.communicate(timeout=300)[0]
        assert build.returncode == 1
        assert "error: RUN took longer than the 1 s" in said
        assert f" asked on {rung}\n" in said
    assert time.monotonic() - began < 90, "none ran to its end"
