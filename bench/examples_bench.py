"""Cold build and no-op rebuild of the examples, sizes, and the time to compose a base: the figures of the README.

    python bench/examples_bench.py                 # all examples, one cold build and five rebuilds of each
    python bench/examples_bench.py --write-readme  # also renews the table of sizes in README.md
    python bench/examples_bench.py server-node     # one of them
    python bench/examples_bench.py --no-build      # rebuilds and compose only, with a store from an earlier --state

Every example starts from an empty store, but the packages are downloaded once before (`--cold-packages` leaves that
out). CPU seconds are those of all processes, RUN steps included; memory is the highest resident size of aerogel's main
process and of its helper together, without the programs that RUN steps start.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {
    "calculator-go": "`scratch`",
    "calculator-python": "`gcr.io/distroless/python3`",
    "dsn-python": "`aerogel/python3+libpq5:nonroot`",
    "greeter-go": "`aerogel/static:nonroot`",
    "hello-cc": "`gcr.io/distroless/cc`",
    "money-dotnet": "`aerogel/dotnet:nonroot`",
    "server-java": "`aerogel/java21:nonroot`",
    "server-node": "`aerogel/nodejs24:nonroot`",
    "shapes-cmake": "`aerogel/cc:nonroot`",
    "static-c": "`gcr.io/distroless/static:nonroot`",
}
BEGIN, END = "<!-- sizes: begin -->\n", "<!-- sizes: end -->\n"


class Figures(NamedTuple):
    """One run: seconds of wall and CPU, and MB of aerogel's own memory."""

    wall_s: float
    cpu_s: float
    memory_mb: float
    output: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXAMPLE", default=list(EXAMPLES))
    parser.add_argument("--state", type=Path, help="folder for the stores; default: a temporary one")
    parser.add_argument("--rebuilds", type=int, default=5, metavar="N")
    parser.add_argument("--write-readme", action="store_true")
    parser.add_argument("--cold-packages", action="store_true")
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(EXAMPLES):
        parser.error(f"no such example: {', '.join(sorted(unknown))}")
    if options.write_readme and set(options.names) != set(EXAMPLES):
        parser.error("--write-readme is for all examples")
    made = None if options.state else tempfile.mkdtemp(prefix="aerogel-bench-")
    state = options.state or Path(made or "")
    try:
        rows = [example(name, state, options) for name in options.names]
        print_table(rows)
        if "calculator-python" in options.names:
            compose(state)
        if options.write_readme:
            write_readme(rows)
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)
    return 0


def example(name: str, state: Path, options: argparse.Namespace) -> dict:
    """Builds one example cold and then again."""
    root = state / name
    if not options.no_build:
        if not options.cold_packages:
            measure(root, "build", f"examples/{name}", "-q")
            for folder in ("data", "cache/actions-v1", "cache/snapshots-v1", "cache/digests-v1"):
                shutil.rmtree(root / folder, ignore_errors=True)
        cold = measure(root, "build", f"examples/{name}", "-t", name, "--json", "--progress=quiet")
    else:
        cold = Figures(0.0, 0.0, 0.0, "")
    again = [
        measure(root, "build", f"examples/{name}", "-t", name, "--json", "--progress=quiet")
        for _ in range(options.rebuilds)
    ]
    built = json.loads(again[-1].output)
    final = built["size"]
    stage = built["stages"]["build"]
    unpacked = sum(each for key, each in built["stages"].items() if key != "build")
    return {"name": name, "cold": cold, "again": again, "size": final, "build": stage, "unpacked": unpacked}


def measure(root: Path, *words: str) -> Figures:
    """Runs aerogel and watches it."""
    env = {**os.environ, "AEROGEL_ROOT": str(root), "PYTHONPATH": str(ROOT / "src")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "aerogel", *words], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )
    watch = Watch(process.pid)
    output, _ = process.communicate()
    wall = time.monotonic() - began
    watch.end()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"aerogel {' '.join(words)} ended with {process.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Figures(wall, cpu, watch.peak_kb / 1000, output)


class Watch(threading.Thread):
    """Samples the memory of a process and of its helper."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak_kb = 0
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.peak_kb = max(self.peak_kb, sum(resident_kb(pid) for pid in [self.pid, *helpers(self.pid)]))

    def end(self) -> None:
        self.over.set()
        self.join()


def helpers(pid: int) -> list[int]:
    """The helper process: the child that runs `helper.py`."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if b"helper.py" in Path(f"/proc/{one}/cmdline").read_bytes()]
    except OSError:
        return []


def resident_kb(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def print_table(rows: list[dict]) -> None:
    print(
        "| example | cold wall s | cold CPU s | memory MB | no-op wall s | no-op CPU s | no-op MB | stage MB | image MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        cold, again = row["cold"], row["again"]
        print(
            f"| {row['name']} | {cold.wall_s:.1f} | {cold.cpu_s:.1f} | {cold.memory_mb:.0f} "
            f"| {statistics.median(one.wall_s for one in again):.3f} | {statistics.median(one.cpu_s for one in again):.3f} "
            f"| {max(one.memory_mb for one in again):.0f} | {row['build'] / 1e6:.1f} | {row['size'] / 1e6:.2f} |"
        )


def compose(state: Path) -> None:
    """Composes python3 anew, three times, from downloaded packages."""
    root = state / "calculator-python"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text("FROM gcr.io/distroless/python3\n")
        runs = []
        for _ in range(3):
            for part in ("data", "cache/actions-v1"):
                shutil.rmtree(root / part, ignore_errors=True)
            runs.append(measure(root, "build", folder, "-q"))
    print(
        f"\ncompose python3 from downloaded packages: {statistics.median(one.wall_s for one in runs):.2f} s wall, "
        f"{statistics.median(one.cpu_s for one in runs):.2f} s CPU, {max(one.memory_mb for one in runs):.0f} MB"
    )


def write_readme(rows: list[dict]) -> None:
    """Puts the sizes between the marks of README.md."""
    lines = [
        "| example | base of the final stage | build stage | image | times smaller |\n",
        "|---|---|---|---|---|\n",
    ]
    lines += [
        f"| [{row['name']}](examples/{row['name']}) | {EXAMPLES[row['name']]} | {row['build'] / 1e6:.0f} MB "
        f"| {row['size'] / 1e6:.2f} MB | {row['build'] / row['size']:.0f} |\n"
        for row in rows
    ]
    path = ROOT / "README.md"
    text = path.read_text()
    head, _, rest = text.partition(BEGIN)
    path.write_text(head + BEGIN + "".join(lines) + END + rest.partition(END)[2])


if __name__ == "__main__":
    sys.exit(main())
