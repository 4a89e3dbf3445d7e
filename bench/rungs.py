"""What a step costs on each rung that works here: the program `true` of busybox, wall and processor time.

    PYTHONPATH=src python bench/rungs.py [STEPS] [DIRECTORY]

Times are those of this process and of everything below it, the helper included, in milliseconds: median and tenth
percentile of the wall time, mean of the processor time.
"""

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from aerogel.sandbox.launch import Helper
from aerogel.sandbox.probe import probe
from aerogel.sandbox.spec import Rootfs, Sandbox


def processor_s() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total


def measure(rung: str, folder: Path, steps: int) -> str:
    """One line of the table."""
    layer = folder / "layer"
    times = []
    before = processor_s()
    with Helper.start(str(folder / f"state-{rung}"), isolation=rung, preload=()) as helper:
        for _ in range(steps):
            began = time.perf_counter()
            with helper.run(Sandbox(argv=("true",), root=Rootfs(lowers=(str(layer),))), stdout=1, stderr=2) as process:
                ended = process.wait()
            times.append((time.perf_counter() - began) * 1000)
            if ended.code:
                raise SystemExit(f"{rung}: {ended}")
    spent = (processor_s() - before) * 1000 / steps
    tenth = statistics.quantiles(times, n=10)[0]
    return f"{rung:8} {statistics.median(times):8.1f} {tenth:8.1f} {spent:8.1f}"


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        folder = Path(name)
        (folder / "layer/bin").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", folder / "layer/bin/busybox")
        os.symlink("busybox", folder / "layer/bin/true")
        print(f"{'rung':8} {'median':>8} {'tenth':>8} {'cpu':>8}   milliseconds, {steps} steps")
        for finding in probe(str(folder / "probe")).findings:
            if finding.works:
                print(measure(finding.rung, folder, steps))


if __name__ == "__main__":
    main()
