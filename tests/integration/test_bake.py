"""`aerogel bake`: several targets in one go; what they share is done once. Debian packages: busybox-static, git."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from process import Aerogel

from aerogel.oci.image import images
from aerogel.oci.validate import validate
from aerogel.store.store import Store

pytestmark = pytest.mark.host

DOCKERFILE = """\
FROM scratch AS tools
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN echo made > /made

FROM tools AS web
ARG MODE=none
RUN echo "web $MODE" > /web

FROM tools AS api
COPY api.txt /api

FROM tools AS job
ENV JOB=1
RUN cat /made > /job
"""

BAKE = """\
variable "TAG" { default = "1" }
group "default" { targets = ["web", "api", "job", "report"] }
target "_common" { labels = { "org.example.set" = "demo" } }
target "web" {
  inherits = ["_common"]
  target = "web"
  args = { MODE = "fast", GONE = null }
  tags = ["demo/web:${TAG}", "demo/web:latest"]
}
target "api" {
  inherits = ["_common"]
  target = "api"
  tags = ["demo/api:${TAG}"]
}
target "job" {
  target = "job"
  tags = ["demo/job:${TAG}"]
}
target "report" {
  contexts = { web = "target:web", files = "files" }
  dockerfile-inline = <<EOT
FROM web
COPY --from=files note /note
RUN cat /web /note > /report
EOT
  tags = ["demo/report:${TAG}"]
}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "files").mkdir(parents=True)
    shutil.copy("/bin/busybox", folder)
    (folder / "api.txt").write_text("api\n")
    (folder / "files/note").write_text("note\n")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "docker-bake.hcl").write_text(BAKE)
    return folder


def bake(aerogel: Aerogel, folder: Path, *words: str, **options: Any) -> dict[str, Any]:
    """Bakes, validates every image and returns the results by target."""
    done = aerogel("bake", *words, "--json", "--progress=plain", cwd=folder, **options)
    built: dict[str, Any] = json.loads(done.stdout)["targets"]
    with Store.open(aerogel.state / "data", aerogel.state / "cache") as store:
        known = {record.descriptor.digest: record for record in store.images.list()}
        for target in built.values():
            record = known[target["descriptor"]["digest"]]
            assert all(validate(image) == [] for image in images(record.descriptor, store.blobs))
    return built


def steps_of(built: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for target in built.values() for step in target["steps"]}


def test_targets_share_their_steps(aerogel: Aerogel, project: Path, tmp_path: Path) -> None:
    done = aerogel("bake", "--progress=plain", "--metadata-file", str(tmp_path / "meta.json"), cwd=project)
    started = [line for line in done.stderr.splitlines() if line.startswith("#") and line.split()[1] in ("RUN", "COPY")]
    labelled = [line.split(" ", 1)[1] for line in done.stderr.splitlines() if line.startswith("#") and " [" in line]
    # The stage that all have is there once and has no name; the rest says for which targets it is.
    assert sum("echo made" in line for line in started) == 1
    assert {line.rpartition("] ")[0] + "]" for line in labelled if "] RUN" in line or "] COPY" in line} == {
        "[web, report]",
        "[api]",
        "[job]",
        "[report]",
    }
    again = bake(aerogel, project)
    assert list(again) == ["web", "api", "job", "report"]
    assert set(steps_of(again).values()) <= {"CACHED", "SKIPPED"}
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert {name: each["containerimage.digest"] for name, each in meta.items()} == {
        name: each["descriptor"]["digest"] for name, each in again.items()
    }
    assert meta["web"]["image.name"] == "demo/web:1,demo/web:latest"
    assert aerogel("run", "demo/report:1", "cat", "/report").stdout == "web fast\nnote\n"
    with Store.open(aerogel.state / "data", aerogel.state / "cache") as store:
        web, report = (
            images(store.images.find(f"demo/{name}:1").descriptor, store.blobs)[0] for name in ("web", "report")
        )
    # The target that is linked to is the base of the other, layers, labels, history and all.
    assert report.config.rootfs.diff_ids[: len(web.config.rootfs.diff_ids)] == web.config.rootfs.diff_ids
    assert web.config.config.labels == {"org.example.set": "demo"}
    assert "RUN |1 MODE=fast" in report.config.history[-3].created_by


def test_one_target_gives_what_build_gives(aerogel: Aerogel, project: Path) -> None:
    built = aerogel.json(
        "build", str(project), "--target", "web", "--build-arg", "MODE=fast", "--label", "org.example.set=demo"
    )
    baked = bake(aerogel, project, "web")
    assert baked["web"]["image_id"] == built["image_id"]
    assert set(steps_of(baked).values()) <= {"CACHED", "SKIPPED"}


def test_only_what_is_asked_for_is_built(aerogel: Aerogel, project: Path) -> None:
    """A target that is only linked to has no image; nor has what nobody asked for."""
    built = bake(aerogel, project, "report", "--set=report.tags=only:1", "--var", "TAG=only")
    assert list(built) == ["report"]
    listed = {line.split()[0] + ":" + line.split()[1] for line in aerogel("images").stdout.splitlines()[1:]}
    assert "only:1" in listed
    assert not {"demo/web:only", "demo/api:only"} & listed


def test_platforms_and_matrix(aerogel: Aerogel, tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text(
        'target "app" {\n  name = "app-${v}"\n  matrix = { v = ["one", "two"] }\n  args = { V = v }\n'
        '  platforms = ["linux/amd64", "linux/s390x"]\n  tags = ["matrix/${v}"]\n}\n'
    )
    (tmp_path / "Dockerfile").write_text(
        "FROM scratch\nCOPY Dockerfile /same\nARG V TARGETARCH\nCOPY Dockerfile /$V-$TARGETARCH\n"
    )
    built = bake(aerogel, tmp_path, "app")
    assert {name: each["platform"] for name, each in built.items()} == dict.fromkeys(
        ("app-one", "app-two"), "linux/amd64,linux/s390x"
    )
    # Of eight COPY five are distinct: that of all, and one for each target and platform.
    assert sorted(steps_of(built)) == [
        "COPY Dockerfile /same",
        "[app-one linux/amd64] COPY Dockerfile /$V-$TARGETARCH",
        "[app-one linux/s390x] COPY Dockerfile /$V-$TARGETARCH",
        "[app-two linux/amd64] COPY Dockerfile /$V-$TARGETARCH",
        "[app-two linux/s390x] COPY Dockerfile /$V-$TARGETARCH",
    ]


def test_folders_of_the_same_name_are_not_mixed_up(aerogel: Aerogel, tmp_path: Path) -> None:
    """Each target has its own context; the same folder is one, another is another."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text("FROM scratch\nCOPY text /text\n")
        (tmp_path / name / "text").write_text(f"{name}\n")
    (tmp_path / "compose.yaml").write_text(
        "services:\n  one:\n    build: one\n  two:\n    build: {context: ./two, tags: [folders/two]}\n"
        "  again:\n    build: one\n  none:\n    image: x\n"
    )
    built = bake(aerogel, tmp_path)
    assert sorted(built) == ["again", "one", "two"]
    assert built["one"]["image_id"] == built["again"]["image_id"] != built["two"]["image_id"]
    assert len(steps_of(built)) == 2


def test_outputs_and_secrets(aerogel: Aerogel, tmp_path: Path) -> None:
    shutil.copy("/bin/busybox", tmp_path)
    (tmp_path / "Dockerfile").write_text(
        "FROM scratch AS tools\nCOPY busybox /bin/sh\n"
        'RUN --mount=type=secret,id=key ["/bin/sh", "-c", "read x < /run/secrets/key; echo ${#x} > /length"]\n'
        "FROM scratch\nCOPY --from=tools /length /length\n"
    )
    (tmp_path / "docker-bake.json").write_text(
        json.dumps(
            {"target": {"default": {"secret": [{"id": "key", "env": "A_KEY"}], "output": ["type=local,dest=out"]}}}
        )
    )
    bake(aerogel, tmp_path, env={"A_KEY": "hunter22"})
    assert (tmp_path / "out/length").read_text() == "8\n"


def test_a_definition_in_a_repository(aerogel: Aerogel, project: Path, tmp_path: Path) -> None:
    """Contexts are relative to the repository, the bake file may be the one of this folder."""
    git = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    bare = tmp_path / "served" / "demo.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(project), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *about: Any) -> None:
            super().__init__(*about, directory=str(tmp_path / "served"))

        def log_message(self, *about: object) -> None:
            del about

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = Thread(target=server.serve_forever)
    thread.start()
    here = tmp_path / "here"
    here.mkdir()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/demo.git#main"
        built = bake(aerogel, here, url, "web", "report", "--var", "TAG=git")
        assert list(built) == ["web", "report"]
        printed = json.loads(aerogel("bake", url, "--print", "api", cwd=here).stdout)
        assert printed["target"]["api"]["target"] == "api"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert aerogel("run", "demo/report:git", "cat", "/report").stdout == "web fast\nnote\n"


def test_a_step_that_fails_says_for_which_target(aerogel: Aerogel, project: Path) -> None:
    (project / "Dockerfile").write_text(DOCKERFILE.replace("cat /made > /job", "cat /nothing"))
    done = aerogel("bake", "--progress=plain", cwd=project, check=False)
    assert done.returncode == 1
    assert "[job] RUN cat /nothing" in done.stderr
    assert "--> Dockerfile:15:1" in done.stderr


def test_questions_build_nothing(aerogel: Aerogel, project: Path) -> None:
    before = aerogel("images", "-q").stdout
    (project / "Dockerfile").write_text(DOCKERFILE.replace("FROM tools AS web", "from tools AS web"))
    checked = aerogel("bake", "--check", "web", "api", cwd=project, check=False)
    assert checked.returncode == 1
    assert checked.stdout.count("ConsistentInstructionCasing") == 2
    assert checked.stdout.startswith("web\n")
    outlined = aerogel("bake", "--call", "outline", "web", cwd=project).stdout
    assert "MODE" in outlined
    assert aerogel("images", "-q").stdout == before
