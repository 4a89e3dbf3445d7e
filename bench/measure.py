"""What a command costs: wall time, processor seconds of everything it caused, peak of anonymous memory.

Daemon and children are counted by a control group of their own (v1 `cpuacct` and `memory`, or v2) where this process may
make one; otherwise by what the kernel tells of children that were waited for, and samples of their processes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

_SAMPLE_S = 0.01
_ROOT = Path("/sys/fs/cgroup")


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float
    memory_mb: float
    """Peak of anonymous memory; the resident size of the process if it was too short to be sampled."""
    status: int
    output: str


class Group:
    """A control group, or nothing where none can be made. `words` is how it is called below the root."""

    def __init__(self, name: str) -> None:
        self.name = f"aerogel-bench-{os.getpid()}/{name}"
        self.folders: list[Path] = []
        try:
            if (_ROOT / "cpuacct").is_dir():
                for kind in ("cpuacct", "memory"):
                    folder = _ROOT / kind / self.name
                    folder.mkdir(parents=True, exist_ok=True)
                    self.folders.append(folder)
            elif (_ROOT / "cgroup.controllers").exists():
                (_ROOT / self.name).parent.mkdir(exist_ok=True)
                for level in (_ROOT, (_ROOT / self.name).parent):
                    (level / "cgroup.subtree_control").write_text("+cpu +memory")
                (_ROOT / self.name).mkdir(exist_ok=True)
                self.folders.append(_ROOT / self.name)
        except OSError:
            self.folders = []

    def enter(self) -> None:
        """Called in a child before it becomes the program."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def cpu_s(self) -> float:
        if not self.folders:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            return used.ru_utime + used.ru_stime
        folder = self.folders[0]
        if (folder / "cpuacct.usage").exists():
            return int((folder / "cpuacct.usage").read_text()) / 1e9
        return int((folder / "cpu.stat").read_text().split()[1]) / 1e6

    def memory_bytes(self, pid: int) -> int:
        if not self.folders:
            return _tree_memory(pid)
        for line in (self.folders[-1] / "memory.stat").read_text().splitlines():
            key, _, value = line.partition(" ")
            if key in ("total_rss", "anon"):
                return int(value)
        return 0

    def close(self) -> None:
        for folder in self.folders:
            for path in [*sorted((one for one in folder.rglob("*") if one.is_dir()), reverse=True), folder]:
                try:
                    path.rmdir()
                except OSError:
                    continue


def _tree_memory(pid: int) -> int:
    """Anonymous memory of a process and those below it."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry))
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        todo += parents.get(one, [])
        try:
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))
    return total


def measure(words: list[str], group: Group, environ: dict[str, str], timeout_s: float = 1800) -> Cost:
    """Runs a command in the group to its end."""
    before = group.cpu_s()
    began = time.perf_counter()
    process = subprocess.Popen(
        words,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=group.enter,
    )
    peak, done = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, group.memory_bytes(process.pid))
            done.wait(_SAMPLE_S)

    watcher = threading.Thread(target=sample)
    watcher.start()
    killer = threading.Timer(timeout_s, process.kill)
    killer.start()
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    killer.cancel()
    done.set()
    watcher.join()
    process.stdout.close()
    memory_mb = max(peak / 1e6, usage.ru_maxrss / 1e3 if wall_s < 5 * _SAMPLE_S else 0.0)
    return Cost(wall_s, group.cpu_s() - before, memory_mb, process.returncode, output.decode("utf-8", "replace"))
