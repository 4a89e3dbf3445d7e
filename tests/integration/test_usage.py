"""What the store of an ordinary user takes, with files of subordinate ids in folders that the user may not list, and that it can be removed.

Debian packages: uidmap, busybox-static, util-linux.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest
from process import Aerogel

pytestmark = pytest.mark.host("busybox", "newuidmap", "setpriv")

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/
RUN ["/bin/busybox", "sh", "-c", "B=/bin/busybox; $B mkdir /hidden; $B head -c 300000 /dev/zero > /hidden/f; $B chmod 700 /hidden; $B chown -R 5:5 /hidden"]
RUN --mount=type=cache,target=/c,uid=7,mode=700 ["/bin/busybox", "cp", "/bin/busybox", "/c/kept"]
"""


def real(state: str) -> int:
    told = subprocess.run(["du", "-sB1", f"{state}/data", f"{state}/cache"], capture_output=True, text=True, check=True)
    return sum(int(line.split()[0]) for line in told.stdout.splitlines())


def test_sizes_of_files_that_the_user_may_not_see(ordinary: Aerogel) -> None:
    assert ordinary.checkout is not None
    context = ordinary.checkout.parent / "usage"
    context.mkdir(mode=0o755)
    shutil.copy(shutil.which("busybox") or "", context)
    (context / "Dockerfile").write_text(DOCKERFILE)
    shutil.chown(context, ordinary.account)
    used = Aerogel(ordinary.checkout.parent / "usage-state", account=ordinary.account, checkout=ordinary.checkout)
    used("build", str(context))
    before = real(str(used.state))
    assert used.json("du")["total_bytes"] == before
    expected = used.json("prune", "--all", "--dry-run")
    done = used.json("prune", "--all")
    assert done["freed_bytes"] == expected["freed_bytes"] == before - real(str(used.state))
    assert done["mounts"] == 1
    assert used.json("du")["snapshots"] == 0
    # what is left is the user's own: no rights are needed to remove it
    user = ["setpriv", f"--reuid={ordinary.account}", f"--regid={ordinary.account}", "--clear-groups"]
    subprocess.run([*user, "rm", "-r", str(used.state)], check=True)
