"""Composes bases with an aerogel that runs on another kind of processor, and compares every layer with the host's.

    python bench/arm64_compose.py [--base NAME] [--platform OS/ARCH]

The image `aerogel/python3` for the platform (linux/arm64), this source and the wheels of requirements.lock for it make an
aerogel of that machine; Debian's qemu-user-static runs it on this one. It replays a lock, with all packages beside it and
without a network, for its own architecture and for amd64: `--locked` fails if one bit differs. The base must be one whose
files nothing is run for (static, base-nossl, base, cc). Takes minutes: an emulated Python is some thirty times slower.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELS = {"linux/arm64": "aarch64"}
DOCKERFILE = """\
FROM aerogel/python3
COPY deps /deps
COPY src /src
ENV PYTHONPATH=/src:/deps AEROGEL_ROOT=/tmp/root PYTHONHASHSEED=5 TZ=Asia/Tokyo
"""
DECLARATION = "apiVersion: aerogel/v1\nkind: Base\nname: mine\nextends: {}\n"
PROGRAM = """\
import platform, sys
from aerogel.cli import main
print(platform.machine(), sys.version)
for name in sys.argv[1:]:
    status = main.main(["base", "build", "--locked", "--platform", name, "base.yaml:nonroot", "--progress", "plain"])
    if status:
        sys.exit(status)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default="cc")
    parser.add_argument("--platform", default="linux/arm64", choices=sorted(WHEELS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="other-machine-") as folder:
        work, context = Path(folder, "work"), Path(folder, "context")
        work.mkdir()
        os.chmod(folder, 0o755)
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

        def aerogel(*words: str) -> None:
            subprocess.run([sys.executable, "-m", "aerogel", *words], cwd=work, env=env, check=True)

        unpack_wheels(WHEELS[options.platform], Path(folder, "wheels"), context / "deps")
        shutil.copytree(ROOT / "src", context / "src", ignore=shutil.ignore_patterns("__pycache__"))
        (context / "Dockerfile").write_text(DOCKERFILE)
        aerogel("build", "-q", "--platform", options.platform, "-t", "other-machine", str(context))
        (work / "base.yaml").write_text(DECLARATION.format(options.base))
        platforms = (options.platform, "linux/amd64")
        aerogel("base", "lock", "--platform", ",".join(platforms))
        aerogel("base", "vendor")
        inside = ("--network", "none", "-v", f"{work}:/work:ro", "-w", "/work", "--platform", options.platform)
        aerogel("run", "--rm", *inside, "other-machine", "-B", "-c", PROGRAM, *platforms)
    print("every layer is the same")
    return 0


def unpack_wheels(machine: str, folder: Path, target: Path) -> None:
    """What requirements.lock names, for Python 3.13 on a machine."""
    tags = [
        word
        for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
        for word in ("--platform", f"{tag}_{machine}")
    ]
    kinds = [word for abi in ("cp313", "abi3", "none") for word in ("--abi", abi)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version",
        "313",
    ]
    subprocess.run([*command, *tags, *kinds, "-d", str(folder), "-r", str(ROOT / "requirements.lock")], check=True)
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(target)


if __name__ == "__main__":
    sys.exit(main())
