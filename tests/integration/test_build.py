"""What `aerogel build` means, on real input: every image is validated down to each digest.

The base is busybox in an image of its own, so that nothing but the sandbox is needed. Debian packages: busybox-static.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from bad_input import leftovers
from process import Aerogel

from aerogel.oci.image import load
from aerogel.oci.platform import Platform
from aerogel.oci.validate import validate
from aerogel.store.store import Store

pytestmark = pytest.mark.host

BASE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
"""


class Project:
    """A folder with a Dockerfile and files, and builds of it."""

    def __init__(self, folder: Path, aerogel: Aerogel) -> None:
        self.folder = folder
        self.aerogel = aerogel
        folder.mkdir()

    def put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def build(self, *words: str) -> dict[str, Any]:
        """Builds, validates the image, and returns what `--json` prints."""
        built: dict[str, Any] = self.aerogel.json("build", str(self.folder), *words)
        with Store.open(self.aerogel.state / "data", self.aerogel.state / "cache") as store:
            found = [one for one in store.images.list() if one.descriptor.digest == built["descriptor"]["digest"]]
            assert len(found) == 1
            image = load(found[0].descriptor, store.blobs, Platform.parse(built["platform"]))
            assert validate(image) == []
        assert leftovers(self.aerogel.state) == []
        return built

    def config(self, built: dict[str, Any]) -> dict[str, Any]:
        """The image config, as it is stored."""
        with Store.open(self.aerogel.state / "data", self.aerogel.state / "cache") as store:
            with store.blobs.open(built["image_id"]) as blob:
                return json.load(blob)

    def files(self, built: dict[str, Any]) -> dict[str, str]:
        """The regular files of all layers of the image with their texts, but those of the base."""
        found: dict[str, str] = {}
        with Store.open(self.aerogel.state / "data", self.aerogel.state / "cache") as store:
            for layer in built["layers"]:
                with store.blobs.open(layer["digest"]) as blob, tarfile.open(fileobj=blob, mode="r:gz") as tar:
                    for member in tar:
                        content = tar.extractfile(member) if member.isreg() else None
                        if content is not None and not member.name.startswith("bin/"):
                            found[member.name] = content.read().decode()
        return found


def statuses(built: dict[str, Any]) -> list[str]:
    return [step["status"] for step in built["steps"]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Aerogel:
    """A store that has the image `busybox`."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox-static is not installed"
    aerogel = Aerogel(tmp_path_factory.mktemp("build") / "state")
    base = Project(tmp_path_factory.mktemp("base") / "base", aerogel)
    shutil.copy(busybox, base.folder / "busybox")
    base.put("Dockerfile", BASE)
    base.build("-t", "busybox")
    return aerogel


@pytest.fixture
def project(tmp_path: Path, store: Aerogel) -> Project:
    return Project(tmp_path / "context", store)


STAGES = """\
ARG KIND=plain
FROM busybox AS build
ARG KIND
ARG VERSION=1
WORKDIR /src
COPY first.txt .
RUN cat first.txt > first.out && echo "$KIND $VERSION" > kind
COPY second.txt .
RUN cat second.txt > second.out
FROM busybox AS unused
RUN exit 1
FROM build AS test
RUN grep -q two second.out
FROM scratch AS final
COPY --from=build /src/*.out /src/kind /out/
LABEL stage=final
CMD ["/out/kind"]
"""


@pytest.fixture
def stages(project: Project) -> Project:
    project.put("Dockerfile", STAGES)
    project.put("first.txt", "one\n")
    project.put("second.txt", "two\n")
    return project


def test_stages_are_built_when_needed(stages: Project) -> None:
    built = stages.build("-t", "stages")
    assert stages.files(built) == {
        "out/first.out": "one\n",
        "out/second.out": "two\n",
        "out/kind": "plain 1\n",
    }
    assert {step["stage"] for step in built["steps"]} == {"build", "final"}
    assert stages.config(built)["config"]["Labels"] == {"stage": "final"}
    assert built["references"] == ["stages:latest"]


def test_a_second_build_does_no_work(stages: Project) -> None:
    first = stages.build()
    second = stages.build()
    assert set(statuses(second)) <= {"CACHED", "SKIPPED"}
    assert second["image_id"] == first["image_id"]
    assert second["descriptor"] == first["descriptor"]


def test_a_changed_file_runs_what_follows(stages: Project) -> None:
    stages.put("third.txt", "changes nothing")
    stages.build()
    stages.put("second.txt", "two and a half\n")
    built = stages.build()
    names = {step["name"]: step["status"] for step in built["steps"]}
    assert names["RUN cat second.txt > second.out"] == "RAN"
    assert names["COPY second.txt ."] == "RAN"
    assert names["COPY first.txt ."] in ("CACHED", "SKIPPED")
    assert stages.files(built)["out/second.out"] == "two and a half\n"
    stages.put("second.txt", "two\n")
    assert set(statuses(stages.build())) <= {"CACHED", "SKIPPED"}


def test_a_step_with_the_same_result_stops_the_chain(project: Project) -> None:
    """The copy of a changed file runs again; what reads its unchanged consequence is found by content."""
    project.put(
        "Dockerfile",
        "FROM busybox AS build\nCOPY words /words\nRUN sort -u /words > /sorted\n"
        "FROM scratch\nCOPY --from=build /sorted /sorted\n",
    )
    project.put("words", "b\na\n")
    first = project.build()
    project.put("words", "a\nb\nb\n")
    second = project.build()
    assert second["image_id"] == first["image_id"]
    assert statuses(second)[:2] == ["RAN", "RAN"]


def test_build_arguments(stages: Project) -> None:
    plain = stages.build()
    built = stages.build("--build-arg", "KIND=special", "--build-arg", "VERSION=2")
    assert stages.files(built)["out/kind"] == "special 2\n"
    assert built["image_id"] != plain["image_id"]
    done = stages.aerogel("build", str(stages.folder), "--build-arg", "KIND", env={"KIND": "surrounding"})
    assert stages.files(stages.build("--build-arg", "KIND=surrounding"))["out/kind"] == "surrounding 1\n"
    assert done.stdout.strip() == stages.build("--build-arg", "KIND=surrounding")["image_id"]
    warned = stages.aerogel("build", str(stages.folder), "--build-arg", "VERSON=3")
    assert "warning: `--build-arg VERSON` is not used" in warned.stderr
    assert "did you mean `VERSION`?" in warned.stderr


def test_target_and_labels(stages: Project) -> None:
    built = stages.build("--target", "TEST", "--label", "a=1", "--label", "stage=mine", "-t", "one:1", "-t", "two")
    config = stages.config(built)["config"]
    assert config["Labels"] == {"a": "1", "stage": "mine"}
    assert config["WorkingDir"] == "/src"
    assert stages.files(built)["src/kind"] == "plain 1\n"
    assert built["references"] == ["one:1", "two:latest"]


def test_no_cache(stages: Project) -> None:
    first = stages.build()
    again = stages.build("--no-cache")
    assert set(statuses(again)) == {"RAN"}
    assert again["image_id"] == first["image_id"]
    filtered = stages.build("--no-cache-filter", "final")
    by_stage = {step["stage"]: step["status"] for step in filtered["steps"]}
    assert by_stage["final"] == "RAN"
    assert by_stage["build"] in ("CACHED", "SKIPPED")


def test_ignore_file(project: Project) -> None:
    project.put("Dockerfile", "FROM scratch\nCOPY . /\n")
    project.put(".dockerignore", "*.log\n!keep.log\nsecret\n.dockerignore\nDockerfile\n")
    for name in ("a.log", "keep.log", "secret/key", "src/main.c", "src/deep.log"):
        project.put(name, name)
    built = project.build()
    kept = ["keep.log", "src/deep.log", "src/main.c"]
    assert project.files(built) == {name: name for name in kept}
    project.put("a.log", "changed, but ignored")
    assert statuses(project.build()) == ["CACHED"]


def test_files_about_the_image(stages: Project, tmp_path: Path) -> None:
    built = stages.build(
        "-t", "named", "--iidfile", str(tmp_path / "iid"), "--metadata-file", str(tmp_path / "metadata.json")
    )
    assert (tmp_path / "iid").read_text() == built["image_id"]
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["containerimage.config.digest"] == built["image_id"]
    assert metadata["containerimage.digest"] == built["descriptor"]["digest"]
    assert metadata["image.name"] == "named:latest"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["context", "iid", "metadata.json"]


def test_two_builds_at_once(stages: Project, tmp_path: Path) -> None:
    """Each step runs in one of them; both end with the same image."""
    stages.put("first.txt", "for two\n")
    stages.put("Dockerfile", STAGES.replace("RUN cat second", "RUN sleep 0.5; cat second"))
    command = stages.aerogel.argv("build", str(stages.folder), "--json", "--progress=plain")
    running = [
        subprocess.Popen(command, env=stages.aerogel.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=100) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    one, other = (json.loads(output) for output, _ in outputs)
    assert one["image_id"] == other["image_id"] == stages.build()["image_id"]
    both = [{step["name"]: step["status"] for step in built["steps"]} for built in (one, other)]
    for name in both[0]:
        assert [built[name] for built in both].count("RAN") <= 1, name
