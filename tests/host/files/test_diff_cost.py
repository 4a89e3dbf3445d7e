"""What the layer of a step that wrote 50,000 files costs: below 2 s of processor time, and memory that does not grow with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.host, pytest.mark.slow]

# `ru_maxrss` would begin with what the process that started it has held.
DIFF = """
import os, resource, sys
from aerogel.files import jobs
upper, lower, out = sys.argv[1:]
fd = os.open(out, os.O_WRONLY | os.O_CREAT)
before = resource.getrusage(resource.RUSAGE_SELF)
done = jobs.diff({"upper": upper, "lowers": [lower], "epoch": 5}, [fd])
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(done["entries"], cpu, int(peak.split()[1]) // 1000)
"""


def test_50_000_entries(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    lower.mkdir()
    for number in range(50_000):
        if number % 100 == 0:
            folder = f"{upper}/usr/share/group{number // 5000}/package{number // 100}"
            os.makedirs(folder)
        fd = os.open(f"{folder}/file{number}", os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, b"%d\n" % number)
        os.close(fd)
    costs = []
    for attempt in range(2):  # the smaller one: the first looks at a cold tree
        words = [sys.executable, "-c", DIFF, str(upper), str(lower), str(tmp_path / f"{attempt}.tar")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
        entries, cpu_s, size_mb = done.stdout.split()
        assert int(entries) == 50_000 + 500 + 10 + 2
        costs.append(float(cpu_s))
    print(f"50,000 files: {costs} s of CPU, {size_mb} MB")
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    assert min(costs) < 2
    assert int(size_mb) < 120
