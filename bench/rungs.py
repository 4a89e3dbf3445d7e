"""What a step costs on each rung that works here, beside docker, buildah and runc, and what else the sandbox costs.

    PYTHONPATH=src python bench/rungs.py [--steps 50] [--folder DIRECTORY] [--peers] [--gcc] [--rungs root,single]

`bare` is the sandbox alone: the program `true` of busybox in a root that is thrown away; `run` is one RUN more in a
build (a build of 44 steps less one of 4, by 40), where `true` writes nothing and `write` a file. `--peers` measures
the same two builds and containers with what is installed of docker, buildah and runc, in turns with ours. `--user`, for root,
measures the rungs that ordinary users have as that account after that, by `--python` if it may not read this one: subid needs a range of ids in /etc/subuid, proot the
program. `memory` is the most that the main process and a process of the helper held of RAM in such a build. `--gcc` adds
`apt-get install gcc` in `debian:trixie` on each rung (needs network), with the memory of the whole. The diff of a layer of
50,000 entries comes last. Wall times are medians, processor times those of all processes, in milliseconds unless they say
seconds; memory is the peak of all processes, in MB. With docker the daemon's processor time is counted too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pwd
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import workloads
from measure import Group, measure
from peers import PEERS, Peer, clean

from aerogel.sandbox.launch import Helper
from aerogel.sandbox.plain import descendants
from aerogel.sandbox.probe import probe
from aerogel.sandbox.spec import Rootfs, Sandbox

HERE = Path(__file__).resolve().parent
PATH = os.pathsep.join([str(HERE.parent / "src"), *(path for path in sys.path if path.endswith("site-packages"))])
FEW, MANY = 4, 44
COPIED = ("chroot", "proot")
"""Where a root that may not be written to is none."""
ENTRIES = 50_000
APT = "apt-get update && apt-get install -y --no-install-recommends gcc"


def processor_s() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total


def row(name: str, what: str, wall: float, cpu: float, note: str = "") -> None:
    print(f"{name:10} {what:22} {wall:10.1f} {cpu:10.1f}   {note}".rstrip(), flush=True)


def bare(rung: str, folder: Path, steps: int) -> None:
    """The sandbox without a build; the processor time is that of all steps less that of none."""

    def run(turns: int) -> tuple[list[float], float]:
        times, before = [], processor_s()
        with Helper.start(str(folder / f"state-{rung}"), isolation=rung, preload=()) as helper:
            sandbox = Sandbox(argv=("true",), root=Rootfs(lowers=(str(folder / "base"),), readonly=rung not in COPIED))
            for _ in range(turns):
                began = time.perf_counter()
                with helper.run(sandbox, stdout=1, stderr=2) as process:
                    ended = process.wait()
                times.append((time.perf_counter() - began) * 1000)
                if ended.code:
                    raise SystemExit(f"{rung}: {ended}")
        return times, processor_s() - before

    start = min(run(1)[1] for _ in range(3))
    times, spent = run(steps + 1)
    tenth = statistics.quantiles(times[1:], n=10)[0]
    row(rung, "bare", statistics.median(times[1:]), (spent - start) * 1000 / steps, f"tenth {tenth:.1f}")


def memory(rung: str, folder: Path, context: Path) -> None:
    """The peaks of resident memory of the main process and of the largest process of the helper, in MB."""
    state = folder / f"aerogel-{rung}"
    environ = {**os.environ, "AEROGEL_ROOT": str(state), "PYTHONPATH": PATH}
    words = [sys.executable, "-m", "aerogel", "build", "-q", "--no-cache", f"--isolation={rung}", str(context)]
    peaks = {"main": 0, "helper": 0}
    with subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in [process.pid, *descendants(process.pid)]:
                with contextlib.suppress(OSError):
                    who = "helper" if b"helper.py" in Path(f"/proc/{pid}/cmdline").read_bytes() else "main"
                    if pid == process.pid or who == "helper":
                        text = Path(f"/proc/{pid}/status").read_text()
                        held = [int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")]
                        peaks[who] = max(peaks[who], *held, 0)
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{rung}: the build that memory is measured in ended with {process.returncode}")
    print(
        f"{rung:10} {'memory, MB':22} main {peaks['main'] / 1024:.0f}, helper {peaks['helper'] / 1024:.0f}", flush=True
    )


def as_user(name: str, options: argparse.Namespace) -> None:
    """The same as an ordinary account, from a copy of this checkout that it may read."""
    account = pwd.getpwnam(name)
    place = Path(tempfile.mkdtemp(prefix="aerogel-rungs-user-", dir=options.folder))
    try:
        for part in ("src", "bench"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(HERE.parent / part, place / "checkout" / part, ignore=ignored)
        (place / "work").mkdir()
        for path in (place, *place.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
        words = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
        words += [
            options.python or sys.executable,
            str(place / "checkout/bench/rungs.py"),
            "--rungs=subid,single,proot",
        ]
        words += [f"--steps={options.steps}", f"--rounds={options.rounds}", f"--folder={place / 'work'}"]
        environ = {**os.environ, "HOME": account.pw_dir, "PYTHONPATH": f"{place}/checkout/src:{PATH}"}
        environ = {key: value for key, value in environ.items() if not key.startswith("XDG_")}
        print(f"# as `{name}`", flush=True)
        done = subprocess.run([*words, *(["--gcc"] if options.gcc else [])], env=environ, cwd=place, check=False)
        if done.returncode:
            print(f"# as `{name}` it ended with {done.returncode}")
    finally:
        clean(place)


def contexts(folder: Path, base: str) -> dict[str, tuple[Path, Path]]:
    """Two builds of each kind, with few and with many steps."""
    made = {}
    for kind in ("true", "write"):
        pair = []
        for number in (FEW, MANY):
            context = folder / f"{kind}-{number}"
            context.mkdir()
            lines = [f"RUN true {k}" if kind == "true" else f"RUN echo {k} > /w{k}" for k in range(number)]
            (context / "Dockerfile").write_text("\n".join([f"FROM {base}", *lines]) + "\n")
            pair.append(context)
        made[kind] = (pair[0], pair[1])
    return made


class Turn:
    """One builder: `build` gives wall and processor time of a build in seconds."""

    def __init__(self, name: str, build: Callable[[Path], tuple[float, float]]) -> None:
        self.name = name
        self.build = build
        self.rows: dict[str, list[tuple[float, float]]] = {"true": [], "write": []}


def ours(rung: str, folder: Path, base: Path) -> Turn:
    state = folder / f"aerogel-{rung}"
    environ = {**os.environ, "AEROGEL_ROOT": str(state), "PYTHONPATH": PATH}

    def run(*words: str) -> tuple[float, float]:
        before, began = processor_s(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "aerogel", *words], env=environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{rung}: {done.stderr}")
        return time.perf_counter() - began, processor_s() - before

    run("build", "-q", "-t", "bench-base", str(base))
    return Turn(rung, lambda context: run("build", "-q", "--no-cache", f"--isolation={rung}", str(context)))


def theirs(peer: Peer, base: Path) -> Turn:
    def run(context: Path, *, no_cache: bool, tag: str) -> tuple[float, float]:
        wall = cpu = 0.0
        for words in peer.builds(context, tag, no_cache=no_cache, push=False, jobs=1):
            cost = measure(words, peer.group, peer.environ)
            if cost.status:
                raise SystemExit(f"{peer.name}: {cost.output[-2000:]}")
            wall, cpu = wall + cost.wall_s, cpu + cost.cpu_s
        return wall, cpu

    run(base, no_cache=False, tag="localhost/bench-base")
    return Turn(peer.name, lambda context: run(context, no_cache=True, tag="localhost/bench-steps"))


def builds(turns: list[tuple[Turn, dict[str, tuple[Path, Path]]]], rounds: int) -> None:
    """All builders in turns; the figures of one step."""
    for _ in range(rounds):
        for turn, made in turns:
            for kind, (few, many) in made.items():
                small, large = turn.build(few), turn.build(many)
                turn.rows[kind].append(tuple((b - a) * 1000 / (MANY - FEW) for a, b in zip(small, large, strict=True)))
    for turn, _ in turns:
        for kind, rows in turn.rows.items():
            wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            row(turn.name, f"run {kind}", wall, cpu, f"{rounds} rounds")


def runc(folder: Path, steps: int) -> None:
    """`runc run` of the same program."""
    if shutil.which("runc") is None:
        return
    bundle = folder / "bundle"
    shutil.copytree(folder / "base", bundle / "rootfs", symlinks=True)
    (bundle / "rootfs/proc").mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": ["/bin/true"], "terminal": False}
    (bundle / "config.json").write_text(json.dumps(config))
    times, before = [], processor_s()
    for turn in range(steps):
        began = time.perf_counter()
        done = subprocess.run(
            ["runc", "--root", str(folder / "runc"), "run", f"b{turn}"],
            cwd=bundle,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"# runc is left out: {done.stderr.strip()[-200:]}")
            return
        times.append((time.perf_counter() - began) * 1000)
    row("runc", "bare", statistics.median(times), (processor_s() - before) * 1000 / steps)


def gcc(rung: str, folder: Path) -> None:
    """A real installation; wall and processor time in seconds, and the greatest process."""
    state = folder / "gcc"
    environ = {**os.environ, "AEROGEL_ROOT": str(state), "PYTHONPATH": PATH}
    context = folder / "gcc-context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(f"FROM debian:trixie\nRUN {APT}\n")
    words = [sys.executable, "-m", "aerogel", "build", "-q", f"--isolation={rung}"]
    (folder / "gcc-base").mkdir(exist_ok=True)
    (folder / "gcc-base/Dockerfile").write_text("FROM debian:trixie\nRUN true\n")
    subprocess.run([*words, str(folder / "gcc-base")], env=environ, check=True, capture_output=True)
    group = Group(f"gcc-{rung}")
    cost = measure([*words, "--no-cache", str(context)], group, environ)
    group.close()
    if cost.status:
        print(f"# gcc on {rung} is left out: {cost.output[-500:]}")
        return
    row(rung, "apt-get gcc, seconds", cost.wall_s, cost.cpu_s, f"{cost.memory_mb:.0f} MB in all processes")


def diff(folder: Path) -> None:
    """The layer of a step that wrote 50,000 files in 500 folders; in seconds."""
    from aerogel.files.diff import write_diff

    upper, lower = folder / "upper", folder / "lower"
    lower.mkdir()
    for number in range(ENTRIES // 100):
        directory = upper / f"d{number % 20}" / f"e{number}"
        directory.mkdir(parents=True)
        for k in range(100):
            (directory / f"file-{k}.txt").write_bytes(b"%d\n" % k * (k % 40))
    out = io.BytesIO()
    fds = [os.open(path, os.O_RDONLY) for path in (upper, lower)]
    before, began = processor_s(), time.perf_counter()
    entries = write_diff(out.write, fds[0], fds[1:], overlay="trusted")
    row(
        "diff",
        f"{entries} entries, s",
        time.perf_counter() - began,
        processor_s() - before,
        f"{out.tell() >> 20} MB of tar",
    )
    for fd in fds:
        os.close(fd)


@contextlib.contextmanager
def place(folder: str | None) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="aerogel-rungs-", dir=folder))
    try:
        yield made
    finally:
        clean(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--rungs", default="")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--gcc", action="store_true")
    parser.add_argument("--user", default="")
    parser.add_argument("--python", default="", help="an interpreter that the user may read")
    options = parser.parse_args()
    own(options)
    if options.user:
        as_user(options.user, options)


def own(options: argparse.Namespace) -> None:
    """What this account can measure."""
    with place(options.folder) as folder, contextlib.ExitStack() as stack:
        workloads.base(folder / "base")
        works = [finding.rung for finding in probe(str(folder / "probe")).findings if finding.works]
        rungs = [rung for rung in works if not options.rungs or rung in options.rungs.split(",")]
        print(f"{'':10} {'':22} {'wall ms':>10} {'cpu ms':>10}   load {os.getloadavg()[0]:.1f}")
        for rung in rungs:
            bare(rung, folder, options.steps)
        made = contexts(folder, "bench-base")
        turns = [(ours(rung, folder, folder / "base"), made) for rung in rungs]
        if options.peers:
            runc(folder, options.steps)
            (folder / "peers").mkdir()
            others = contexts(folder / "peers", "localhost/bench-base")
            for name in ("docker", "buildah"):
                if PEERS[name].missing:
                    print(f"# {name} is left out: {PEERS[name].missing}")
                    continue
                peer = PEERS[name](folder / name)
                stack.callback(peer.stop)
                peer.start()
                turns.append((theirs(peer, folder / "base"), others))
        builds(turns, options.rounds)
        for rung in rungs:
            memory(rung, folder, made["write"][1])
        if os.getuid() == 0:
            diff(folder)
        if options.gcc:
            for rung in rungs:
                gcc(rung, folder)


if __name__ == "__main__":
    main()
