"""On `proot` the devices are the host's, which root of a container could remove: it is refused, however it is asked for.

The host's /dev is one of the test's own, in a mount namespace: nothing else is at stake when an attack gets through.
Debian packages: proot, busybox-static, util-linux.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from forged import chain, program
from process import Aerogel

pytestmark = [
    pytest.mark.host("proot", "busybox", "setpriv", "unshare"),
    pytest.mark.skipif(os.getuid() != 0, reason="root of a container is at stake, no ordinary accounts"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the forged programs are of x86_64"),
]
NODES = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))
BEFORE = "".join(f"{name} 0:0 666 1:{minor:x}\n" for name, minor in sorted(NODES))
START = """
set -e
D=$1; LOOK=$2; shift 2
mkdir $D; mount -t tmpfs -o mode=755 dev $D
for each in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 $D/${each%:*} c 1 ${each#*:}; done
mknod -m 666 $D/tty c 5 0; ln -s /proc/self/fd $D/fd; ln -s fd/1 $D/stdout; mkdir -m 1777 $D/shm
mount --move $D /dev
status=0; setpriv --bounding-set=-all --inh-caps=-all "$@" || status=$?
cd /dev; stat -c '%n %u:%g %a %t:%T' null zero full random urandom | sort >$LOOK
exit $status
"""
CALLS = {
    "fchmod": program(91, 0, 0o600),
    "fchown": program(93, 0, 5, 6),
    "fchmodat": program(268, -100, b"/dev/null", 0o600),
    "unlink": program(87, b"/dev/null"),
    "unlinkat": chain([(2, b"/dev", 0o200000), (263, -1000, b"null", 0)]),
    "rename": program(82, b"/bin/busybox", b"/dev/null"),
    "renameat2": program(316, -100, b"/dev/null", -100, b"/tmp/taken", 0),
    "exchange": program(316, -100, b"/bin/busybox", -100, b"/dev/null", 2),
    "mknod": program(133, b"/dev/null", 0o100666, 0),
    "symlink": program(88, b"/etc", b"/dev/null"),
    "dots": program(87, b"/tmp/../dev/./null"),
    "removexattr": program(197, b"/dev/null", b"security.capability"),
    "open_tree": chain([(428, -100, b"/dev", 0), (263, -1000, b"null", 0)]),
}
DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
COPY calls /calls
SHELL ["/bin/busybox", "sh", "-c"]
RUN /bin/busybox mkdir /tmp; cd /calls; for c in *; do ./$c </dev/null && echo "GOT THROUGH $c"; done; true
RUN PATH=/b; /bin/busybox mkdir /b; /bin/busybox --install -s /b; ln -s /dev /way; for d in /dev /way /proc/self/root/dev; do \\
    cd $d; for n in null zero full random urandom; do rm -f $n; mv $n /b/x; mv /b/ls $n; cp -a /b/ls $n; ln -f /b/ls $n; ln -sf /b/ls $n; \\
    chmod 0 $n; chown 7:8 $n; done; done; rm -rf /dev/null /dev; echo over >/dev/null
"""


class Bare(Aerogel):
    """As root without capabilities, with a /dev of its own."""

    def argv(self, *words: str) -> list[str]:
        place, look = self.state.parent / "dev", self.state.parent / "look"
        return ["unshare", "-m", "sh", "-c", START, "start", str(place), str(look), *super().argv(*words)]


def test_devices_stay_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "context"
    (folder / "calls").mkdir(parents=True)
    for name, call in CALLS.items():
        (folder / "calls" / name).write_bytes(call)
        (folder / "calls" / name).chmod(0o755)
    shutil.copy(shutil.which("busybox") or "", folder / "busybox")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    aerogel = Bare(tmp_path / "state")
    done = aerogel("build", "--progress=plain", str(folder), env={"AEROGEL_ISOLATION": "proot"}, check=False)
    assert (tmp_path / "look").read_text() == BEFORE, done.stderr
    assert done.returncode == 0, done.stderr
    assert re.findall("GOT THROUGH [a-z_0-9]+", done.stderr) == []
