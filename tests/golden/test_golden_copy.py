"""Golden layers of what COPY and ADD learnt after 2021: `copy/<case>/Dockerfile` and the layers in `expected`.

No builder at hand knows these, so each expected file was checked by hand against the Dockerfile reference. What the
older builders know as well is in `tests/differential`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "copy"
CASES = sorted(path for path in FOLDER.iterdir() if (path / "Dockerfile").exists())
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared context with modes that do not depend on the checkout."""
    folder = tmp_path_factory.mktemp("copy") / "context"
    shutil.copytree(FOLDER / "context", folder, symlinks=True)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.name == "tool" else 0o644)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Path, context: Path, tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    words = ["build", "--progress=quiet", "--compression=uncompressed", "-f", str(case / "Dockerfile")]
    words += ["-o", f"type=oci,dest={tmp_path / 'image.tar'}", str(context)]
    env = {**os.environ, "AEROGEL_ROOT": str(tmp_path / "store"), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "aerogel", *words], env=env, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        text = "\n".join(line for line in done.stderr.splitlines() if "-->" not in line) + "\n"
    else:
        with tarfile.open(tmp_path / "image.tar") as archive:
            text = "\n".join(layers(archive)) + "\n"
    golden(case / "expected", text)


def layers(archive: tarfile.TarFile) -> Iterator[str]:
    """Every layer below the text of its instruction, an entry a line."""

    def read(digest: str) -> bytes:
        file = archive.extractfile("blobs/" + digest.replace(":", "/"))
        assert file is not None
        return file.read()

    index = archive.extractfile("index.json")
    assert index is not None
    manifest = json.loads(read(json.load(index)["manifests"][0]["digest"]))
    history = [row for row in json.loads(read(manifest["config"]["digest"]))["history"] if not row.get("empty_layer")]
    for row, layer in zip(history, manifest["layers"], strict=True):
        yield row["created_by"]
        with tarfile.open(fileobj=io.BytesIO(read(layer["digest"]))) as tar:
            for entry in tar:
                slash = "/" if entry.isdir() else ""
                link = f" -> {entry.linkname}" if entry.issym() or entry.islnk() else ""
                file = tar.extractfile(entry) if entry.isreg() else None
                content = f" {file.read().decode()!r}" if file else ""
                yield f"  {entry.mode:04o} {entry.uid}:{entry.gid} /{entry.name}{slash}{link}{content}"
