"""Memory does not grow with a file or with the number of layers: each build below 120 MB, helper included.

The resident size is the kernel's highest of any process of the build (`ru_maxrss`), as wait4(2) tells it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host("true")

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB = 120


def build(root: Path, context: Path, *words: str, shows: str = "--quiet", rung: str = "auto") -> float:
    """Builds; the peak of resident memory in MB."""
    environ = {"PATH": os.defpath, "HOME": str(root), "AEROGEL_ROOT": str(root), "PYTHONPATH": str(ROOT / "src")}
    environ["AEROGEL_ISOLATION"] = rung
    weak = {
        "ident": ["setpriv", "--bounding-set=-sys_admin"],
        "proot": ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
    }
    program = [*weak.get(rung, ()), sys.executable, "-m", "aerogel", "build", shows, *words, str(context)]
    # Between this process and the build stands a small one: a child begins with the size of its parent.
    report = (
        "import os, resource, subprocess, sys\n"
        "told = None if sys.argv[5] == '--quiet' else subprocess.DEVNULL\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=told)\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", report, *program], env=environ, capture_output=True, text=True)
    status, size_kb = done.stdout.split()
    assert status == "0", done.stderr
    return int(size_kb) / 1000


def test_a_file_of_2_gib(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    with (context / "file").open("wb") as file:
        file.truncate(2 << 30)
        file.seek(1 << 30)
        file.write(os.urandom(32 << 20))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    assert build(tmp_path / "root", context) < LIMIT_MB
    assert build(tmp_path / "root", context) < LIMIT_MB


LINES = {"auto": 1 << 30, "ident": 1 << 26, "single": 1 << 26, "chroot": 1 << 26, "proot": 1 << 26}
SECRET = "correct horse battery staple"


@pytest.mark.host("busybox", "setpriv", "proot")
@pytest.mark.skipif(os.getuid() != 0, reason="the other rungs are made by taking rights away from root")
@pytest.mark.parametrize("rung", LINES)
def test_a_line_of_1_gib(tmp_path: Path, rung: str) -> None:
    """What a step prints without the end of a line is shown, logged and kept for the error in pieces, without secrets.

    Half of it are letters, the other half null bytes. It costs what it takes to move so much, not a minute's work.
    """
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "line").write_bytes(b"x" * (1 << 20))
    (tmp_path / "secret").write_text(SECRET)
    half, sh = LINES[rung] // 2, '"/busybox", "sh", "-c"'
    prints = f"b=/busybox; $b cat /run/secrets/s $($b yes /line | $b head -n {half >> 20}); $b head -c {half} /dev/zero"
    text = f'FROM scratch\nCOPY busybox line /\nRUN --mount=type=secret,id=s [{sh}, "{prints}"]\n'
    (context / "Dockerfile").write_text(text)
    words = ("--secret", f"id=s,src={tmp_path / 'secret'}")
    before = os.times()
    size_mb = build(tmp_path / "root", context, *words, shows="--progress=plain", rung=rung)
    cpu_s = sum(os.times()[2:4]) - sum(before[2:4])
    print(f"{rung}: {LINES[rung] >> 20} MiB, {cpu_s:.1f} s of CPU, {size_mb:.0f} MB")
    assert size_mb < LIMIT_MB
    assert cpu_s < 45
    (log,) = (tmp_path / "root").glob("cache/logs-v1/*/02.log")
    assert log.stat().st_size == LINES[rung] + len("***")
    with log.open("rb") as file:
        assert file.read(5) == b"***xx"
        file.seek(half + 2)
        assert file.read(3) == b"x\0\0"


def test_a_base_of_100_layers(tmp_path: Path) -> None:
    context = tmp_path / "context"
    lines = ["FROM scratch"]
    for number in range(100):
        folder = context / f"layer{number}" / f"folder{number % 7}"
        folder.mkdir(parents=True)
        for each in range(30):
            (folder / f"{number}-{each}").write_text(f"{number} {each}\n" * 1000)
        lines.append(f"COPY layer{number} /")
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    root = tmp_path / "root"
    assert build(root, context, "-t", "base") < LIMIT_MB
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "file").write_text("content")
    (upper / "Dockerfile").write_text("FROM base\nCOPY file /folder1/\nWORKDIR /folder1/new\n")
    assert build(root, upper) < LIMIT_MB


def test_a_context_of_300_000_files(tmp_path: Path) -> None:
    context = tmp_path / "context"
    for number in range(300_000):
        if number % 100 == 0:
            folder = f"{context}/packages/group-{number // 5000}/module-{number // 100}"
            os.makedirs(folder)
        fd = os.open(f"{folder}/source-{number}.js", os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, b"%d\n" % number)
        os.close(fd)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /app\nLABEL one=1\n")
    (context / ".dockerignore").write_text("packages/group-1/module-*/source-*7.js\n")
    root = tmp_path / "root"
    assert build(root, context) < LIMIT_MB
    (context / "packages" / "group-0" / "new").write_text("one more")
    assert build(root, context) < LIMIT_MB
