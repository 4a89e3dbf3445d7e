"""One byte of a blob is another, in every kind of place that is read: nothing goes on to any kind of place that is written.

Docker and podman are read as docker's archives are, and get what went through the store.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images import serve_image
from loop_registry import LoopRegistry, serve_registry
from shell import Shell, make_shell

from aerogel.store.store import Store

pytestmark = pytest.mark.damage

TARGETS = ("docker", "oci", "oci-archive", "docker-archive", "store")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    return make_shell(tmp_path, monkeypatch, capfd)


@pytest.fixture
def server() -> Iterator[LoopRegistry]:
    """It takes whatever is sent, and gives it away."""
    with serve_registry() as running:
        running.checks = running.mounts = False
        yield running


class Made:
    """An image in the registry as `app:1`, and the digests of its blobs."""

    def __init__(self, shell: Shell, server: LoopRegistry) -> None:
        self.shell, self.server = shell, server
        self.name = f"{server.host}/app:1"
        digest = serve_image(server, "app", "1")
        found = json.loads(server.manifests["app"][digest][1])
        self.config, self.layer = found["config"]["digest"], found["layers"][0]["digest"]
        self.right = dict(server.blobs["app"])

    def spoilt(self, data: bytes, digest: str) -> bytes:
        """A byte of the times in a gzip header, which no diff id tells of, or of the command in the config."""
        other = bytearray(data)
        other[7 if digest == self.layer else data.index(b"/hello") + 3] ^= 1
        assert digest != self.layer or gzip.decompress(other) == gzip.decompress(data)
        return bytes(other)

    def registry(self, digest: str) -> str:
        self.server.blobs["app"][digest] = self.spoilt(self.right[digest], digest)
        return f"docker://{self.name}"

    def layout(self, digest: str) -> str:
        shutil.rmtree(self.shell.folder / "source", ignore_errors=True)
        self.shell("copy", f"docker://{self.name}", "oci:source:1")
        self._spoil_file(self.shell.folder / "source/blobs" / digest.replace(":", "/"), digest)
        return "oci:source:1"

    def store(self, digest: str) -> str:
        self.shell("copy", f"docker://{self.name}", "mine")
        self._spoil_file(self.shell.folder / "root/data/blobs" / digest.replace(":", "/"), digest)
        return "mine"

    def archive(self, digest: str) -> str:
        self.shell("copy", f"docker://{self.name}", "oci-archive:source.tar:1")
        self._spoil_archive(self.shell.folder / "source.tar", digest, f"blobs/{digest.replace(':', '/')}")
        return "oci-archive:source.tar:1"

    def docker(self, digest: str) -> str:
        """The names of files in it are digests that nobody is bound to; what binds is the config's list of diff ids."""
        self.shell("copy", f"docker://{self.name}", "docker-archive:source.tar")
        path = self.shell.folder / "source.tar"
        with tarfile.open(path) as tar:
            held = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]  # a file
        name = json.loads(held["manifest.json"])[0]["Layers"][0]
        data = gzip.decompress(held[name])
        assert digest == self.layer
        held[name] = gzip.compress(data.replace(b"hello", b"jello", 1))
        with tarfile.open(path, "w") as tar:
            for name in held.keys() - {"index.json", "oci-layout"}:  # as docker 24 writes it
                data = held[name]
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return "docker-archive:source.tar"

    def _spoil_file(self, path: Path, digest: str) -> None:
        path.chmod(0o600)
        path.write_bytes(self.spoilt(path.read_bytes(), digest))

    def _spoil_archive(self, path: Path, digest: str, name: str) -> None:
        with tarfile.open(path) as tar:
            member = tar.getmember(name)
        data = bytearray(path.read_bytes())
        end = member.offset_data + member.size
        part = bytes(data[member.offset_data : end])
        data[member.offset_data : end] = self.spoilt(part, digest)
        path.write_bytes(data)


SOURCES: dict[str, Callable[[Made, str], str]] = {
    "registry": Made.registry,
    "oci": Made.layout,
    "oci-archive": Made.archive,
    "docker-archive": Made.docker,
    "store": Made.store,
}


@pytest.mark.parametrize(
    ("source", "blob"),
    [
        *((source, "layer") for source in SOURCES),
        # That of docker's archives has no digest but the one that it gives itself: with another one it is another image.
        *((source, "config") for source in SOURCES if source != "docker-archive"),
    ],
)
def test_copy(shell: Shell, server: LoopRegistry, tmp_path: Path, source: str, blob: str) -> None:
    made = Made(shell, server)
    digest = made.layer if blob == "layer" else made.config
    before = ["mine"] if source == "store" else []
    for target in TARGETS[:-1] if source == "store" else TARGETS:  # within the store nothing moves
        end = SOURCES[source](made, digest)  # each time, as the store lets go of what it finds damaged
        where = {"docker": f"docker://{server.host}/target:1", "store": "target:1"}.get(
            target, f"{target}:target-{target}"
        )
        told = shell.fails("copy", end, where, status=4 if source == "registry" else 1)
        assert "is not what" in told, told
        assert "Traceback" not in told
    assert "target" not in server.manifests
    assert _images(tmp_path) == [f"docker.io/library/{name}:latest" for name in before]
    for path in tmp_path.glob("target-*"):
        assert path.name == "target-oci"
        assert not (path / "index.json").exists(), "the index comes last"
        with contextlib.suppress(FileNotFoundError):
            assert digest.partition(":")[2] not in [one.name for one in (path / "blobs/sha256").iterdir()]


def _images(folder: Path) -> list[str]:
    with Store.open(folder / "root/data", folder / "root/cache") as store:
        return [str(name) for record in store.images.list() for name in record.references]


@pytest.mark.parametrize("blob", ["layer", "config"])
def test_other_commands(shell: Shell, server: LoopRegistry, tmp_path: Path, blob: str) -> None:
    made = Made(shell, server)
    digest = made.layer if blob == "layer" else made.config
    made.archive(digest)
    assert "is not what" in shell.fails("load", "-i", "source.tar")
    for words in (("save", "-o", "out.tar", "mine"), ("save", "--format", "oci-archive", "-o", "out.tar", "mine")):
        made.store(digest)
        assert "is not what" in shell.fails(*words)
        assert not (tmp_path / "out.tar").exists()
    made.registry(digest)
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(f"FROM {made.name}\nCOPY Dockerfile /a\n")
    shell("rmi", "-f", "mine")
    shell("prune")
    before = _images(tmp_path)
    for words in (("pull", made.name), ("build", "-t", "built", "-o", "type=oci,dest=out.tar", "context")):
        assert "is not what" in shell.fails(*words, status=4)
        assert not (tmp_path / "out.tar").exists()
    assert _images(tmp_path) in (before, [*before, made.name]), "a lazy base has its documents, which are right"


def test_push_leaves_it_to_the_registry(shell: Shell, server: LoopRegistry) -> None:
    """The one place where a blob of the store is not hashed on its way: every registry has to do it."""
    made = Made(shell, server)
    made.store(made.layer)
    shell("tag", "mine", f"{server.host}/pushed:1")
    server.checks = True
    assert f"blob `{made.layer}` in the store is not what" in shell.fails("push", f"{server.host}/pushed:1")
    assert "pushed" not in server.manifests
