"""Builds the same things with aerogel and with its peers, and says what each took.

    ./bench/run                                   all workloads, all peers that are installed, 5 rounds, full size
    ./bench/run --scale 0.1 --workloads w1,w3 --peers docker --rounds 3
    ./bench/run --write                           also puts the table and the picture into bench/

In each round the peers run in a random order; figures are medians; the ratio is that to the best peer, the median over
rounds of the ratio within the round. Cold means: no image, no kept result, an empty registry; the page cache is warm
for all. The images of all peers are compared: same files, same modes, same owners, same content, or the run fails.
Targets and reasons: `docs/concepts/performance.md`. Standard library only; Debian packages: docker.io, buildah,
podman, docker-registry, busybox-static.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import report
import workloads
from measure import measure
from peers import PEERS, Aerogel, Peer, clean
from registry import Registry
from workloads import WORKLOADS, Workload

Files = dict[str, tuple[object, ...]]
HERE = Path(__file__).resolve().parent


@contextmanager
def state(folder: str, gigabytes: int) -> Iterator[Path]:
    """A fresh ext4 on a loop device for root, else a fresh folder."""
    made = Path(tempfile.mkdtemp(prefix="aerogel-bench-", dir=folder))
    mounted = False
    try:
        if os.getuid() == 0 and gigabytes:
            image = made / "disk"
            with image.open("wb") as file:
                file.truncate(gigabytes << 30)
            subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
            (made / "state").mkdir()
            mounted = (
                subprocess.run(
                    ["mount", "-o", "loop", image, made / "state"], capture_output=True, check=False
                ).returncode
                == 0
            )
        (made / "state").mkdir(exist_ok=True)
        yield made / "state"
    finally:
        if mounted:
            subprocess.run(["umount", made / "state"], capture_output=True, check=False)
        clean(made)


class Bench:
    """One run of the harness."""

    def __init__(self, options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.options = options
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        fast = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else folder
        registries = Path(tempfile.mkdtemp(prefix="aerogel-bench-", dir=fast))
        stack.callback(shutil.rmtree, registries, ignore_errors=True)
        self.bases, self.target = (Registry(registries / name) for name in ("bases", "target"))
        stack.callback(self.bases.stop)
        stack.callback(self.target.stop)
        self.peers: list[Peer] = []
        for name in ["aerogel", *options.peers]:
            kind = PEERS[name]
            if kind.missing:
                print(f"# {name} is left out: {kind.missing}", flush=True)
                continue
            peer = kind(folder / name)
            stack.callback(peer.stop)
            peer.start()
            self.peers.append(peer)
        self.aerogel = self.peers[0]
        assert isinstance(self.aerogel, Aerogel)

    def run(self, workload: Workload) -> None:
        if reason := self._prepare(workload):
            print(f"# {workload.name} is left out: {reason}", flush=True)
            return
        images: dict[str, Files] = {}
        for round_number in range(self.options.rounds):
            order = list(self.peers)
            random.Random(f"{workload.name} {round_number}").shuffle(order)
            for peer in order:
                self._round(workload, peer, round_number, images)
        for name, files in images.items():
            if files != images["aerogel"]:
                odd = dict(sorted(files.items() ^ images["aerogel"].items())[:6])
                raise SystemExit(f"error: the image of {workload.name} that {name} made is another: {odd}")
        shutil.rmtree(self.folder / workload.name)

    def _context(self, workload: Workload) -> Path:
        return self.folder / workload.name

    def _prepare(self, workload: Workload) -> str:
        """Makes the context and the bases it needs; a reason if that cannot be."""
        context = self._context(workload)
        workload.make(context, self.options.scale)
        dockerfile = (context / "Dockerfile").read_text()
        for name in (workloads.BASE, workloads.BIG_BASE, workloads.DEBIAN_BASE):
            if f"FROM {name}" not in dockerfile.replace(f"FROM {name}_", ""):
                continue
            try:
                self._base(name, context)
            except subprocess.CalledProcessError as error:
                shutil.rmtree(context)
                return f"its base could not be made: {(error.stderr or b'').decode(errors='replace')[-300:]}"
            image = f"{self.bases.host}/bench/{name.lower().replace('_', '-')}"
            dockerfile = dockerfile.replace(f"FROM {name}\n", f"FROM {image}\n").replace(
                f"FROM {name} ", f"FROM {image} "
            )
        (context / "Dockerfile").write_text(dockerfile)
        return ""

    def _base(self, name: str, context: Path) -> None:
        """Pushes a base to the registry of bases, with aerogel."""
        image = f"{self.bases.host}/bench/{name.lower().replace('_', '-')}"
        made, flags = self.folder / "base", list[str]()
        if name == workloads.BASE:
            workloads.base(made)
        elif name == workloads.BIG_BASE:
            workloads.big_base(made, self.options.scale)
        else:
            workloads.debian_base(made)
            flags = ["--target=base"]
            self._aerogel("build", "-q", "--push", "--target=debs", "-t", f"{self.bases.host}/bench/debs", str(made))
            self.bases.unpack("bench/debs", context / "debs")
        self._aerogel("build", "-q", "--push", "-t", image, *flags, str(made))
        shutil.rmtree(made)

    def _aerogel(self, *words: str) -> None:
        subprocess.run([*self.aerogel.command, *words], env=self.aerogel.environ, check=True, capture_output=True)

    def _forget(self, peer: Peer) -> None:
        for words in peer.forgets():
            subprocess.run(words, env=peer.environ, capture_output=True, check=False)

    def _round(self, workload: Workload, peer: Peer, round_number: int, images: dict[str, Files]) -> None:
        context, name = self._context(workload), f"bench/{workload.name}-{peer.name}"
        tag = f"{self.target.host}/{name}"
        if "cold" in workload.runs:
            self._forget(peer)
            self.target.wipe()
        else:
            # The base is at hand, and for `again` every result.
            self._quietly(peer.builds(context, tag, no_cache=False, push=False, jobs=workload.jobs), peer)
            if "again" in workload.runs:
                self._quietly(peer.builds(context, tag, no_cache=False, push=False, jobs=workload.jobs), peer)
        os.sync()
        for variant in workload.runs:
            if variant == "touched":
                path = context / workload.touch
                path.write_bytes(path.read_bytes() + f"// touched in round {round_number}\n".encode())
            push = workload.push and variant != "again"
            if variant == "again" and "cold" in workload.runs:
                self._quietly(peer.builds(context, tag, no_cache=False, push=False, jobs=workload.jobs), peer)
            words = peer.builds(context, tag, no_cache=variant == "steps", push=push, jobs=workload.jobs)
            self._measured(workload, variant, peer, round_number, words)
            if variant in (workload.runs[0], "touched") and round_number == 0:
                if not workload.push:
                    self._quietly(peer.pushes(tag), peer)
                size = self.target.size(name)
                self.rows[-1]["size"] = size
                if variant == workload.runs[0]:
                    images[peer.name] = self.target.contents(name)
        if workload.touch:
            path = context / workload.touch
            path.write_bytes(path.read_bytes().partition(b"// touched")[0])

    def _quietly(self, commands: list[list[str]], peer: Peer) -> None:
        for words in commands:
            done = subprocess.run(
                words, env=peer.environ, capture_output=True, text=True, check=False, preexec_fn=peer.group.enter
            )
            if done.returncode:
                raise SystemExit(f"error: {' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _measured(
        self, workload: Workload, variant: str, peer: Peer, round_number: int, commands: list[list[str]]
    ) -> None:
        load = os.getloadavg()[0]
        costs = [measure(words, peer.group, peer.environ) for words in commands]
        for cost, words in zip(costs, commands, strict=True):
            if cost.status:
                raise SystemExit(f"error: {' '.join(words)}\n{cost.output[-3000:]}")
        row = {
            "workload": workload.name,
            "variant": variant,
            "peer": peer.name,
            "round": round_number,
            "wall_s": round(sum(cost.wall_s for cost in costs), 4),
            "cpu_s": round(sum(cost.cpu_s for cost in costs), 4),
            "memory_mb": round(max(cost.memory_mb for cost in costs), 1),
            "load": round(load, 1),
            "commands": [" ".join(words) for words in commands] if round_number == 0 else [],
        }
        self.rows.append(row)
        print(
            f"{workload.name} {variant:<8} {peer.name:<8} round {round_number + 1}: {row['wall_s']:9.3f} s wall "
            f"{row['cpu_s']:9.3f} s CPU {row['memory_mb']:8.1f} MB",
            flush=True,
        )


def machine(folder: Path) -> dict[str, Any]:
    """What tells this machine from others: processors, what a hash and a new file cost on it."""
    data = bytes(1 << 20)
    began = time.perf_counter()
    for _ in range(100):
        hashlib.sha256(data)
    sha = 100 / (time.perf_counter() - began)
    place = folder / "calibration"
    place.mkdir()
    began = time.perf_counter()
    for number in range(2000):
        os.close(os.open(place / str(number), os.O_CREAT | os.O_WRONLY))
    create = (time.perf_counter() - began) / 2000
    shutil.rmtree(place)
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "processors": len(os.sched_getaffinity(0)),
        "model": model,
        "kernel": platform.release(),
        "sha256_mb_s": round(sha * 1.048),
        "create_us": round(create * 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads, 1 is what is published")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), metavar="W1,...")
    parser.add_argument("--peers", default="docker,buildah,podman", metavar="NAME,...", help="`none` for aerogel alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default="/var/tmp", help="where the state of all is kept meanwhile")
    parser.add_argument("--disk", type=int, default=24, metavar="GB", help="size of the fresh ext4; 0: a plain folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="adds the rows to this file, one JSON object a line")
    parser.add_argument("--write", action="store_true", help="write bench/results.json, RESULTS.md and results.svg")
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name not in ("none", "aerogel", "")]
    for name in options.workloads.split(","):
        if name not in WORKLOADS:
            parser.error(f"there is no workload `{name}`; there are {', '.join(WORKLOADS)}")
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"there is no peer `{name}`; there are {', '.join(PEERS)}")
    if shutil.which("docker-registry") is None:
        parser.error("there is no `docker-registry`; on Debian: apt-get install docker-registry")
    # Daemons and mounts do not outlive the harness, whoever ends it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: sys.exit(128 + got))
    with state(options.folder, options.disk) as folder, ExitStack() as stack:
        facts = machine(folder)
        bench = Bench(options, folder, stack)
        facts["versions"] = {peer.name: " ".join(peer.version().split()) for peer in bench.peers}
        facts["scale"] = options.scale
        print(f"# {json.dumps(facts)}", flush=True)
        for name in options.workloads.split(","):
            bench.run(WORKLOADS[name])
    if options.json:
        with options.json.open("a") as file:
            file.writelines(json.dumps({**row, "machine": facts}) + "\n" for row in bench.rows)
    print(report.table(bench.rows))
    if options.write:
        report.write(HERE, bench.rows, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
