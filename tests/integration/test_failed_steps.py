"""A step that fails: its state is kept, looked at with `aerogel debug last`, gone on from with `--retry`.

Debian packages: busybox-static, libc-bin, util-linux, proot.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import sys
import tarfile
import time
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = pytest.mark.host("busybox", "setpriv", "proot")

HEAD = """FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-ec"]
ENV PATH=/bin
RUN ["/bin/busybox", "--install", "-s", "/bin"]
"""
FAILING = """WORKDIR /work
ENV COLOR=blue
RUN --mount=type=cache,target=/c --mount=type=bind,source=f,target=/f echo one >a; test -f fixed || exit 3; cp fixed done
RUN cat done a
"""
SECRET = "correct horse? battery+staple"


class Project:
    def __init__(self, folder: Path, program: Aerogel | None = None) -> None:
        self.folder = folder
        self.context = folder / "context"
        self.context.mkdir()
        shutil.copy(shutil.which("busybox") or "", self.context / "busybox")
        (self.context / "f").write_text("from the context\n")
        self.aerogel = program or Aerogel(folder / "state")
        self.aerogel.env |= {"AEROGEL_PROGRESS": "plain", "XDG_CONFIG_HOME": str(folder)}

    def build(self, text: str, *words: str, status: int = 0) -> str:
        (self.context / "Dockerfile").write_text(text)
        done = self.aerogel("build", str(self.context), *words, check=False)
        assert done.returncode == status, done.stderr
        return done.stderr

    def debug(self, *words: str, status: int = 0) -> tuple[str, str]:
        done = self.aerogel("debug", "last", *words, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr

    def kept(self) -> list[Path]:
        return sorted((self.folder / "state/cache/failed-v1").glob("*/*"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("isolation", ["auto", "single"])
def test_debug_and_retry(project: Project, isolation: str) -> None:
    project.aerogel.env["AEROGEL_ISOLATION"] = isolation
    said = project.build(HEAD + FAILING, status=1)
    assert "error: RUN failed: exit status 3\n" in said
    assert "hint: `aerogel debug last` opens a shell where it failed; `aerogel build --retry`" in said
    shown = "pwd; cat a /f; echo $COLOR; test -d /c; echo by hand >fixed"
    out, said = project.debug("--", "sh", "-c", shown)
    assert out == "/work\none\nfrom the context\nblue\n"
    assert "Dockerfile:8, " in said
    assert "ago): RUN failed: exit status 3" in said
    said = project.build(HEAD + FAILING, "--retry")
    assert "going on from where it failed" in said
    assert "#5 by hand\n#5 one\n" in said
    assert "warning: a step went on from a failed state, so this result is not kept\n" in said
    assert project.kept() == []
    assert "RUN failed: exit status 3" in project.build(HEAD + FAILING, status=1), "the result was kept"


def test_bake_goes_on_too(project: Project) -> None:
    (project.context / "Dockerfile").write_text(HEAD + FAILING)
    (project.context / "docker-bake.hcl").write_text('target "default" {}\n')
    done = project.aerogel("bake", "--on-error=debug", check=False, cwd=project.context)
    assert done.returncode == 1
    assert "`--on-error=debug` opens no shell: standard input and output are no terminal" in done.stderr
    project.debug("--", "sh", "-c", "echo by hand >fixed")
    done = project.aerogel("bake", "--retry", cwd=project.context)
    assert "going on from where it failed" in done.stderr
    assert "by hand\n" in done.stderr


def test_a_corrected_instruction_goes_on_too(project: Project) -> None:
    project.build(HEAD + "RUN echo slow >part; cat missing\nRUN cat part\n", status=1)
    said = project.build(HEAD + "RUN test -f part\nRUN cat part\n", "--retry")
    assert "#4 slow\n" in said
    said = project.build(HEAD + "RUN true\n", "--retry")
    assert "`--retry` changed nothing" in said


def test_a_retry_finds_what_a_cache_holds(project: Project) -> None:
    """The cache has what the failed step wrote to it and what the shell did; the images get nothing of it."""
    cache = "--mount=type=cache,target=/cache"
    failing = HEAD + f"RUN {cache} ls /cache; echo first >>/cache/log; cat /cache/by-hand\n"
    assert "RUN failed: exit status 1" in project.build(failing, status=1)
    out, _ = project.debug("--", "sh", "-c", "cat /cache/log; echo done by hand >/cache/by-hand")
    assert out == "first\n"
    said = project.build(failing, "--retry")
    assert "#3 by-hand\n#3 log\n#3 done by hand\n" in said, said
    said = project.build(HEAD + f"RUN ls -A /cache || ls -A /\nRUN {cache} cat /cache/log\n")
    assert "#4 first\n#4 first\n" in said, said
    assert "#3 ls: /cache: No such file or directory\n" in said, said


def test_a_retry_with_times_as_they_are(project: Project) -> None:
    cache = "--mount=type=cache,target=/cache"
    failing = HEAD + f"RUN {cache} touch -d @1000000000 /cache/old /made; test -f /cache/mended\n"
    project.build(failing, "--timestamps=keep", status=1)
    project.debug("--", "sh", "-c", "touch /cache/mended")
    project.build(failing, "--timestamps=keep", "--retry")
    said = project.build(HEAD + f"RUN {cache} stat -c '%Y' /cache/old\n", "--timestamps=keep")
    assert "#3 1000000000\n" in said, said


def test_a_state_outlives_a_retry_that_cannot_begin(project: Project) -> None:
    (project.folder / "s").write_text(SECRET)
    text = HEAD + "RUN --mount=type=secret,id=s,required test -f by-hand\n"
    words = ["--secret", f"id=s,src={project.folder / 's'}"]
    project.build(text, *words, status=1)
    assert "needs the secret `s`" in project.build(text, "--retry", status=1)
    project.debug("--", "touch", "by-hand")
    [state] = project.kept()
    fd = os.open(state, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    _, said = project.debug("--", "true", status=1)
    assert said.endswith(
        "error: another shell is open where the step failed\nhint: end that `aerogel debug last` first\n"
    )
    assert "error: another shell is open" in project.build(text, "--retry", *words, status=1)
    os.close(fd)
    assert "going on from where it failed" in project.build(text, "--retry", *words)


def test_the_newest_few_are_kept_and_prune_removes_them(project: Project) -> None:
    for number in range(5):
        project.build(f"{HEAD}RUN mkdir /{number}; chmod 0 /{number}; exit 1\n", status=1)
    assert len(project.kept()) == 3
    assert project.debug("--", "ls", "/")[0].startswith("4\n")
    project.aerogel("prune", "--all", "--force")
    assert project.kept() == []
    _, said = project.debug(status=1)
    assert said.startswith("error: no failed step is kept\nhint: ")


def test_a_state_with_a_secret_is_not_kept(project: Project) -> None:
    (project.folder / "s").write_text(SECRET)
    words = ["--secret", f"id=s,src={project.folder / 's'}"]
    text = f'{HEAD}RUN --mount=type=secret,id=s,env=S echo "$S" >/leak; exit 1\n'
    said = project.build(text, *words, status=1)
    assert "hint: its state is not kept, since the secret `s` is in what it wrote\n" in said
    assert project.kept() == []
    text = f"{HEAD}RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s exit 1\n"
    project.build(text, *words, status=1)
    out, said = project.debug("--", "sh", "-c", "echo .$S.; ls /run/secrets || echo none")
    assert (out, "not here: secret `s`, secret `s`\n" in said) == ("..\nnone\n", True)
    files = [path for path in (project.folder / "state").rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_an_image_without_a_shell_gets_one(project: Project) -> None:
    shutil.copy("/sbin/ldconfig", project.context / "tool")
    project.build('FROM scratch\nCOPY tool /tool\nRUN ["/tool", "--no-such-option"]\n', status=1)
    done = project.aerogel("debug", "last", input="ls /; ls -d /.aerogel; echo changed >/new; exit 9\n", check=False)
    assert done.returncode == 9, done.stderr
    assert "the image has no shell: one from outside is at `/.aerogel`, in no layer\n" in done.stderr
    assert "tool\n/.aerogel\n" in done.stdout
    [state] = project.kept()
    assert sorted(path.name for path in (state / "fs").iterdir()) == ["new"]


@pytest.mark.parametrize("rung", ["chroot", "proot"])
def test_where_nothing_can_be_mounted(tmp_path: Path, rung: str) -> None:
    """The state is copied together: what it and the shell made, changed, replaced and removed is all in the next layer."""
    project = Project(tmp_path, Denied(tmp_path / "state") if rung == "chroot" else Unable(tmp_path / "state"))
    project.aerogel.env["AEROGEL_ISOLATION"] = rung
    project.build(HEAD + FAILING, status=1)
    out, said = project.debug("--", "sh", "-c", "cat a; echo by hand >fixed; cat /proc/self/comm")
    assert out == "one\ncat\n"
    assert "stays: `aerogel build --retry` goes on from it" in said
    said = project.build(HEAD + FAILING, "--retry")
    assert "#5 by hand\n#5 one\n" in said
    made = (
        "RUN mkdir -p /k/old /k/kept /k/gone && echo l >/k/old/l && echo l >/k/gone/l && echo l >/k/kept/l && ln /k/kept/l /k/hard && "
        "echo r >/k/r && chown 5:6 /k/kept\n"
    )
    first = (
        "rm -r /k/old /k/gone; mkdir /k/old; echo n >/k/old/n; chown 0:0 /k/kept; chmod 700 /k/kept; echo t >/k/kept/t; "
        "ln /k/kept/t /k/u; chown 7:8 /k/u; ln -s t /k/s; chown -h 9:9 /k/s; mkfifo /k/p; echo more >>/k/r"
    )
    second = "rm /k/kept/t; echo shell >/k/shell; chmod 751 /k/old"
    third = "test -e /k/shell && touch -d @1000 /k/old/n && echo last >>/k/r && rm /k/hard"
    project.build(HEAD + made + f"RUN {first}; exit 1\n", status=1)
    project.debug("--", "sh", "-c", second)
    output = f"--output=type=tar,dest={tmp_path / 'tar'}"
    project.build(HEAD + made + f"RUN {third}\n", "--retry", output)
    shown = listing(tmp_path / "tar")
    assert len(shown) == 10, shown
    project.build(HEAD + made + f"RUN {first}; {second}; {third}\n", output)
    assert shown == listing(tmp_path / "tar")
    assert [path.name for path in (tmp_path / "state/cache").glob("failed-v1/*/*/fs.*")] == []


def content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isfile() else None
    return b"" if file is None else file.read()


def listing(path: Path) -> list[tuple[object, ...]]:
    """What is below /k, with contents."""
    with tarfile.open(path) as tar:
        return [
            (*(each.name, each.type, each.mode, each.uid, each.gid, each.linkname), content(tar, each))
            for each in tar
            if each.name.startswith("k")
        ]


class Unable(Aerogel):
    """As root of a container that has no capabilities."""

    def argv(self, *words: str) -> list[str]:
        return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *super().argv(*words)]


class Denied(Aerogel):
    """As root of a default container of Docker."""

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, str(Path(__file__).parents[1] / "support" / "denied.py"), *super().argv(*words)]


def talk(argv: list[str], env: dict[str, str], typed: dict[str, str]) -> tuple[int, str]:
    """Types each value when its key has been shown; the exit status and all that was shown."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, env)
    seen, left = "", dict(typed)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if not select.select([master], [], [], 1)[0]:
            continue
        try:
            data = os.read(master, 1 << 16)
        except OSError:
            break
        seen += data.decode("utf-8", "replace")
        for key in [key for key in left if key in seen]:
            os.write(master, left.pop(key).encode())
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


def test_a_shell_when_it_fails(project: Project) -> None:
    (project.context / "Dockerfile").write_text(HEAD + FAILING)
    argv = project.aerogel.argv("build", str(project.context), "--on-error=debug")
    env = {**project.aerogel.env, "PS1": "", "TERM": "dumb"}
    typed = {"stays: `aerogel build --retry` goes on from it": "echo $((6*7)) >fixed; tty; exit\n"}
    status, seen = talk(argv, env, typed)
    assert status == 1, seen
    assert seen.index("error: RUN failed: exit status 3") < seen.index("/dev/pts/0")
    assert "#5 42\n" in project.build(HEAD + FAILING, "--retry")
    said = project.build(HEAD + "RUN exit 4\n", "--on-error=debug", status=1)
    assert "warning: `--on-error=debug` opens no shell: standard input and output are no terminal\n" in said
