"""Every output of one build, read by other tools: skopeo, umoci, podman, tar. `validate` on every image."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from process import Aerogel

from aerogel.oci.image import images
from aerogel.oci.types import Descriptor
from aerogel.oci.validate import validate
from aerogel.store.load import load_archive, load_layout
from aerogel.store.store import Store

pytestmark = pytest.mark.host("skopeo", "umoci", "podman")

DOCKERFILE = """FROM scratch AS one
COPY a /x/a
COPY --chown=1234:5678 --chmod=4750 a /x/owned
FROM one AS two
COPY b /y/b
COPY hard /hard/
FROM two
COPY b /x/a
LABEL k=v
"""


def run(*words: str | Path) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "hard").mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "a").write_text("alpha\n" * 1000)
    (folder / "b").write_text("beta\n" * 1000)
    (folder / "hard/1").write_text("one file")
    os.link(folder / "hard/1", folder / "hard/2")
    return folder


@pytest.fixture
def aerogel(tmp_path: Path) -> Aerogel:
    """With a store of its own."""
    return Aerogel(tmp_path / "state")


def check_layout(tmp_path: Path, path: Path) -> Descriptor:
    """Loads an archive or layout into a fresh store and validates all of it."""
    with Store.open(tmp_path / f"d-{path.name}", tmp_path / f"c-{path.name}") as store:
        if path.is_dir():
            [loaded] = load_layout(str(path), store)
        else:
            with path.open("rb") as file:
                [loaded] = load_archive(file, store)
        found = images(loaded.descriptor, store.blobs)
        assert found
        for image in found:
            assert validate(image) == []
        return loaded.descriptor


def test_all_at_once(aerogel: Aerogel, context: Path, tmp_path: Path) -> None:
    outputs = {
        "oci.tar": "type=oci,dest={}",
        "zstd.tar": "type=oci,dest={},compression=zstd,compression-level=7,force-compression=true",
        "plain.tar": "type=oci,dest={},compression=uncompressed,annotation.org.example=x",
        "docker.tar": "type=docker,dest={},oci-mediatypes=false",
        "layout": "type=oci,dest={},tar=false",
        "root.tar": "type=tar,dest={}",
        "files": "{}",
    }
    words = [word for name, text in outputs.items() for word in ("-o", text.format(tmp_path / name))]
    meta, iid = tmp_path / "meta.json", tmp_path / "iid"
    done = aerogel(
        "build", "-q", "-t", "app:1", *words, "--metadata-file", str(meta), "--iidfile", str(iid), str(context)
    )
    image_id = done.stdout.strip()
    assert iid.read_text() == image_id
    told = json.loads(meta.read_text())
    assert told["containerimage.config.digest"] == image_id
    assert told["image.name"] == "app:1"
    digests = {name: check_layout(tmp_path, tmp_path / name).digest for name in list(outputs)[:5]}
    assert digests["oci.tar"] == digests["layout"] == told["containerimage.digest"]
    assert len(set(digests.values())) == 4
    types = {"oci.tar": "oci.image.layer.v1.tar+gzip", "zstd.tar": "tar+zstd", "plain.tar": "layer.v1.tar"}
    types["docker.tar"] = "docker.image.rootfs.diff.tar.gzip"
    for name, ending in types.items():
        raw = manifest_of(tmp_path / name)
        if name != "docker.tar":  # skopeo looks for OCI's media types in such an archive
            assert raw == json.loads(run("skopeo", "inspect", "--raw", f"oci-archive:{tmp_path / name}:1"))
        assert raw["config"]["digest"] == image_id
        assert all(layer["mediaType"].endswith(ending) for layer in raw["layers"])
        assert raw.get("annotations", {}) == ({"org.example": "x"} if name == "plain.tar" else {})
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'layout'}:1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/x/a").read_text() == (context / "b").read_text()
    with tempfile.TemporaryDirectory(prefix="p") as state:
        podman = ("podman", "--root", f"{state}/a", "--runroot", f"{state}/b", "--storage-driver", "vfs")
        for name in ("zstd.tar", "docker.tar"):
            run(*podman, "load", "-i", tmp_path / name)
            assert json.loads(run(*podman, "image", "inspect", "app:1"))[0]["Id"] == image_id[7:]
            run(*podman, "rmi", "--force", "app:1")
    check_trees(tmp_path, context)


def manifest_of(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as archive:

        def read(name: str) -> dict[str, Any]:
            file = archive.extractfile(name)
            assert file is not None
            found: dict[str, Any] = json.loads(file.read())
            return found

        [entry] = read("index.json")["manifests"]
        return read("blobs/" + entry["digest"].replace(":", "/"))


def check_trees(tmp_path: Path, context: Path) -> None:
    with tarfile.open(tmp_path / "root.tar") as archive:
        names = archive.getnames()
        assert names == ["hard", "hard/1", "hard/2", "x", "x/a", "x/owned", "y", "y/b"]
        owned = archive.getmember("x/owned")
        assert (owned.uid, owned.gid, owned.mode) == (1234, 5678, 0o4750)
        assert archive.getmember("hard/2").linkname == "hard/1"
        file = archive.extractfile("x/a")
        assert file is not None
        assert file.read() == (context / "b").read_bytes()
    files = tmp_path / "files"
    run("tar", "-tf", tmp_path / "root.tar")
    assert sorted(str(path.relative_to(files)) for path in files.rglob("*")) == names
    state = (files / "x/owned").stat()
    if os.getuid() == 0:
        assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (1234, 5678, 0o4750)
    assert (files / "hard/1").stat().st_ino == (files / "hard/2").stat().st_ino


def test_standard_output(aerogel: Aerogel, context: Path, tmp_path: Path) -> None:
    for word, first in (("-", b"hard/"), ("type=oci", b"oci-layout")):
        done = subprocess.run(
            aerogel.argv("build", "-q", "-o", word, str(context)), env=aerogel.env, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.startswith(first)
        # Nothing after the archive.
        assert done.stdout.endswith(bytes(1024))
        assert len(done.stdout) % 512 == 0
    done = aerogel("build", "-o", "-", "-o", "type=docker,dest=-", str(context), check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "error: two outputs cannot both be standard output\nhint: give one of them a file: `dest=FILE`\n",
    )


def test_unpacked_at_once(aerogel: Aerogel, context: Path) -> None:
    def unpacked() -> set[str]:
        return {path.name for path in aerogel.state.glob("cache/snapshots-*/*/*/")}

    aerogel("build", "-q", "-t", "app:1", str(context))
    assert unpacked() == set()
    aerogel("build", "-q", "-t", "app:1", "-o", "type=image,unpack=true", str(context))
    [layers] = [one["RootFS"]["Layers"] for one in aerogel.json("inspect", "app:1")["images"]]
    assert unpacked() == {layer.replace(":", "-") for layer in layers}


def test_squash_is_read_by_others(aerogel: Aerogel, context: Path, tmp_path: Path) -> None:
    layers = {}
    for word in ("--label=a=b", "--squash", "--squash=one", "--squash=two", "--squash=base"):
        path = tmp_path / f"{word.strip('-').replace('=', '-')}.tar"
        aerogel("build", "-q", "-t", "app:1", word, "-o", f"type=oci,dest={path}", str(context))
        check_layout(tmp_path, path)
        told = json.loads(run("skopeo", "inspect", f"oci-archive:{path}:1"))
        layers[word] = told["Layers"]
        layout, bundle = tmp_path / f"{path.stem}-layout", tmp_path / f"{path.stem}-bundle"
        layout.mkdir()
        run("tar", "-xf", path, "-C", layout)
        run("umoci", "unpack", "--rootless", "--image", f"{layout}:1", bundle)
        assert (bundle / "rootfs/x/a").read_text() == (context / "b").read_text()
        assert (bundle / "rootfs/hard/1").stat().st_ino == (bundle / "rootfs/hard/2").stat().st_ino
    plain = layers["--label=a=b"]
    assert [len(found) for found in layers.values()] == [5, 1, 3, 5, 1]
    assert layers["--squash=one"][:2] == plain[:2]
    done = aerogel("build", "--squash=other", str(context), check=False)
    assert done.returncode == 2
    assert "error: `--squash=other`: the image is not built from a stage of that name\n" in done.stderr


def test_a_folder_of_an_ordinary_user(ordinary: Aerogel, context: Path) -> None:
    home = Path(ordinary.env["HOME"])
    place = home / "outputs"
    subprocess.run(["cp", "-r", str(context), str(place)], check=True)
    subprocess.run(["chown", "-R", f"{ordinary.account}:", str(place)], check=True)
    ordinary("build", "-q", "-o", str(place / "out"), str(place))
    state, mine = (place / "out/x/owned").stat(), place.stat()
    # As with BuildKit: what is written belongs to who writes it.
    assert (state.st_uid, state.st_gid) == (mine.st_uid, mine.st_gid)
    assert (place / "out/x/a").read_text() == (context / "b").read_text()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("type=local,dest=file/x", "cannot write `file/x`: `file` is not a folder"),
        ("type=tar,dest=folder", "cannot write `folder`: it is a folder"),
        ("type=oci,dest=missing/a.tar", "cannot write `missing/a.tar`: there is no folder `missing`"),
        ("type=image,annotation-index.a=b", "the annotation `a` is for the level `index`"),
    ],
)
def test_what_cannot_be_written_is_told_first(
    aerogel: Aerogel, context: Path, tmp_path: Path, word: str, message: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    done = aerogel("build", "-o", word, str(context), check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
