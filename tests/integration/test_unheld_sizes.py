"""Where nothing can be mounted, a build and a container are warned of what does not hold. Debian package: busybox-static."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from process import Aerogel
from small_image import HEAD

pytestmark = [
    pytest.mark.host("busybox"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may change its root directory"),
]

STEPS = f"{HEAD}RUN --mount=type=tmpfs,target=/t,size=1m true\nRUN --mount=type=tmpfs,target=/t,size=1m echo 2\n"
WARNING = """\
warning: not held on the rung `chroot`, where nothing can be mounted: {what}
hint: `aerogel doctor` tells what a better rung needs
"""


def test_sizes_on_chroot(tmp_path: Path) -> None:
    """Once in a build for all its steps, and for a container; as an event too. What is not asked for is not told."""
    aerogel = Aerogel(tmp_path / "state")
    aerogel.env["AEROGEL_ISOLATION"] = "chroot"
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "Dockerfile").write_text(HEAD)
    assert "not held" not in aerogel("build", "--progress=plain", str(context)).stderr
    (context / "Dockerfile").write_text(STEPS)
    said = aerogel("build", "--progress=plain", "-t", "small", str(context)).stderr
    assert said.count("warning: ") == 1
    assert WARNING.format(what="the size of `/t`") in said
    events = aerogel("build", "--no-cache", "--progress=json", str(context)).stderr.splitlines()
    (event,) = [each for each in map(json.loads, events) if each["event"] == "warning"]
    assert (event["code"], event["severity"]) == ("sandbox.not-held", "warning")
    done = aerogel("run", "--read-only", "--shm-size", "1m", "--hostname", "box", "small", "true")
    what = "the size of `/dev/shm`, the host name `box`, the read-only root"
    assert done.stderr == WARNING.format(what=what)
