"""Base images that lie or attack: each gives a clear error or the right result, and nothing outside is touched.

The images are OCI layouts made here, used as the base of a RUN and as a source of COPY. Debian package: busybox-static.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from bad_input import images, leftovers
from process import Aerogel

pytestmark = pytest.mark.host("busybox")

RUN = "FROM evil\nRUN echo hello > /made && cat /made\n"
COPY = "FROM scratch\nCOPY --from=evil / /\n"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


class Tar:
    """A layer in the making, with a root that can run commands."""

    def __init__(self, *, with_root: bool = True) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by `data`
        if with_root:
            busybox = shutil.which("busybox")
            assert busybox is not None
            self.add("bin/busybox", Path(busybox).read_bytes(), mode=0o755)
            for name in ("sh", "cat", "ls"):
                self.add(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox")

    def add(
        self, name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
    ) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.mode, member.size = kind, link, mode, len(data)
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            member.devmajor, member.devminor = 8, 0
        self.tar.addfile(member, io.BytesIO(data))

    def data(self) -> bytes:
        self.tar.close()
        return self.buffer.getvalue()


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.aerogel = Aerogel(folder / "state")
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "file").write_text("mine")

    def layout(
        self,
        tar: bytes,
        *,
        blob: bytes | None = None,
        media_type: str = GZIP,
        lie: Callable[[dict[str, object]], object] | None = None,
        diff_id: str = "",
    ) -> None:
        """An image of one layer; `lie` changes its descriptor."""
        blob = gzip.compress(tar, 1, mtime=0) if blob is None else blob
        root = self.folder / "evil"
        (root / "blobs/sha256").mkdir(parents=True)

        def put(data: bytes) -> dict[str, object]:
            (root / "blobs/sha256" / sha(data)[7:]).write_bytes(data)
            return {"digest": sha(data), "size": len(data)}

        layer: dict[str, object] = {"mediaType": media_type, **put(blob)}
        if lie is not None:
            lie(layer)
        rootfs = {"type": "layers", "diff_ids": [diff_id or sha(tar)]}
        config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}, "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())},
            "layers": [layer],
        }
        top = {"mediaType": manifest["mediaType"], **put(json.dumps(manifest).encode())}
        (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def build(self, dockerfile: str) -> subprocess.CompletedProcess[str]:
        context = self.folder / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(dockerfile)
        words = ("build", "--build-context", f"evil=oci-layout://{self.folder}/evil", "--progress=plain", str(context))
        done = self.aerogel(*words, check=False)
        assert "Traceback" not in done.stderr
        assert (self.outside / "file").read_text() == "mine"
        assert os.listdir(self.outside) == ["file"]
        return done

    def fails(self, dockerfile: str, *texts: str) -> None:
        done = self.build(dockerfile)
        assert done.returncode in (1, 3), done.stderr
        for text in texts:
            assert text in done.stderr, done.stderr
        assert leftovers(self.aerogel.state) == []
        assert not [one for one in images(self.aerogel.state) if one[1:]]

    def works(self, dockerfile: str) -> str:
        done = self.build(dockerfile)
        assert done.returncode == 0, done.stderr
        return done.stderr


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_honest_one(bench: Bench) -> None:
    bench.layout(Tar().data())
    assert "hello" in bench.works(RUN)
    bench.works(COPY)


# Lies.


@pytest.mark.parametrize("dockerfile", [RUN, COPY], ids=["RUN", "COPY"])
@pytest.mark.parametrize("what", ["digest", "size", "bigger", "diff-id"])
def test_lies(bench: Bench, dockerfile: str, what: str) -> None:
    tar = Tar().data()
    if what == "diff-id":
        bench.layout(tar, diff_id="sha256:" + "0" * 64)
        bench.fails(dockerfile, "error: ", "0" * 64)
        return
    bench.layout(tar, lie=lambda layer: layer.update(size=int(str(layer["size"])) + (1000 if what == "bigger" else -1)))
    if what == "digest":
        shutil.rmtree(bench.folder / "evil")
        bench.layout(tar)
        blob = max((bench.folder / "evil/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
    bench.fails(dockerfile, "error: ", "sha256:" if what == "digest" else "bytes")


# Attacks.


def absolute_link(tar: Tar, outside: Path) -> None:
    tar.add("escape", kind=tarfile.SYMTYPE, link=str(outside))
    tar.add("escape/file", b"yours")


def dotted_link(tar: Tar, outside: Path) -> None:
    tar.add("escape", kind=tarfile.SYMTYPE, link="../" * 40 + str(outside)[1:])
    tar.add("escape/file", b"yours")


def test_links_out_of_the_root_stay_inside(bench: Bench) -> None:
    tar = Tar()
    absolute_link(tar, bench.outside)
    bench.layout(tar.data())
    inside = str(bench.outside)[1:]
    assert "yours" in bench.works(f"FROM evil\nRUN cat /{inside}/file\n")


def test_links_with_many_dots_stay_inside(bench: Bench) -> None:
    tar = Tar()
    dotted_link(tar, bench.outside)
    bench.layout(tar.data())
    inside = str(bench.outside)[1:]
    assert "yours" in bench.works(f"FROM evil\nRUN cat /{inside}/file\n")


@pytest.mark.parametrize("dockerfile", [RUN, COPY], ids=["RUN", "COPY"])
@pytest.mark.parametrize("name", ["../../outside/file", "a/../../../outside/file"])
def test_names_that_climb(bench: Bench, dockerfile: str, name: str) -> None:
    tar = Tar()
    tar.add(name, b"yours")
    bench.layout(tar.data())
    bench.fails(
        dockerfile, f"path `{name}` in an archive has a `..` component", "hint: the archive is damaged or hostile"
    )


@pytest.mark.parametrize("dockerfile", [RUN, COPY], ids=["RUN", "COPY"])
def test_a_hard_link_out_of_the_root(bench: Bench, dockerfile: str) -> None:
    tar = Tar()
    tar.add("stolen", kind=tarfile.LNKTYPE, link=str(bench.outside / "file"))
    bench.layout(tar.data())
    bench.fails(dockerfile, "`stolen` as a hard link to" if dockerfile == COPY else "stolen` as a hard link to")


def test_a_device(bench: Bench) -> None:
    tar = Tar()
    tar.add("disk", kind=tarfile.BLKTYPE)
    bench.layout(tar.data())
    done = bench.build("FROM evil\nRUN cat /disk > /copy\n")
    assert done.returncode != 0, "a step has no access to devices"
    assert "disk" in done.stderr
    assert leftovers(bench.aerogel.state) == []


def test_names_of_100_kilobytes(bench: Bench) -> None:
    tar = Tar()
    tar.add("/".join(["d" * 200] * 100), b"deep")
    bench.layout(tar.data())
    bench.works(COPY)
    tar = Tar()
    tar.add("n" * 100_000, b"long")
    shutil.rmtree(bench.folder / "evil")
    bench.layout(tar.data())
    bench.fails(RUN, "cannot unpack `/nnnn", "file name too long")


def test_duplicate_entries(bench: Bench) -> None:
    tar = Tar()
    for number in range(3):
        tar.add("twice", b"%d" % number)
    tar.add("kind", kind=tarfile.DIRTYPE, mode=0o755)
    tar.add("kind/below", b"x")
    tar.add("kind", b"a file at last")
    bench.layout(tar.data())
    assert "2a file at last" in bench.works("FROM evil\nRUN cat /twice /kind\n")
    assert "a file at last2" in bench.works(
        "FROM evil AS from\nFROM evil\nCOPY --from=from /twice /kind /c/\nRUN cat /c/*\n"
    )


def test_very_many_entries(bench: Bench) -> None:
    """60,000 entries: the memory of the main process stays small, and nothing takes time that grows faster."""
    tar = Tar()
    for number in range(60_000):
        tar.add(f"many/{number % 100}/{number}")
    bench.layout(tar.data())
    bench.works("FROM scratch\nCOPY --from=evil /many/99 /made\n")


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_a_bomb(bench: Bench) -> None:
    """2 GB of zeros in 100 kB: a step fails for want of space and leaves none taken; what is not unpacked can be had."""
    size = 2 << 30
    tar = Tar()
    tar.add("small", b"small")
    member = tarfile.TarInfo("zeros")
    member.size = size
    head = tar.data().rstrip(b"\0")
    head += bytes(-len(head) % 512) + member.tobuf()
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    diff = hashlib.sha256()
    pieces = []
    zeros = bytes(1 << 20)
    for piece in (head, *[zeros] * (size >> 20), bytes(1024)):
        diff.update(piece)
        pieces.append(compressor.compress(piece))
    blob = b"".join(pieces) + compressor.flush()
    assert len(blob) < 2_000_000
    bench.layout(b"", blob=blob, media_type=ZSTD, diff_id="sha256:" + diff.hexdigest())
    with small_disk(bench.aerogel.state):
        bench.fails(RUN, "no space left on device")
        bench.works("FROM scratch\nCOPY --from=evil /small /\n")
