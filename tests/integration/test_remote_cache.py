"""`--cache-from` and `--cache-to` between stores that share nothing but a registry or a folder.

A RUN that reads random bytes gives the same image twice only if it did not run twice. Debian packages:
docker-registry, busybox-static.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from process import Aerogel, files_of
from real_registry import Server

pytestmark = pytest.mark.host("docker-registry", "busybox")

DOCKERFILE = """\
FROM scratch AS tools
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]

FROM tools AS builder
COPY note /note
RUN mkdir /out && echo made > /out/made
RUN head -c 16 /dev/urandom | md5sum > /unused

FROM tools
COPY --from=builder /out/made /made
RUN head -c 16 /dev/urandom | md5sum > /random
LABEL a=b
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    shutil.copy(str(shutil.which("busybox")), folder / "busybox")
    (folder / "note").write_text("one\n")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[], Aerogel]:
    """Another machine each time: a store of its own, empty."""
    made: list[Aerogel] = []

    def make() -> Aerogel:
        made.append(Aerogel(tmp_path / f"machine-{len(made)}"))
        return made[-1]

    return make


def built(aerogel: Aerogel, context: Path, *words: str) -> tuple[str, dict[str, str]]:
    """The image id, and what became of each step."""
    result = aerogel.json("build", *words, str(context))
    return result["image_id"], {f"{step['stage']} {step['name']}": step["status"] for step in result["steps"]}


def step(steps: dict[str, str], words: str) -> str:
    (found,) = [status for name, status in steps.items() if words in name]
    return found


def test_an_empty_store_runs_nothing(
    machine: Callable[[], Aerogel], registry: Server, context: Path, tmp_path: Path
) -> None:
    name = f"{registry.host}/team/app:cache"
    first, steps = built(machine(), context, "--cache-to", f"type=registry,ref={name}")
    assert set(steps.values()) <= {"RAN", "SKIPPED"}
    other = machine()
    second, steps = built(other, context, "--cache-from", name)
    assert first == second, "the step with random bytes ran again"
    assert set(steps.values()) == {"CACHED", "SKIPPED"}
    assert not (other.state / "cache" / "snapshots-v1").exists()
    # What came is in the store: the next build needs no cache.
    third, steps = built(other, context)
    assert (third, set(steps.values())) == (first, {"CACHED", "SKIPPED"})
    archive = tmp_path / "app.tar"
    other("build", "-q", "-o", f"type=oci,dest={archive}", str(context))
    assert archive.stat().st_size > 400_000


def test_steps_are_reused_although_one_before_them_ran(
    machine: Callable[[], Aerogel], registry: Server, context: Path
) -> None:
    name = f"{registry.host}/team/reused"
    first, _ = built(machine(), context, "--cache-to", name)
    (context / "note").write_text("two\n")
    second, steps = built(machine(), context, "--cache-from", f"type=registry,ref={name}")
    assert first == second
    assert step(steps, "COPY note") == "RAN"
    assert step(steps, "mkdir /out") == "RAN"
    assert step(steps, "COPY --from=builder") == "REUSED"
    assert step(steps, "> /random") == "REUSED"
    assert step(steps, "--install") == "CACHED"


def test_only_the_stages_of_the_image(machine: Callable[[], Aerogel], registry: Server, context: Path) -> None:
    small, whole = (f"{registry.host}/team/modes:{mode}" for mode in ("min", "max"))
    words = [f"--cache-to=type=registry,ref={small},mode=min", f"--cache-to=type=registry,ref={whole},mode=max"]
    built(machine(), context, *words)
    (context / "Dockerfile").write_text(DOCKERFILE.replace("/out/made /made", "/out/made /other"))
    _, steps = built(machine(), context, "--cache-from", small)
    assert step(steps, "mkdir /out") == "RAN"
    _, steps = built(machine(), context, "--cache-from", whole)
    assert step(steps, "> /unused") == "CACHED"
    assert step(steps, "COPY --from=builder") == "RAN"


def test_a_cache_is_handed_on_without_being_fetched(
    machine: Callable[[], Aerogel], registry: Server, context: Path
) -> None:
    name = f"{registry.host}/team/handed"
    first, _ = built(machine(), context, "--cache-to", name)
    middle = machine()
    before = registry.log
    built(middle, context, "--cache-from", name, "--cache-to", f"{name}:again")
    fetched = [line for line in registry.log[len(before) :].splitlines() if '"GET /v2/team/handed/blobs/' in line]
    assert len(fetched) == 1 + 4, "the records, and the layers of the image"
    again, steps = built(machine(), context, "--cache-from", f"{name}:again")
    assert (again, set(steps.values())) == (first, {"CACHED", "SKIPPED"})


def test_an_image_brings_its_cache(machine: Callable[[], Aerogel], registry: Server, context: Path) -> None:
    """`type=inline`: the image is the same as without, and its steps are not run again."""
    name = f"{registry.host}/team/inline:1"
    builder = machine()
    plain, _ = built(builder, context)
    first, _ = built(builder, context, "--cache-to", "type=inline", "--push", "-t", name)
    assert first == plain
    second, steps = built(machine(), context, "--cache-from", name)
    assert (second, set(steps.values())) == (first, {"CACHED", "SKIPPED"})


def test_a_folder_keeps_what_its_last_cache_needs(
    machine: Callable[[], Aerogel], context: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    words = ("--cache-from", f"type=local,src={folder}", "--cache-to", f"type=local,dest={folder}")
    builder = machine()
    first = builder("build", "--progress=plain", *words, str(context))
    assert "has no cache" in first.stderr
    sizes = []
    for number in range(3):
        (context / "note").write_bytes(os.urandom(100_000 * (number + 1)))
        built(builder, context, *words)
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    assert sizes[2] - sizes[0] < 400_000
    _, steps = built(machine(), context, *words)
    assert set(steps.values()) == {"CACHED", "SKIPPED"}


@pytest.mark.parametrize("kind", ["registry", "local"])
def test_what_a_failed_build_made_is_used(
    machine: Callable[[], Aerogel], registry: Server, context: Path, tmp_path: Path, kind: str
) -> None:
    name = f"{registry.host}/failing/app:cache"
    to = f"type=registry,ref={name}" if kind == "registry" else f"type=local,dest={tmp_path}/cache"
    source = f"type=registry,ref={name}" if kind == "registry" else f"type=local,src={tmp_path}/cache"
    good = (context / "Dockerfile").read_text()
    bad = good.replace("LABEL a=b\n", "RUN head -c 9 /dev/urandom > /more && [ -e /nowhere ]\n")
    (context / "Dockerfile").write_text(bad)
    failed = machine()("build", "--progress=plain", "--cache-to", to, str(context), check=False)
    assert (failed.returncode, "write cache" in failed.stderr) == (1, True), failed.stderr
    (context / "Dockerfile").write_text(good)
    first, steps = built(machine(), context, "--cache-from", source)
    assert set(steps.values()) <= {"CACHED", "SKIPPED"}, "all but the step that failed"
    # A cache of a build that went well keeps what it has when another build fails.
    other = machine()
    second, _ = built(other, context, "--cache-from", source, "--cache-to", to)
    assert first == second
    (context / "Dockerfile").write_text(bad.replace("COPY note /note", "COPY note /elsewhere"))
    failed = machine()("build", "--progress=plain", "--cache-to", to, str(context), check=False)
    assert failed.returncode == 1
    (context / "Dockerfile").write_text(good)
    third, steps = built(machine(), context, "--cache-from", source)
    assert (third, set(steps.values()) <= {"CACHED", "SKIPPED"}) == (first, True), steps


def test_a_failed_build_leaves_an_image_alone(machine: Callable[[], Aerogel], registry: Server, context: Path) -> None:
    """The tag of an image, with a cache inside or without, is not replaced by a list of results."""
    name = f"{registry.host}/failing/image:1"
    aerogel = machine()
    first, _ = built(aerogel, context, "--cache-to", "type=inline", "--push", "-t", name)
    (context / "Dockerfile").write_text(f"{DOCKERFILE}RUN [ -e /nowhere ]\n")
    failed = aerogel("build", "--progress=plain", "--cache-to", name, str(context), check=False)
    assert (failed.returncode, f"`{name}` is an image" in failed.stderr) == (1, True), failed.stderr
    other = machine()
    other("pull", "-q", name)
    assert other.json("images")["images"][0]["id"] == first


def test_a_folder_gets_layers_while_the_build_runs(
    machine: Callable[[], Aerogel], context: Path, tmp_path: Path
) -> None:
    """The last step waits for a file, which appears when the folder has what the steps before it made."""
    waiting = (
        "RUN --mount=type=cache,target=/cache,id=e5 touch /cache/kept && until [ -e /cache/go ]; do sleep 0.1; done\n"
    )
    (context / "Dockerfile").write_text(DOCKERFILE + waiting)
    folder, aerogel = tmp_path / "cache", machine()
    words = ("build", "--progress=plain", "--cache-to", f"type=local,dest={folder}", str(context))
    with subprocess.Popen(aerogel.argv(*words), env=aerogel.env, stderr=subprocess.DEVNULL) as build:
        try:
            for _ in range(1200):
                found = [path for path in files_of(folder / "blobs") if not path.name.startswith(".")]
                kept = [path for path in files_of(aerogel.state) if path.name == "kept"]
                if (len(found) >= 4 and kept) or build.poll() is not None:
                    break
                time.sleep(0.1)
            assert len(found) >= 4
            assert build.poll() is None, "it still waits for the file"
            (kept[0].parent / "go").write_text("")
            assert build.wait() == 0
        finally:
            build.kill()
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")], "no leftovers"
    _, steps = built(machine(), context, "--cache-from", f"type=local,src={folder}")
    assert set(steps.values()) <= {"CACHED", "SKIPPED"}


def test_places_that_do_not_answer(machine: Callable[[], Aerogel], registry: Server, context: Path) -> None:
    builder = machine()
    missing = builder("build", "--progress=plain", "--cache-from", f"{registry.host}/nobody:here", str(context))
    assert "warning: the cache" in missing.stderr
    assert "is not used" in missing.stderr
    builder("build", "-q", "-t", f"{registry.host}/an/image", "--push", str(context))
    told = builder("build", "--no-cache", "--progress=plain", "--cache-from", f"{registry.host}/an/image", str(context))
    assert "warning" not in told.stderr, "nothing was looked for"
    told = machine()("build", "--progress=plain", "--cache-from", f"{registry.host}/an/image", str(context))
    assert f"`{registry.host}/an/image:latest` is no cache of aerogel" in told.stderr
    failed = builder("build", "--cache-to", f"type=local,dest={context}", str(context), check=False)
    assert failed.returncode == 1
    assert "is not empty and no OCI layout" in failed.stderr
    words = f"--cache-to=type=local,dest={context},ignore-error=true"
    told = builder("build", "--progress=plain", words, str(context))
    assert "was not written" in told.stderr


Change = Callable[[dict[str, Any], Path], None]


def blob_of(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def put(folder: Path, data: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    blob_of(folder, digest).write_bytes(data)
    return {"digest": digest, "size": len(data)}


def forged_tar() -> bytes:
    """A layer with a program that nobody built."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("made")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    return file.getvalue()


def cut_blobs(manifest: dict[str, Any], folder: Path) -> None:
    for layer in manifest["layers"]:
        path = blob_of(folder, layer["digest"])
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-7])


def no_blobs(manifest: dict[str, Any], folder: Path) -> None:
    for layer in manifest["layers"]:
        blob_of(folder, layer["digest"]).unlink()


def other_layers(manifest: dict[str, Any], folder: Path) -> None:
    """Well-formed, with right digests of the blobs: only the diff ids are not theirs."""
    for layer in manifest["layers"]:
        layer.update(put(folder, gzip.compress(forged_tar())))


def no_tars(manifest: dict[str, Any], folder: Path) -> None:
    for layer in manifest["layers"]:
        layer.update(put(folder, gzip.compress(os.urandom(5000))))


def unknown_layers(manifest: dict[str, Any], folder: Path) -> None:
    manifest["layers"] = []


def malformed(manifest: dict[str, Any], folder: Path) -> None:
    manifest["config"] |= put(folder, b'{"format": 1, "results": [{"key": 5}]}')


def no_digests(manifest: dict[str, Any], folder: Path) -> None:
    manifest["config"] |= put(folder, b'{"format": 1, "results": [{"key": "../../etc", "chain": []}]}')


def from_the_future(manifest: dict[str, Any], folder: Path) -> None:
    manifest["config"] |= put(folder, b'{"format": 2, "results": []}')


def longer_chains(manifest: dict[str, Any], folder: Path) -> None:
    """More layers than there are steps, which would end in the base."""
    records = json.loads(blob_of(folder, manifest["config"]["digest"]).read_bytes())
    for each in records["results"]:
        each["chain"] = [manifest["layers"][0]["annotations"]["io.aerogel.layer"], *each["chain"]]
    manifest["config"] |= put(folder, json.dumps(records).encode())


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (
        cut_blobs, no_blobs, other_layers, no_tars, unknown_layers, malformed, no_digests, from_the_future, longer_chains,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A context without randomness, the cache of its build, and its image."""
    folder = tmp_path_factory.mktemp("genuine")
    context = folder / "context"
    context.mkdir()
    shutil.copy(str(shutil.which("busybox")), context / "busybox")
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY Dockerfile /d\n"
        'RUN ["/bin/busybox", "sh", "-c", "echo made > /made"]\n'
    )
    image, _ = built(Aerogel(folder / "state"), context, "--cache-to", f"type=local,dest={folder}/cache")
    return context, folder / "cache", image


@pytest.mark.parametrize("name", CHANGES)
def test_a_cache_that_lies_is_found_out(
    machine: Callable[[], Aerogel], genuine: tuple[Path, Path, str], tmp_path: Path, name: str
) -> None:
    context, cache, image = genuine
    folder = tmp_path / "cache"
    shutil.copytree(cache, folder)
    index = json.loads((folder / "index.json").read_bytes())
    entry = index["manifests"][0]
    manifest = json.loads(blob_of(folder, entry["digest"]).read_bytes())
    CHANGES[name](manifest, folder)
    entry |= put(folder, json.dumps(manifest).encode())
    (folder / "index.json").write_text(json.dumps(index))
    aerogel = machine()
    told = aerogel("build", "--progress=plain", "--cache-from", f"type=local,src={folder}", str(context))
    assert told.stdout.strip() == image
    assert "CACHED" not in told.stderr.rpartition("not used any more")[2]
    if name not in ("longer_chains", "unknown_layers"):
        assert f"warning: the cache `{folder}`" in told.stderr
    # Nothing of it stays: the store gives the same without the cache.
    assert aerogel("build", "-q", str(context)).stdout.strip() == image


def test_how_a_cache_packed_its_layers_does_not_matter(
    machine: Callable[[], Aerogel], genuine: tuple[Path, Path, str], tmp_path: Path
) -> None:
    """The same tar in another gzip: a build here would not have made that blob, so no image gets it."""
    context, cache, image = genuine
    folder = tmp_path / "cache"
    shutil.copytree(cache, folder)
    index = json.loads((folder / "index.json").read_bytes())
    entry = index["manifests"][0]
    manifest = json.loads(blob_of(folder, entry["digest"]).read_bytes())
    for layer in manifest["layers"]:
        data = gzip.decompress(blob_of(folder, layer["digest"]).read_bytes())
        layer.update(put(folder, gzip.compress(data, 1)))
    entry |= put(folder, json.dumps(manifest).encode())
    (folder / "index.json").write_text(json.dumps(index))
    first, steps = built(Aerogel(tmp_path / "plain"), context)
    result = machine().json("build", "--cache-from", f"type=local,src={folder}", str(context))
    plain = Aerogel(tmp_path / "plain").json("build", str(context))
    assert first == image
    assert steps
    assert result["descriptor"] == plain["descriptor"]
    assert {each["status"] for each in result["steps"]} == {"CACHED", "SKIPPED"}
