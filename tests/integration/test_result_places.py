"""Results are written to what a user names and never put in the place of a device: as root `-o /dev/null` would replace it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.getuid() != 0, reason="devices are made by root"),
]


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "null"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return path


def test_devices_stay(aerogel: Aerogel, tmp_path: Path, device: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    build = ("build", "--progress=quiet", "-t", "x", str(tmp_path))
    for words in (
        (*build, "--iidfile", str(device), "--metadata-file", str(device)),
        *((*build, "-o", f"type={kind},dest={device}") for kind in ("oci", "docker", "tar")),
        ("save", "-o", str(device), "x"),
        ("sbom", "-o", str(device), "x"),
        ("copy", "x", f"oci-archive:{device}"),
    ):
        aerogel(*words)
        about = device.lstat()
        assert (stat.S_ISCHR(about.st_mode), about.st_rdev) == (True, os.makedev(1, 3)), words


def test_standard_output_by_its_name(aerogel: Aerogel, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    aerogel("build", "--progress=quiet", "-t", "x", str(tmp_path))
    with (tmp_path / "x.tar").open("wb") as file:
        words = aerogel.argv("save", "-o", "/proc/self/fd/1", "x")
        subprocess.run(words, env=aerogel.env, stdout=file, check=True, timeout=60)
    listed = subprocess.run(["tar", "tf", str(tmp_path / "x.tar")], capture_output=True, text=True, check=True)
    assert "manifest.json" in listed.stdout
