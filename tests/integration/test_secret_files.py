"""Secrets as files are on no disk where nothing can be mounted, and only whom their mode lets may read them.

The state folder is searched for the bytes of the secret while the step runs, and after everything was killed. Debian
packages: busybox-static, proot, util-linux (setpriv).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import Aerogel
from small_image import HEAD
from waiting import until

from aerogel.sandbox.plain import descendants

pytestmark = [
    pytest.mark.host("busybox", "proot", "setpriv"),
    pytest.mark.skipif(os.getuid() != 0, reason="root takes both rungs"),
]

SECRET = b"sixteen letters of a secret"
RUNGS = {"chroot": [], "proot": ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]}
BASE = HEAD.replace("FROM scratch", "FROM scratch AS base", 1)
OWNED = """USER app
RUN --mount=type=secret,id=s,mode=0440,uid=5,gid=6 ! test -r /run/secrets/s; ! cat /run/secrets/s 2>/dev/null
RUN --mount=type=secret,id=s,uid=1000,target=/home/app/t/key cd; stat -c '%u %g %a %s' t/key; head -c 7 t/key
"""
WAITS = f"{BASE}RUN --mount=type=secret,id=s wc -c </run/secrets/s; sleep 100\n"
MOVES = {"chroot": "mv /run/secrets /x", "proot": "ln /run/secrets/s /x"}
MOVED = """\
error: the step moved the file that is shown at `/run/secrets/s`, or gave it another name
  --> {place}/context/Dockerfile:6:13
 6 | RUN --mount=type=secret,id=s {script}
   |             ^^^^^^^^^^^^^^^^
hint: a mount can be moved nowhere: let the step read the file where it is
"""


class Confined(Aerogel):
    rung = "root"

    def argv(self, *words: str) -> list[str]:
        return [*RUNGS[self.rung], *super().argv(*words)]

    def build(self, text: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        place = self.state.parent
        (place / "context/Dockerfile").write_text(text)
        return self("build", "--secret", f"id=s,src={place / 's'}", *words, str(place / "context"), check=check)

    def holders(self) -> list[str]:
        """The files of the state folder that have the secret in them."""
        files = [path for path in self.state.rglob("*") if path.is_file() and not path.is_symlink()]
        return [str(path) for path in files if SECRET in path.read_bytes()]


@pytest.fixture(params=MOVES)
def aerogel(request: pytest.FixtureRequest, tmp_path: Path) -> Confined:
    return confined(tmp_path, request.param)


def confined(folder: Path, rung: str) -> Confined:
    (folder / "context").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", folder / "context/busybox")
    (folder / "s").write_bytes(SECRET)
    aerogel = Confined(folder / "state")
    aerogel.rung = rung
    aerogel.env |= {"AEROGEL_ISOLATION": rung, "AEROGEL_PROGRESS": "plain"}
    return aerogel


@pytest.mark.parametrize("rung", MOVES)
def test_they_cannot_be_moved(tmp_path: Path, rung: str) -> None:
    """Elsewhere the kernel refuses that; here the step would leave an empty file in its layer."""
    aerogel = confined(tmp_path, rung)
    done = aerogel.build(f"{BASE}RUN --mount=type=secret,id=s {MOVES[rung]}\n", check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(MOVED.format(script=MOVES[rung], place=tmp_path)), done.stderr
    assert aerogel.holders() == []


HIDES = """
#include <stdio.h>
#include <sys/prctl.h>
int main(void) {
    char data[99] = "";
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    FILE *file = fopen("/run/secrets/s", "r");
    printf("got %d\\n", file ? (int)fread(data, 1, 98, file) : -1);
    return 0;
}
"""
DENIED = Path(__file__).parents[1] / "support" / "denied.py"


@pytest.mark.host("gcc")
def test_programs_that_hide_their_memory_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ssh-add` does, as root of a container that may not look into other processes."""
    monkeypatch.setitem(RUNGS, "chroot", [sys.executable, str(DENIED)])
    aerogel = confined(tmp_path, "chroot")
    source = tmp_path / "hides.c"
    source.write_text(HIDES)
    subprocess.run(["gcc", "-static", "-o", str(tmp_path / "context/hides"), str(source)], check=True)
    text = 'FROM scratch\nCOPY hides /\nRUN --mount=type=secret,id=s ["/hides"]\n'
    assert f"got {len(SECRET)}\n" in aerogel.build(text).stderr


@pytest.fixture
def waiting(aerogel: Confined) -> Iterator[tuple[Confined, subprocess.Popen[bytes]]]:
    """A build whose step has the secret and waits."""
    (aerogel.state.parent / "context/Dockerfile").write_text(WAITS)
    argv = aerogel.argv(
        "build", "--secret", f"id=s,src={aerogel.state.parent / 's'}", str(aerogel.state.parent / "context")
    )
    with subprocess.Popen(
        argv, env=aerogel.env, cwd=aerogel.checkout, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
    ) as process:
        assert process.stderr is not None
        assert any(line.split()[1:] == [b"%d" % len(SECRET)] for line in process.stderr)
        yield aerogel, process
        process.kill()
        process.stderr.close()


def test_they_are_on_no_disk(waiting: tuple[Confined, subprocess.Popen[bytes]]) -> None:
    """While the step runs, after SIGKILL of the main process and all of the helper's, and after the next build."""
    aerogel, process = waiting
    assert aerogel.holders() == []
    below = descendants(process.pid)
    assert len(below) > 2
    for pid in (*below, process.pid):
        with contextlib.suppress(ProcessLookupError):  # it ended with the one before
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in below))
    assert aerogel.holders() == []
    assert "1000 0 400 27\n" in aerogel.build(BASE + OWNED).stderr
    assert aerogel.holders() == []
