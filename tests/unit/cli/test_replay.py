"""A build that has nothing to do is answered again; whatever could change the answer sends it the ordinary way."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aerogel.cli.main import main
from aerogel.cli.replay import Replay
from aerogel.witness import RACY_NS, Witness

DOCKERFILE = """\
FROM scratch AS all
COPY . /app/
FROM scratch
COPY --from=all /app/src /src
LABEL a=b
"""


def settle() -> None:
    """What changed a moment ago is not vouched for."""
    time.sleep(0.06)


class Project:
    """A context, and a build of it that was made three times: made, found CACHED, answered again."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.context = folder / "context"
        self.capfd = capfd
        (self.context / "src" / "deep").mkdir(parents=True)
        (self.context / "Dockerfile").write_text(DOCKERFILE)
        (self.context / ".dockerignore").write_text("*.log\nDockerfile\ntmp\n!tmp/kept\n")
        for name, text in {"src/a": "one", "src/deep/b": "two", "noise.log": "x", "src/link": ""}.items():
            if name == "src/link":
                (self.context / name).symlink_to("a")
            else:
                (self.context / name).write_text(text)
        settle()
        self.words = ["build", str(self.context), "-t", "one", "--progress=plain"]

    def build(self) -> tuple[str, str]:
        assert main(self.words) == 0
        return self.capfd.readouterr()

    def is_answered(self) -> bool:
        found = Replay(self.words).answer()
        self.capfd.readouterr()
        return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Project:
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, capfd)


def test_same_answer(project: Project) -> None:
    first = project.build()
    assert not project.is_answered(), "steps ran: the next build says something else"
    second = project.build()
    assert second[0] == first[0]
    assert "CACHED" in second[1]
    assert "RAN" not in second[1]
    told = re.fullmatch(r"image one:latest: [\d.]+ K?B, linux/\w+", second[1].splitlines()[-1])
    assert told is not None, "what was made, for a person"
    assert project.is_answered()
    assert project.build() == second


def same_size_and_time(context: Path) -> None:
    path = context / "src/a"
    before = path.stat()
    path.write_text("ONE")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content, with size and time kept": same_size_and_time,
    "mode": lambda context: (context / "src/deep/b").chmod(0o755),
    "new file": lambda context: (context / "src/new").write_text(""),
    "file gone": lambda context: (context / "src/a").unlink(),
    "file replaced": lambda context: (
        (context / "src/n").write_text("one") and (context / "src/n").rename(context / "src/a")
    ),
    "directory became a file": lambda context: (
        (context / "src/deep/b").unlink(),
        (context / "src/deep").rmdir(),
        (context / "src/deep").write_text(""),
    ),
    "mode of a directory": lambda context: (context / "src/deep").chmod(0o700),
    "link": lambda context: ((context / "src/link").unlink(), (context / "src/link").symlink_to("deep")),
    "Dockerfile": lambda context: (context / "Dockerfile").write_text(DOCKERFILE + "LABEL c=d\n"),
    "ignore file": lambda context: (context / ".dockerignore").write_text(""),
    "ignore file of the Dockerfile": lambda context: (context / "Dockerfile.dockerignore").write_text("src/a\n"),
    "an exception of the ignore file": lambda context: (
        (context / "tmp").mkdir(),
        (context / "tmp/kept").write_text(""),
    ),
    "configuration": lambda context: (context.parent / "aerogel.toml").write_text('[build]\ntarget = "all"\n'),
    "configuration of the user": lambda context: (
        (context.parent / "config/aerogel").mkdir(parents=True),
        (context.parent / "config/aerogel/aerogel.toml").write_text('[build]\ntarget = "all"\n'),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_not_missed(project: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project.build()
    project.build()
    assert project.is_answered()
    CHANGES[name](project.context)
    assert not project.is_answered()
    after = project.build()[0]
    # What an empty store says is right.
    monkeypatch.setenv("AEROGEL_ROOT", str(project.context.parent / "other"))
    assert project.build()[0] == after


@pytest.mark.parametrize("pattern", ["images-v1/refs/*", "images-v1/by-digest/*", "blobs/sha256/*"])
def test_what_is_gone_from_the_store_is_made_again(project: Project, pattern: str) -> None:
    project.build()
    before = project.build()
    for path in (project.context.parent / "root/data").glob(pattern):
        path.unlink()
    assert not project.is_answered()
    assert project.build()[0] == before[0]
    assert main(["inspect", "one"]) == 0


def test_after_a_prune_steps_run(project: Project) -> None:
    project.build()
    project.build()
    assert main(["rmi", "one"]) == 0
    assert main(["prune", "--all"]) == 0
    project.capfd.readouterr()
    assert not project.is_answered()
    assert "CACHED" not in project.build()[1]


def test_what_is_ignored_does_not_count(project: Project) -> None:
    project.build()
    project.build()
    (project.context / "noise.log").write_text("another text")
    (project.context / "src/empty.log").parent.chmod(0o755)
    assert project.is_answered()


@pytest.mark.parametrize("extra", [["--no-cache"], ["--pull"], ["--iidfile=id"], ["-o", "type=oci,dest=a.tar"]])
def test_builds_that_do_something_are_never_answered(project: Project, extra: list[str]) -> None:
    project.words += extra
    project.build()
    project.build()
    assert not project.is_answered()


def test_the_environment_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.build()
    project.build()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    assert not project.is_answered()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    monkeypatch.setenv("OLDPWD", "/somewhere")
    assert project.is_answered()


def test_a_new_image_of_the_name_of_a_base_counts(project: Project) -> None:
    assert main(["build", str(project.context), "-t", "base", "-q"]) == 0
    (project.context / "Dockerfile").write_text("FROM base\nLABEL x=y\n")
    settle()
    project.build()
    project.build()
    assert project.is_answered()
    (project.context / "two").write_text("FROM scratch\nCOPY src/deep /deep\n")
    assert main(["build", str(project.context), "-f", str(project.context / "two"), "-t", "base", "-q"]) == 0
    assert not project.is_answered()


def test_damage_is_no_answer(project: Project) -> None:
    project.build()
    project.build()
    (path,) = (project.context.parent / "root/cache/replays-v1").iterdir()
    data = path.read_bytes()
    for wrong in (b"", data[:-1], data[:40] + b"\xff" + data[41:]):
        path.write_bytes(wrong)
        assert not project.is_answered()


def test_what_just_changed_is_not_vouched_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    while True:
        witness = Witness()
        file.write_text("one")
        wrote_ns = time.time_ns()
        witness.look(file)
        witness.swear()
        if time.time_ns() - wrote_ns < RACY_NS // 2:
            break
    assert witness.facts() is None
    settle()
    witness = Witness()
    witness.look(file)
    assert witness.facts() is None, "nobody swore"
    witness.swear()
    assert witness.facts() is not None


def test_an_ignored_name_of_another_kind_counts(project: Project) -> None:
    (project.context / ".dockerignore").write_text("*\n!src/a\n!kind/kept\n")
    (project.context / "kind").write_text("a file")
    settle()
    project.build()
    project.build()
    assert project.is_answered()
    (project.context / "kind").unlink()
    (project.context / "kind").mkdir()
    (project.context / "kind/kept").write_text("wanted")
    assert not project.is_answered()


def test_a_socket_that_became_a_file_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.context / "src")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("ear")
    settle()
    project.build()
    project.build()
    assert project.is_answered()
    (project.context / "src/ear").unlink()
    (project.context / "src/ear").write_text("a file")
    assert not project.is_answered()


def test_a_record_in_the_same_inode_counts(project: Project) -> None:
    project.build()
    project.build()
    assert project.is_answered()
    (path,) = (project.context.parent / "root/data/images-v1/refs").iterdir()
    data = path.read_bytes()
    digest = json.loads(data)["digest"]
    # As when two other images had the name in turn, and the file system gave the number of the first record again.
    with path.open("r+b") as file:
        file.write(data.replace(digest.encode(), b"sha256:" + b"0" * 64))
    assert not project.is_answered()


def test_a_file_that_changed_while_it_was_read_is_not_vouched_for(tmp_path: Path) -> None:
    began_ns = time.time_ns()
    (tmp_path / "file").write_text("one")
    time.sleep(RACY_NS / 10**9 + 0.01)
    witness = Witness()
    witness.look(tmp_path / "file")
    witness.swear()
    assert witness.facts() is not None
    assert witness.facts(began_ns) is None
