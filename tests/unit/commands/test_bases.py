"""Where FROM looks, in this order: named context, earlier stage, local store, alias, catalogue, registry.

The registry is one of this process; the mirror and all other registries are a closed port, so that being asked shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from images import serve_image
from loop_registry import LoopRegistry, serve_registry

from aerogel.cli import main as entry
from aerogel.net.http import Http

NOWHERE = "http://127.0.0.1:1"


class Build:
    """`build` in this process with a store and a configuration of its own; what it said is in `said`."""

    def __init__(self, capfd: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capfd = capfd
        self.folder = folder
        self.said = ""

    def __call__(self, *words: str, status: int = 0) -> str:
        found = entry.main([*words, "--progress", "plain"])
        out, self.said = self._capfd.readouterr()
        assert found == status, self.said
        return out

    def image(self, base: str, *words: str, tail: str = "", status: int = 0) -> list[str]:
        """Builds an image from a base; the lines that say where bases came from."""
        (self.folder / "Dockerfile").write_text(f"FROM {base}\n{tail}COPY Dockerfile /\n")
        self("build", *words, ".", status=status)
        return [line for line in self.said.splitlines() if line.startswith("FROM ")]

    def local(self, name: str, content: str = "") -> None:
        """An image in the local store."""
        (self.folder / "Dockerfile").write_text(f"FROM scratch\nLABEL of={name}{content}\nCOPY Dockerfile /\n")
        self("build", "-t", name, ".")

    def configure(self, text: str) -> None:
        (self.folder / "aerogel.toml").write_text(text)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Build:
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    monkeypatch.setitem(Http.__init__.__kwdefaults__, "attempts", 1)
    monkeypatch.chdir(tmp_path)
    for name in ("REGISTRY_AUTH_FILE", "AEROGEL_BASES", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, NOWHERE)
        monkeypatch.setenv(name.upper(), NOWHERE)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("AEROGEL_DEBIAN_MIRROR", f"{NOWHERE}/debian")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    return Build(capfd, tmp_path)


@pytest.fixture
def server() -> Iterator[LoopRegistry]:
    with serve_registry() as running:
        yield running


def test_a_named_context_comes_first(build: Build) -> None:
    for name in ("wanted", "other"):
        build.local(name)
    said = build.image("wanted", "--build-context", "wanted=docker-image://other")
    assert [line.rpartition(", ")[0] for line in said] == ["FROM other -> local store"]
    assert build.image("s", "--build-context", "s=docker-image://other", tail="") == said
    (build.folder / "Dockerfile").write_text("FROM wanted AS s\nFROM s\nCOPY Dockerfile /\n")
    build("build", "--build-context", "s=docker-image://other", ".")
    assert "FROM other -> local store" in build.said
    assert "FROM wanted" not in build.said, "the context stands for the stage, which is not needed"


def test_an_earlier_stage_comes_before_the_store(build: Build) -> None:
    build.local("wanted")
    (build.folder / "Dockerfile").write_text(
        "FROM scratch AS wanted\nCOPY Dockerfile /a\nFROM wanted\nCOPY Dockerfile /b\n"
    )
    build("build", ".")
    assert "FROM wanted ->" not in build.said
    assert "COPY Dockerfile /a" in build.said


def test_the_store_comes_before_an_alias_and_the_catalogue(build: Build, server: LoopRegistry) -> None:
    serve_image(server, "team/app", "one")
    build.local("debian")
    build.local("mine")
    build.configure(f'[aliases]\nmine = "{server.host}/team/app:one"\n')
    assert build.image("debian")[0].startswith("FROM debian -> local store, sha256:")
    assert build.image("mine")[0].startswith("FROM mine -> local store, sha256:")
    assert server.seen == []


def test_an_alias_comes_before_the_catalogue(build: Build, server: LoopRegistry) -> None:
    digest = serve_image(server, "team/app", "one")
    name = f"{server.host}/team/app:one"
    build.configure(f'[aliases]\ndebian = "second"\nsecond = "{name}"\n')
    assert build.image("debian") == [
        "FROM debian -> alias of second",
        f"FROM second -> alias of {name}",
        f"FROM {name} -> registry, {digest}",
    ]
    assert build.image("debian")[-1] == f"FROM {name} -> local store, {digest}", "it was kept"


def test_the_catalogue_comes_before_the_registry(build: Build) -> None:
    assert build.image("debian", status=4) == []
    assert f"{NOWHERE}/debian/dists/trixie/InRelease" in build.said
    assert "docker.io" not in build.said
    build.image("gcr.io/distroless/static", "--bases", "builtin", status=4)
    assert "InRelease" in build.said


def test_registry_alone_leaves_the_catalogue_out(build: Build) -> None:
    build.image("debian", "--bases", "registry", status=4)
    assert "base image `debian` cannot be fetched" in build.said
    assert "InRelease" not in build.said
    build.local("debian")
    assert build.image("debian", "--bases", "registry")[0].startswith("FROM debian -> local store")


def test_builtin_alone_leaves_the_rest_out(build: Build, server: LoopRegistry) -> None:
    serve_image(server, "team/app", "one")
    build.local("debian")
    build.local("mine")
    build.image("debian", "--bases", "builtin", status=4)
    assert "InRelease" in build.said
    assert build.image("mine", "--bases", "builtin", status=1) == []
    assert "error: base image `mine` was not found" in build.said
    build.image(f"{server.host}/team/app:one", "--bases", "builtin", status=1)
    assert server.seen == []


def test_pull_asks_first_and_takes_the_local_one_last(build: Build, server: LoopRegistry) -> None:
    first = serve_image(server, "team/app", "one")
    name = f"{server.host}/team/app:one"
    assert build.image(name) == [f"FROM {name} -> registry, {first}"]
    second = serve_image(server, "team/app", "one", files={"other": b"other"})
    assert build.image(name) == [f"FROM {name} -> local store, {first}"]
    assert build.image(name, "--pull") == [f"FROM {name} -> registry, {second}"]
    build.local("mine")
    assert build.image("mine", "--pull")[-1].startswith("FROM mine -> local store, sha256:")
    assert "warning: `mine` was not brought up to date" in build.said


def test_aliases_in_a_circle(build: Build) -> None:
    build.configure('# two\n[aliases]\none = "two"\n"two" = "one"\n')
    build.image("one", status=2)
    assert build.said.endswith(
        "error: the aliases lead in a circle: `one` -> `two` -> `one`\n"
        f"  --> {build.folder}/aerogel.toml:4:2\n"
        ' 4 | "two" = "one"\n'
        "   |  ^^^\n"
        "hint: let one of them name an image, or remove it\n"
    )
    build.configure('[aliases]\nself = "self"\n')
    build.image("self", "--bases", "builtin", status=1)
    assert "error: base image `self` was not found" in build.said


def test_steps_are_numbered_in_order(build: Build, server: LoopRegistry) -> None:
    serve_image(server, "team/app", "one")
    build.image(f"{server.host}/team/app:one", "--push", "-t", f"{server.host}/team/out", tail="COPY Dockerfile /a\n")
    started = [line for line in build.said.splitlines() if line.startswith("#") and "DONE" not in line]
    numbers = [int(line.split()[0].removeprefix("#")) for line in started]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    # The layers of the base come when the first COPY looks at them, both at the same time.
    assert [line.split()[1] for line in started] == ["pull", "COPY", "fetch", "fetch", "COPY", "push"]


def test_skipped_steps_are_told_before_the_one_that_covers_them(build: Build) -> None:
    text = "FROM scratch AS a\nCOPY Dockerfile /a\nFROM scratch\nCOPY Dockerfile /b\nCOPY --from=a /a /c\n"
    (build.folder / "Dockerfile").write_text(text)
    build("build", ".")
    build("build", ".")
    ends = [line for line in build.said.splitlines() if line.endswith(("SKIPPED", "CACHED"))]
    assert ends == ["#1 SKIPPED", "#2 SKIPPED", "#3 CACHED"]


def test_a_fault_of_a_named_context_names_it(build: Build) -> None:
    for name in ("lib", "other"):
        (build.folder / name).mkdir()
        (build.folder / name / "near.txt").touch()
    text = "FROM scratch\nCOPY --from=lib /nearby.txt /\nCOPY --from=more /x /\n"
    (build.folder / "Dockerfile").write_text(text)
    build("build", "--build-context", "lib=lib", "--build-context", "more=other", ".", status=1)
    assert "context `lib`" in build.said
    assert "context `more`" in build.said
    assert "build context" not in build.said


@pytest.mark.parametrize("jobs", ["0", "-3"])
def test_jobs_that_make_no_sense(build: Build, jobs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"error: `jobs` must be 1 or more, not `{jobs}`\nhint: leave it out for one step for each processor\n"
    build.image("scratch", f"--jobs={jobs}", status=2)
    assert build.said == said
    monkeypatch.setenv("AEROGEL_JOBS", jobs)
    build.image("scratch", status=2)
    assert build.said == said


@pytest.mark.parametrize("flag", ["--iidfile", "--metadata-file"])
def test_standard_output_is_no_file_for_digests(build: Build, flag: str) -> None:
    build.image("scratch", flag, "-", status=2)
    assert build.said.startswith(f"error: `{flag}` writes a file, not standard output\nhint: name a file")
    assert not (build.folder / "-").exists()


def test_a_path_to_a_declaration_without_its_dot(build: Build) -> None:
    build.image("base.yaml:nonroot", status=4)
    assert "did you mean `./base.yaml:nonroot`?" in build.said


def test_a_stored_image_of_another_platform_is_not_taken(build: Build) -> None:
    build.local("mine")
    (build.folder / "Dockerfile").write_text("FROM --platform=linux/s390x mine\nCOPY Dockerfile /\n")
    build("build", "--platform", "linux/s390x", ".", status=4)
    assert "FROM mine -> local store has it for linux/" in build.said
    assert "was not brought up to date" not in build.said
    build("run", "--platform", "linux/s390x", "mine", "x", status=4)
    assert "error: image `mine` " in build.said
    assert "hint: the local store has `mine` for another platform than linux/s390x\n" in build.said
    assert "did you mean" not in build.said
