"""`aerogel lint`, `aerogel format` and the rules during a build, as a user runs them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aerogel.cli import main
from aerogel.commands import formatting, lint
from aerogel.commands.world import Streams, World
from aerogel.settings import load_settings

BAD = "FROM scratch\nEXPOSE 80/TCP\nCOPY out.o app /\nENV A=$B\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in an empty folder with a store of its own; gives status, output and errors."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))

    def call(*words: str) -> tuple[int, str, str]:
        status = main.main(list(words))
        seen = capsys.readouterr()
        return status, seen.out, seen.err

    return call


def rules(out: str) -> list[str]:
    return [line.split(": ")[1] for line in out.splitlines() if line.startswith("warning: ")]


def test_lint(run: Run) -> None:
    Path("Dockerfile").write_text(BAD)
    assert rules(run("lint")[1]) == ["ExposeProtoCasing", "UndefinedVar"]
    assert run("lint")[0] == 0
    assert run("lint", "--error")[0] == 1
    Path(".dockerignore").write_text("*.o\n")
    assert rules(run("lint")[1]) == ["ExposeProtoCasing", "CopyIgnoredFile", "UndefinedVar"]
    Path("Dockerfile.dockerignore").write_text("*.c\n")
    assert rules(run("lint")[1]) == ["ExposeProtoCasing", "UndefinedVar"]
    assert rules(run("lint", "--skip", "UndefinedVar,ExposeProtoCasing")[1]) == []
    status, out, _ = run("lint", "--format", "json")
    assert (status, [warning["ruleName"] for warning in json.loads(out)["warnings"]]) == (
        0,
        ["ExposeProtoCasing", "UndefinedVar"],
    )
    Path("Dockerfile").write_text("# check=error=true\n" + BAD)
    assert run("lint")[0] == 1
    assert run("lint", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all")[:2] == (0, "no warnings in Dockerfile\n")


def test_lint_experimental(run: Run) -> None:
    Path("Dockerfile").write_text("# about nothing\nFROM scratch AS final\n")
    assert rules(run("lint")[1]) == []
    assert rules(run("lint", "--experimental", "all")[1]) == ["InvalidDefinitionDescription"]


def test_standard_input(run: Run) -> None:
    del run
    for module, options, expected in (
        (lint, lint.Lint(files=("-",)), "--> stdin:2:8"),
        (formatting, formatting.Format(files=("-",)), "EXPOSE 80/TCP"),
    ):
        reading, writing = os.pipe()
        os.write(writing, BAD.encode())
        os.close(writing)
        with World(load_settings(), streams=Streams(stdin=reading)) as world:
            assert expected in module.run(options, world).text()
        os.close(reading)


@pytest.mark.parametrize(
    ("words", "code", "status"),
    [
        (["lint", "no-such-file"], "`no-such-file` cannot be read: no such file or directory", 2),
        (["lint", "--skip", "UndefinedVr"], "did you mean `UndefinedVar`?", 2),
        (["lint", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip"], "`skip` is no option of `check`", 1),
        (["format", "--write", "--check"], "contradict each other", 2),
        (["format", "a", "b"], "several files would be printed as one", 2),
        (["format", "--write", "-"], "cannot write to standard input", 2),
    ],
)
def test_faults(run: Run, words: list[str], code: str, status: int) -> None:
    Path("Dockerfile").write_text(BAD)
    found, out, err = run(*words)
    assert (found, code in out + err) == (status, True)


def test_format(run: Run) -> None:
    messy = "from scratch as x\r\ncopy   a /\r\n\r\n\r\nlabel a=b\r\n"
    tidy = "FROM scratch AS x\nCOPY a /\n\nLABEL a=b\n"
    path = Path("Dockerfile")
    path.write_bytes(messy.encode())
    path.chmod(0o640)
    assert run("format")[:2] == (0, tidy)
    assert run("format", "--check")[:2] == (1, "Dockerfile\n")
    status, out, _ = run("format", "--diff")
    assert status == 1
    assert "-from scratch as x\r\n" in out
    assert "+FROM scratch AS x\n" in out
    assert path.read_bytes() == messy.encode()
    Path("broken").write_text("FROM\n")
    status, out, err = run("format", "--write", "broken", "Dockerfile")
    assert (status, "--> broken:1:1" in err) == (1, True)
    assert path.read_text() == tidy
    assert path.stat().st_mode & 0o777 == 0o640
    assert run("format", "--write", "Dockerfile")[:2] == (0, "")
    assert run("format", "--check", "--diff", "Dockerfile")[:2] == (0, "")


def test_a_build_warns_once(run: Run) -> None:
    Path("Dockerfile").write_text("FROM scratch\nEXPOSE 80/TCP\nENV A=$B C=$B\nLABEL a=b\n")
    status, _, err = run("build", ".")
    assert status == 0
    assert rules(err) == ["ExposeProtoCasing", "UndefinedVar", "UndefinedVar"]
    status, _, err = run("build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true;skip=UndefinedVar", ".")
    assert status == 1
    assert "error: the Dockerfile breaks the rule `ExposeProtoCasing`" in err
    assert run("build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true;skip=all", ".")[0] == 0


def test_build_check(run: Run) -> None:
    Path("Dockerfile").write_text("FROM no-such-image\nEXPOSE 80/TCP\nRUN false\n")
    status, out, _ = run("build", "--check", ".")
    assert (status, rules(out)) == (1, ["ExposeProtoCasing"])
    Path("Dockerfile").write_text("FROM no-such-image\nRUN false\n")
    assert run("build", "--check", ".")[:2] == (0, "no warnings in Dockerfile\n")


def test_the_same_words_for_every_command(run: Run) -> None:
    """A file, a folder, `-f` with a folder, or nothing."""
    Path("docker").mkdir()
    for folder in (".", "docker"):
        Path(folder, "Dockerfile").write_text("FROM scratch\nCOPY x /\n")
    Path(".dockerignore").write_text("x\n")
    for words in ([], ["."], ["Dockerfile"], ["-f", "docker/Dockerfile", "."], ["docker/Dockerfile", "--context=."]):
        assert rules(run("lint", *words)[1]) == ["CopyIgnoredFile"], words
    assert rules(run("lint", "docker")[1]) == []
    assert run("lint", "-f", "a", "b", "c")[2].startswith("error: `-f` is for one Dockerfile, and what comes after")
    drawn = run("graph")
    assert drawn[0] == 0
    for words in (["."], ["Dockerfile"], ["docker"], ["docker/Dockerfile"], ["-f", "docker/Dockerfile"]):
        assert run("graph", *words)[:2] == drawn[:2], words
    for words in ([], ["."], ["docker"], ["docker/Dockerfile"]):
        assert run("format", *words)[1] == "FROM scratch\nCOPY x /\n"


def test_an_ignored_source_is_told_once_by_a_build(run: Run) -> None:
    Path("Dockerfile").write_text("FROM scratch AS other\nCOPY b.o /\nFROM scratch\nCOPY a.o /\n")
    Path("a.o").touch()
    Path(".dockerignore").write_text("*.o\n")
    status, _, error = run("build", "--progress=plain", ".")
    assert status == 1
    assert error.count("CopyIgnoredFile") == 1  # that of the stage that is not built
    assert error.count("COPY a.o /\n") == 1
    assert "`.dockerignore` removes it: line 1, `*.o`" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--build-arg", "A=x\udcffy"], "the value of `--build-arg A` is not UTF-8: it has the byte `ff`"),
        (["--label", "k=\udcc3("], "the value of `--label k` is not UTF-8: it has the byte `c3`"),
        (["--label", "k\udcff=v"], "the name of `--label k\\xff` is not UTF-8: it has the byte `ff`"),
        (["--annotation", "k=\udcff"], "the value of `--annotation k` is not UTF-8: it has the byte `ff`"),
    ],
)
def test_values_that_are_no_text_are_refused_early(run: Run, words: list[str], message: str) -> None:
    Path("Dockerfile").write_text("FROM nowhere.example/x\nARG A\n")
    status, _, error = run("build", *words, ".")
    hint = "hint: an image's configuration is JSON, which holds text only"
    assert (status, error) == (2, f"error: {message}\n{hint}\n")
