"""Where owners are recorded, no system call goes round the record: it is refused, and the step fails.

On the other rungs the same programs do what they ask for. Debian packages: proot, util-linux.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
from pathlib import Path

import pytest
from forged import ROOM, compat, program
from process import Aerogel

pytestmark = [
    pytest.mark.host("busybox", "proot", "setpriv"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the forged programs are of x86_64"),
    pytest.mark.skipif(os.getuid() != 0, reason="root has all of these rungs, ordinary accounts have not"),
]

NARROW = (
    b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0x8048054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
)
NARROW += struct.pack("<IIIIIIII", 1, 0, 0x8048000, 0x8048000, 96, 96, 7, 4096)
NARROW += b"\xb8\x01\0\0\0\x31\xdb\xcd\x80"  # mov eax, 1; xor ebx, ebx; int 0x80: exit(0)
PROGRAMS = {
    "setuid through the gate of 32-bit programs": (compat(213, 5), "RUN failed: exit status 38"),
    "a 32-bit program": (NARROW, "`/tool` has no format that this machine executes"),
    "a ring, in an insecure step": (program(425, 8, ROOM), "RUN failed: exit status 1\n"),
}


_READ = bytes(24) + ROOM  # struct open_how
UNTRANSLATED = {
    "name_to_handle_at": (303, -100, b"/etc", ROOM, ROOM, 0),
    "execveat": (322, -100, b"/bin/true", 0, 0, 0),
    "statx": (332, -100, b"/etc", 0, 0xFFF, ROOM),
    "open_tree": (428, -100, b"/etc", 0),
    "openat2": (437, -100, b"/etc", _READ, 24),
    "faccessat2": (439, -100, b"/etc", 0, 0),
    "fchmodat2": (452, -100, b"/etc", 0o755, 0),
    "getxattrat": (464, -100, b"/etc", 0, b"user.x", ROOM, 16),
    "file_getattr": (468, -100, b"/etc", ROOM, 24, 0),
}
"""Calls whose paths proot would leave as they are: those of the host."""


class Unable(Aerogel):
    """As root of a container that has no capabilities."""

    def argv(self, *words: str) -> list[str]:
        return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *super().argv(*words)]


@pytest.mark.parametrize("security", ["sandbox", "insecure"])
def test_no_path_goes_round_proot(tmp_path: Path, security: str) -> None:
    (tmp_path / "calls").mkdir()
    for name, call in UNTRANSLATED.items():
        (tmp_path / "calls" / name).write_bytes(program(*call))
        (tmp_path / "calls" / name).chmod(0o755)
    shutil.copy(shutil.which("busybox") or "", tmp_path / "busybox")
    run = f'RUN --security={security} ["/busybox", "sh", "-c", "cd /calls; for c in *; do ./$c; echo answer $c $?; done"]\n'
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY busybox /\nCOPY calls /calls\n{run}")
    words = ("build", "--progress=plain", "--allow=security.insecure", str(tmp_path))
    done = Unable(tmp_path / "state")(*words, env={"AEROGEL_ISOLATION": "proot"})
    answers = dict(re.findall(r"answer (\w+) (\d+)", done.stderr))
    assert {name: int(answers[name]) for name in UNTRANSLATED} == dict.fromkeys(UNTRANSLATED, errno.ENOSYS)


@pytest.mark.parametrize("rung", ["single", "proot"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_call_goes_round_the_record(tmp_path: Path, name: str, rung: str) -> None:
    tool, said = PROGRAMS[name]
    (tmp_path / "tool").write_bytes(tool)
    (tmp_path / "tool").chmod(0o755)
    run = "RUN --security=insecure" if "insecure" in name else "RUN"
    (tmp_path / "Dockerfile").write_text(f'FROM scratch\nCOPY tool /tool\n{run} ["/tool"]\n')
    aerogel = Aerogel(tmp_path / "state")
    words = ("build", "--progress=plain", "--allow=security.insecure", "--no-cache", str(tmp_path))
    recording = Unable(tmp_path / "state") if rung == "proot" else aerogel
    done = recording(*words, env={"AEROGEL_ISOLATION": rung}, check=False)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    if rung == "proot":
        return
    done = aerogel(*words, env={"AEROGEL_ISOLATION": "root"}, check=False)
    assert done.returncode == 0, done.stderr


def test_an_image_of_32_bits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(NARROW)
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY tool /tool\nRUN ["/tool"]\n')
    aerogel = Aerogel(tmp_path / "state")
    words = ("build", "--progress=plain", "--platform=linux/386", str(tmp_path))
    done = aerogel(*words, env={"AEROGEL_ISOLATION": "single"}, check=False)
    told = "programs for `linux/386` cannot be run where owners are recorded: only those for this machine"
    assert (done.returncode, told in done.stderr) == (3, True), done.stderr
    aerogel(*words, env={"AEROGEL_ISOLATION": "root"})
