"""Which times files get in images: the date of the image, that of the newest commit, or those they have.

And what a date does not do: make a step run again. Debian packages: busybox-static, git.
"""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from process import Aerogel

from aerogel.files.pyc import HEAD as PYC_HEAD
from aerogel.files.pyc import fits, recorded_time
from aerogel.store.store import Store

pytestmark = pytest.mark.host("busybox")

FIXED = 315532800
COMMITTED = 1700000000
HEAD = 'FROM scratch AS base\nCOPY busybox /bin/\nRUN ["/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]\n'
WRITES = "RUN /bin/busybox mkdir /out && /bin/busybox date > /out/f && /bin/busybox truncate -s 0 /out/f\n"


class Bench:
    """A context and a store; `build` gives the result of `--json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = folder / "context"
        self.context.mkdir()
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, self.context / "busybox")
        (self.context / "a").write_text("a\n")
        self.aerogel = Aerogel(folder / "state")
        self.aerogel.env.pop("SOURCE_DATE_EPOCH", None)

    def build(self, dockerfile: str, *words: str, store: str = "state", **options: Any) -> dict[str, Any]:
        (self.context / "Dockerfile").write_text(HEAD + dockerfile)
        aerogel = Aerogel(self.folder / store)
        aerogel.env.pop("SOURCE_DATE_EPOCH", None)
        done = aerogel("build", str(self.context), "--json", "--progress=plain", *words, **options)
        self.said = done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def git(self, *words: str, cwd: Path | None = None, when: int = COMMITTED) -> str:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            "GIT_AUTHOR_DATE": "1000000000 +0000",
            "GIT_COMMITTER_DATE": f"{when} +0200",
        }
        done = subprocess.run(["git", *words], cwd=cwd or self.context, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, when: int = COMMITTED) -> None:
        if not (self.context / ".git").exists():
            self.git("init", "-q", "-b", "main")
        self.git("commit", "-q", "--allow-empty", "-m", "x", when=when)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def times(bench: Bench, result: dict[str, Any], store: str = "state") -> list[dict[str, int]]:
    """The times in each layer, by path."""
    found = []
    root = bench.folder / store
    with Store.open(root / "data", root / "cache") as opened:
        for layer in result["layers"]:
            with opened.blobs.open(layer["digest"]) as stream, tarfile.open(fileobj=stream, mode="r:gz") as tar:
                found.append({member.name: int(member.mtime) for member in tar})
    return found


def created(result: dict[str, Any], bench: Bench) -> str:
    return bench.aerogel("inspect", "-f", "{{.Created}}", result["image_id"]).stdout.strip()


def statuses(result: dict[str, Any]) -> dict[str, str]:
    return {step["name"].partition(" ")[0] + " " + step["name"][-12:]: step["status"] for step in result["steps"]}


def test_without_a_repository_the_date_is_fixed(bench: Bench) -> None:
    result = bench.build("FROM base\nCOPY a /a\n" + WRITES)
    assert {each for layer in times(bench, result) for each in layer.values()} == {FIXED}
    assert created(result, bench) == "1980-01-01T00:00:00Z"


def test_the_newest_commit_dates_the_image(bench: Bench) -> None:
    bench.commit()
    result = bench.build("FROM base\nCOPY a /a\n" + WRITES)
    assert {each for layer in times(bench, result) for each in layer.values()} == {COMMITTED}
    assert created(result, bench) == "2023-11-14T22:13:20Z"


def test_a_date_that_is_given_wins(bench: Bench) -> None:
    bench.commit()
    text = "FROM base\nCOPY a /a\n"
    for words, env, when in (
        (["--build-arg", "SOURCE_DATE_EPOCH=1111111111"], {}, 1111111111),
        ([], {"SOURCE_DATE_EPOCH": "1222222222"}, 1222222222),
        (["--build-arg", "SOURCE_DATE_EPOCH=1111111111"], {"SOURCE_DATE_EPOCH": "1222222222"}, 1111111111),
    ):
        result = bench.build(text, *words, env=env)
        assert {each for layer in times(bench, result) for each in layer.values()} == {when}


def test_a_new_commit_runs_nothing_again(bench: Bench) -> None:
    """And gives the image that an empty store gives: what is kept says nothing of dates."""
    text = "FROM base\nCOPY a /a\n" + WRITES + "RUN /bin/busybox stat -c %Y /a /out/f > /seen\nCOPY a /b\n"
    bench.commit()
    first = bench.build(text)
    bench.commit(COMMITTED + 1000)
    second = bench.build(text)
    assert set(statuses(second).values()) <= {"CACHED", "SKIPPED"}
    assert first["image_id"] != second["image_id"]
    assert {each for layer in times(bench, second) for each in layer.values()} == {COMMITTED + 1000}
    assert bench.build(text, store="other")["image_id"] == second["image_id"]
    (bench.context / "a").write_text("changed\n")
    assert "RAN" in statuses(bench.build(text)).values()
    bench.git("checkout", "-q", "--detach", "HEAD~1")
    (bench.context / "a").write_text("a\n")
    third = bench.build(text)
    assert third["image_id"] == first["image_id"]


def test_steps_see_times_that_no_date_changes(bench: Bench) -> None:
    """A step that writes down what it sees gives the same, with any date, now and later, in one store or two."""
    text = "FROM base\nCOPY a /a\n" + WRITES + "RUN /bin/busybox stat -c '%n %Y' /a /out /out/f > /seen\n"
    one = bench.build(text, "--build-arg", "SOURCE_DATE_EPOCH=1500000000")
    time.sleep(1.1)
    two = bench.build(text, "--build-arg", "SOURCE_DATE_EPOCH=1500000000", store="other")
    assert one["image_id"] == two["image_id"]
    bench.aerogel("build", "-t", "seen", str(bench.context))
    seen = bench.aerogel("run", "--entrypoint", "/bin/busybox", "seen", "cat", "/seen").stdout
    assert seen.splitlines() == [f"/a {FIXED}", f"/out {FIXED + 2}", f"/out/f {FIXED + 2}"]


def test_what_a_step_wrote_is_newer_than_what_it_was_made_from(bench: Bench) -> None:
    """`make` in the next step finds nothing to do, although the sources came with times of their own."""
    text = (
        "FROM base\nRUN /bin/busybox touch -d @1234567890 /source && /bin/busybox touch /made\n"
        "RUN test /made -nt /source && test ! /source -nt /made && /bin/busybox stat -c %Y /source > /kept\n"
    )
    text = text.replace("RUN test", 'SHELL ["/bin/sh", "-ec"]\nRUN test')
    result = bench.build(text, "--build-arg", "SOURCE_DATE_EPOCH=1600000000")
    layers = times(bench, result)
    assert (layers[2]["source"], layers[2]["made"]) == (1234567890, 1600000000)
    result = bench.build(text, "--build-arg", "SOURCE_DATE_EPOCH=1200000000")
    assert (times(bench, result)[2]["source"]) == 1200000000, "nothing is newer than the image"


def test_times_as_they_are(bench: Bench) -> None:
    os.utime(bench.context / "a", (1444444444, 1444444444))
    before = int(time.time())
    text = "FROM base\nCOPY a /a\n" + WRITES
    result = bench.build(text, "--timestamps=keep")
    layers = times(bench, result)
    assert layers[2]["a"] == 1444444444
    assert before <= layers[3]["out/f"] <= time.time()
    assert created(result, bench) >= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(before))
    again = bench.build(text, "--timestamps=keep")
    assert set(statuses(again).values()) <= {"CACHED", "SKIPPED"}


def test_an_unknown_choice_of_times(bench: Bench) -> None:
    (bench.context / "Dockerfile").write_text("FROM scratch\n")
    done = bench.aerogel("build", str(bench.context), "--timestamps=yes", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: `--timestamps=yes` is unknown\nhint: write `image`, or `keep`")


@pytest.mark.parametrize("kind", ["packed", "detached", "worktree", "shallow", "below", "empty", "partial"])
def test_forms_of_repositories(bench: Bench, kind: str, tmp_path: Path) -> None:
    context, when = bench.context, COMMITTED
    if kind == "empty":
        bench.git("init", "-q")
        when = FIXED
    else:
        bench.commit()
    if kind == "packed":
        bench.git("gc", "-q")
        assert (context / ".git/packed-refs").exists()
    elif kind == "detached":
        bench.commit(COMMITTED + 5)
        bench.git("checkout", "-q", "--detach", "HEAD~1")
    elif kind == "worktree":
        bench.git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
        context = tmp_path / "tree"
        assert (context / ".git").is_file()
    elif kind == "shallow":
        bench.commit(COMMITTED + 5)
        bench.git("clone", "-q", "--depth=1", f"file://{context}", str(tmp_path / "tree"), cwd=tmp_path)
        context, when = tmp_path / "tree", COMMITTED + 5
    elif kind == "below":
        context = bench.context / "sub/folder"
        context.mkdir(parents=True)
    elif kind == "partial":
        bench.git("config", "uploadpack.allowFilter", "true")
        bench.git(
            "clone", "-q", "--filter=tree:0", "--no-checkout", f"file://{context}", str(tmp_path / "t"), cwd=tmp_path
        )
        context = tmp_path / "t"
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    result = bench.aerogel.json("build", str(context))
    assert times(bench, result) == [{"Dockerfile": when}]


def test_a_hostile_repository_runs_nothing(bench: Bench, tmp_path: Path) -> None:
    """A program in each place of a configuration where git would run one; and the repository is not the user's."""
    bench.commit()
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $@" >> {tmp_path}/ran\n')
    program.chmod(0o755)
    config = bench.context / ".git/config"
    config.write_text(
        config.read_text()
        + f"""[core]
    fsmonitor = {program}
    hooksPath = {tmp_path}
    pager = {program}
    editor = {program}
    sshCommand = {program}
    gitProxy = {program}
    askPass = {program}
    alternateRefsCommand = {program}
[log]
    showSignature = true
[gpg]
    program = {program}
[alias]
    cat-file = !{program}
[filter "x"]
    smudge = {program}
    clean = {program}
[diff "x"]
    textconv = {program}
[credential]
    helper = {program}
[uploadpack]
    packObjectsHook = {program}
[remote "origin"]
    url = ext::{program}
    uploadpack = {program}
    promisor = true
[extensions]
    partialClone = origin
"""
    )
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        shutil.copy(program, bench.context / ".git/hooks" / hook)
    (bench.context / ".gitattributes").write_text("* filter=x diff=x\n")
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", "1:1", str(bench.context / ".git")], check=True)
    result = bench.build("FROM base\nCOPY a /a\n")
    assert {each for layer in times(bench, result) for each in layer.values()} == {COMMITTED}
    # Its objects are gone: nothing asks the "remote" for them.
    shutil.rmtree(bench.context / ".git/objects")
    (bench.context / ".git/objects").mkdir()
    result = bench.build("FROM base\nCOPY a /a\n")
    assert "warning: git cannot read the newest commit of" in bench.said
    assert "hint: the image is dated 1980-01-01; give a date with `SOURCE_DATE_EPOCH`" in bench.said
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_without_git_the_date_is_fixed_and_that_is_said(bench: Bench) -> None:
    bench.commit()
    result = bench.build("FROM base\nCOPY a /a\n", env={"PATH": str(bench.folder)})
    assert {each for layer in times(bench, result) for each in layer.values()} == {FIXED}
    assert "warning: the program `git` is not installed\n" in bench.said


# Python's compiled files.


def heads(bench: Bench, result: dict[str, Any]) -> dict[str, bytes]:
    """The first bytes of the compiled files of the image."""
    found = {}
    root = bench.folder / "state"
    with Store.open(root / "data", root / "cache") as opened:
        for layer in result["layers"]:
            with opened.blobs.open(layer["digest"]) as stream, tarfile.open(fileobj=stream, mode="r:gz") as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.name.endswith(".pyc") else None
                    if content is not None:
                        found[member.name] = content.read(PYC_HEAD)
    return found


@pytest.mark.parametrize("when", [FIXED, COMMITTED])
@pytest.mark.parametrize("how", ["COPY pkg /pkg/", "ADD pkg.tar /pkg/", "stage"])
def test_compiled_files_are_copied_with_their_sources(bench: Bench, how: str, when: int) -> None:
    package = bench.context / "pkg"
    package.mkdir()
    for name in ("m", "stale"):
        (package / f"{name}.py").write_text("x = 1\n")
        os.utime(package / f"{name}.py", (1_600_000_000, 1_600_000_000))
        py_compile.compile(str(package / f"{name}.py"), cfile=str(package / f"__pycache__/{name}.cpython-313.pyc"))
    os.utime(package / "stale.py", (1_600_000_001, 1_600_000_001))
    with tarfile.open(bench.context / "pkg.tar", "w") as tar:
        tar.add(package, ".")
    if how == "stage":
        # The step writes the source anew, so the compiled file of the context must not fit; and one that fits.
        text = "FROM base AS made\nCOPY pkg /pkg/\nRUN /bin/busybox cp /pkg/stale.py /stale && /bin/busybox mv /stale /pkg/stale.py\n"
        text += "FROM scratch\nCOPY --from=made /pkg /pkg/\n"
    else:
        text = f"FROM base\n{how}\n"
    result = bench.build(text, "--build-arg", f"SOURCE_DATE_EPOCH={when}")
    found = heads(bench, result)
    assert fits(found["pkg/__pycache__/m.cpython-313.pyc"], when, 6)
    stale = found["pkg/__pycache__/stale.cpython-313.pyc"]
    assert recorded_time(stale) == 1_600_000_000
    assert not fits(stale, when, 6)
    # A source that now fits is another content, although no byte of the compiled file changed.
    if how == "COPY pkg /pkg/":
        os.utime(package / "stale.py", (1_600_000_000, 1_600_000_000))
        result = bench.build(text, "--build-arg", f"SOURCE_DATE_EPOCH={when}")
        assert fits(heads(bench, result)["pkg/__pycache__/stale.cpython-313.pyc"], when, 6)


def test_compiled_files_fit_sources_of_a_base_that_was_built_without_a_date(bench: Bench) -> None:
    (bench.context / "m.py").write_text("x = 1\n")
    os.utime(bench.context / "m.py", (FIXED, FIXED))
    py_compile.compile(str(bench.context / "m.py"), cfile=str(bench.context / "m.pyc"))
    bench.build("FROM base\nCOPY m.py /m.py\n", "-t", "undated")
    # As if the interpreter had compiled it: copied by a step, so that its source is the one in the base.
    text = "FROM undated\nRUN --mount=type=bind,target=/in /bin/busybox cp /in/m.pyc /m.pyc\n"
    result = bench.build(text, "--build-arg", f"SOURCE_DATE_EPOCH={COMMITTED}")
    assert fits(heads(bench, result)["m.pyc"], FIXED, 6)
