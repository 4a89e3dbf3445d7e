"""Kernels that lack newer system calls, a disk that takes no overlay, a home that nobody may write to: the same image, or words.

Debian packages: busybox-static.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = [
    pytest.mark.host("busybox"),
    pytest.mark.skipif(os.getuid() != 0, reason="the filter is loaded by root"),
]

DOCKERFILE = """FROM scratch AS base
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-ec"]
ENV PATH=/bin
RUN /bin/busybox --install -s /bin && mkdir -p /d/e && chown 5:6 /d && chmod 4755 /bin/su
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=bind,target=/ctx,ro \\
    rm -r /d/e; mkdir /d/e; cp /ctx/busybox /d/e/b; touch /c/x /t/x; touch /ctx/x 2>/dev/null && exit 1; \\
    touch /proc/sys/kernel/hostname 2>/dev/null && echo x >/proc/sys/kernel/hostname 2>/dev/null && exit 1; ls /t >/names
FROM base
COPY --from=base /d /copy
RUN --network=none ls -l /copy | wc -l >/n
"""


class Old(Aerogel):
    """As on an older kernel."""

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, str(Path(__file__).parents[1] / "support" / "old_kernel.py"), *super().argv(*words)]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    shutil.copy(shutil.which("busybox") or "", folder / "busybox")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


def test_the_same_image_without_newer_calls(tmp_path: Path, context: Path) -> None:
    wanted = Aerogel(tmp_path / "new")("build", "--progress=plain", str(context)).stdout
    old = Old(tmp_path / "old")
    assert old("build", "--progress=plain", str(context)).stdout == wanted
    told = {row["what"]: row for row in old.json("doctor", "--offline")["findings"]}
    for rung in ("single", "chroot"):
        assert told[f"isolation {rung}"]["state"] != "ok", told
        assert "answer the system calls of another" in told[f"isolation {rung}"]["found"], told


ON_AN_OVERLAY = """set -e; cd "$1"; shift; mkdir lower state merged; mount -t tmpfs none state; mkdir state/upper state/work
mount -t overlay none -o lowerdir=lower,upperdir=state/upper,workdir=state/work merged; exec "$@"
"""


@pytest.mark.parametrize("rung", ["auto", "single"])
def test_a_disk_that_takes_no_overlay(tmp_path: Path, context: Path, rung: str) -> None:
    """The store lies on an overlay, as in a container of Docker without a volume: no other can write onto that."""
    wanted = Aerogel(tmp_path / "usual")("build", "--progress=plain", str(context)).stdout
    aerogel = Aerogel(tmp_path / "merged" / "root")
    words = ["unshare", "--mount", "sh", "-c", ON_AN_OVERLAY, "sh", str(tmp_path)]
    env = {**aerogel.env, "AEROGEL_ISOLATION": rung}
    look = [*words[:-1], str(tmp_path / "doctor"), *aerogel.argv("doctor", "--offline")]
    done = subprocess.run([*words, *aerogel.argv("build", str(context))], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, wanted), done.stderr
    (tmp_path / "doctor").mkdir()
    env["AEROGEL_ROOT"] = str(tmp_path / "doctor/merged/root")
    told = subprocess.run(look, env=env, capture_output=True, text=True).stdout
    assert "no overlay can be written in the cache folder, so each step copies its root" in told, told


def test_a_home_that_cannot_be_written(tmp_path: Path, context: Path) -> None:
    """With a store elsewhere it is not needed; without, the error names it."""
    home = tmp_path / "home"
    home.mkdir()
    aerogel = Aerogel(tmp_path / "state")
    mounted = 'mount --bind "$HOME" "$HOME" && mount -o remount,bind,ro "$HOME" && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mounted, "sh", *aerogel.argv("build", "--progress=plain", str(context))]
    env = {**aerogel.env, "HOME": str(home)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    env = {name: value for name, value in env.items() if not name.startswith(("AEROGEL_ROOT", "XDG_"))}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert (done.returncode, "read-only file system" in done.stderr) == (3, True), done.stderr
    assert "AEROGEL_ROOT" in done.stderr
