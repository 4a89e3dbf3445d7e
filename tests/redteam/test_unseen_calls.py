"""Where owners are recorded, no system call goes round the record: it is refused, and the step fails.

On the other rungs the same programs do what they ask for. Debian packages: proot, util-linux.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from forged import ROOM, compat, program
from process import Aerogel

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the forged programs are of x86_64"),
    pytest.mark.skipif(os.getuid() != 0, reason="root has all of these rungs"),
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


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_call_goes_round_the_record(tmp_path: Path, name: str) -> None:
    tool, said = PROGRAMS[name]
    (tmp_path / "tool").write_bytes(tool)
    (tmp_path / "tool").chmod(0o755)
    run = "RUN --security=insecure" if "insecure" in name else "RUN"
    (tmp_path / "Dockerfile").write_text(f'FROM scratch\nCOPY tool /tool\n{run} ["/tool"]\n')
    aerogel = Aerogel(tmp_path / "state")
    words = ("build", "--progress=plain", "--allow=security.insecure", "--no-cache", str(tmp_path))
    done = aerogel(*words, env={"AEROGEL_ISOLATION": "single"}, check=False)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
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
