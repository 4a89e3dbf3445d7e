"""Documents decoded for the first time by several threads at once, which msgspec by itself does not survive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = str(Path(__file__).parents[3] / "src")
PROGRAM = """
import sys, threading
sys.setswitchinterval(1e-6)
from aerogel.distroless import catalogue
from aerogel.oci.types import ImageConfig, from_dict
CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "history": [{}]}
start, ended = threading.Barrier(8), []
def work(number):
    start.wait()
    found = from_dict(CONFIG, ImageConfig) if number % 2 else catalogue.declarations()["static"]
    ended.append(found.os if number % 2 else found.name)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
[each.start() for each in threads], [each.join() for each in threads]
print(sorted(ended))
"""


def test_first_decode_in_threads():
    """Without the lock of `prepare` four runs of five end with a segmentation fault."""
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env={"PYTHONPATH": SOURCE}, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout.strip()) == (0, str(["linux"] * 4 + ["static"] * 4)), done.stderr
