"""Pulls, pushes and pushes again an image with aerogel and with its peers, over loop-back, and says what each took.

    python3 bench/registry_bench.py                              500 MB in 8 layers, 5 rounds, all peers that are installed
    python3 bench/registry_bench.py --size 40 --rounds 2 --peers skopeo --json rows.jsonl

The image lies in Debian's docker-registry, whose files are on tmpfs where there is one. *pull* begins with an empty store,
*push* with an empty registry, *again* sends what is there already. `skopeo` copies to and from an OCI layout, so it does
not unpack; docker unpacks and packs. In each round the peers run in a random order; figures are medians, processor
seconds are those of the tool and its daemon, not the registry's; the ratio is that to the best peer, the median over rounds
of the ratio within the round. What arrives is compared: the digest of the manifest is the same everywhere but at docker,
which packs anew. Standard library only; Debian packages: docker-registry, skopeo, docker.io.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measure import Cost, measure
from peers import Aerogel, Docker, Peer, clean
from registry import Registry

ACTIONS = ("pull", "push", "again")
_WORDS = b"the quick brown layer jumps over a lazy registry and its seven mirrors of yesterday ".split()


class Skopeo(Peer):
    name = "skopeo"
    missing = "" if os.path.exists("/usr/bin/skopeo") else "not installed"

    def version(self) -> str:
        return subprocess.run(["/usr/bin/skopeo", "--version"], capture_output=True, text=True, check=False).stdout


class _Tool:
    """What is the same for all: how a peer pulls, pushes and forgets."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def words(self, action: str, image: str) -> list[str]:
        raise NotImplementedError

    def forget(self, image: str) -> None:
        raise NotImplementedError


class _OfAerogel(_Tool):
    def words(self, action: str, image: str) -> list[str]:
        return [*self._command(), "pull" if action == "pull" else "push", "--progress=plain", image]

    def _command(self) -> list[str]:
        return self.peer.command if isinstance(self.peer, Aerogel) else []

    def forget(self, image: str) -> None:
        del image
        shutil.rmtree(self.peer.folder / "root" / "data", ignore_errors=True)


class _OfSkopeo(_Tool):
    def words(self, action: str, image: str) -> list[str]:
        layout = f"oci:{self.peer.folder}/layout:it"
        if action == "pull":
            return ["/usr/bin/skopeo", "copy", "--src-tls-verify=false", f"docker://{image}", layout]
        return ["/usr/bin/skopeo", "copy", "--dest-tls-verify=false", layout, f"docker://{image}"]

    def forget(self, image: str) -> None:
        del image
        shutil.rmtree(self.peer.folder / "layout", ignore_errors=True)


class _OfDocker(_Tool):
    def words(self, action: str, image: str) -> list[str]:
        return ["/usr/bin/docker", "pull" if action == "pull" else "push", image]

    def forget(self, image: str) -> None:
        subprocess.run(["/usr/bin/docker", "rmi", "-f", image], env=self.peer.environ, capture_output=True, check=False)


TOOLS: dict[str, tuple[type[Peer], Callable[[Peer], _Tool]]] = {
    "aerogel": (Aerogel, _OfAerogel),
    "skopeo": (Skopeo, _OfSkopeo),
    "docker": (Docker, _OfDocker),
}


def _content(seed: int, size: int) -> bytes:
    """Half of it text, half of it noise, in pieces of 64 KiB: gzip makes about two thirds of it."""
    source = random.Random(seed)
    pieces = []
    for number in range(size >> 16):
        if number % 2:
            pieces.append(source.randbytes(1 << 16))
        else:
            words = source.choices(_WORDS, k=1 << 14)
            pieces.append(b" ".join(words)[: 1 << 16].ljust(1 << 16))
    return b"".join(pieces)


def make_layout(folder: Path, size: int, layers: int) -> None:
    """An OCI layout with one image: `size` bytes of blobs in `layers` gzip layers."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    diff_ids, found = [], []
    for number in range(layers):
        buffer, packer = io.BytesIO(), zlib.compressobj(1, wbits=31)
        plain = hashlib.sha256()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for part in range(20):
                data = _content(number * 100 + part, int(size / layers / 20 * 1.42))
                entry = tarfile.TarInfo(f"layer{number}/file{part}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        plain.update(buffer.getbuffer())
        diff_ids.append(f"sha256:{plain.hexdigest()}")
        packed = packer.compress(buffer.getbuffer()) + packer.flush()
        found.append(put(packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config["history"] = [{"created_by": f"layer {number}"} for number in range(layers)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": found,
    }
    top = put(json.dumps(manifest).encode(), manifest["mediaType"])
    top["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, folder: Path, fast: Path) -> None:
        self.options = options
        self.rows: list[dict[str, Any]] = []
        self.source, self.target = Registry(fast / "source"), Registry(fast / "target")
        layout = folder / "layout"
        make_layout(layout, options.size * 1_000_000, options.layers)
        self.image = f"{self.source.host}/bench/image:latest"
        words = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:it", f"docker://{self.image}"]
        subprocess.run(words, check=True)
        shutil.rmtree(layout)
        self.tools: dict[str, _Tool] = {}
        for name in ("aerogel", *options.peers.split(",")):
            if name not in TOOLS:
                continue
            kind, make = TOOLS[name]
            if kind.missing:
                print(f"{name}: {kind.missing}")
                continue
            peer = kind(folder / name)
            if isinstance(peer, Aerogel) and options.python:
                peer.command = [options.python, "-I", str(Path(__file__).resolve().parents[1] / "tools/start.py")]
            peer.start()
            self.tools[name] = make(peer)

    def close(self) -> None:
        for tool in self.tools.values():
            tool.peer.stop()
        self.source.stop()
        self.target.stop()

    def run(self) -> None:
        order = list(self.tools)
        for number in range(self.options.rounds):
            random.shuffle(order)
            for name in order:
                self._one(name, number)

    def _one(self, name: str, number: int) -> None:
        tool = self.tools[name]
        tool.forget(self.image)
        self._row(name, number, "pull", tool.words("pull", self.image))
        there = f"{self.target.host}/bench/image:latest"
        self.target.wipe()
        self._rename(name, there)
        self._row(name, number, "push", tool.words("push", there))
        if name != "docker":
            digest = [each.manifest("bench/image")["layers"] for each in (self.source, self.target)]
            if digest[0] != digest[1]:
                raise SystemExit(f"error: {name} changed the image")
        self._row(name, number, "again", tool.words("again", there))
        tool.forget(there)

    def _rename(self, name: str, there: str) -> None:
        tags = {
            "aerogel": [*self.tools["aerogel"].words("pull", "")[:-3], "tag", self.image, there],
            "docker": ["/usr/bin/docker", "tag", self.image, there],
        }
        if name in tags:
            subprocess.run(tags[name], env=self.tools[name].peer.environ, check=True, capture_output=True)

    def _row(self, name: str, number: int, action: str, words: list[str]) -> None:
        os.sync()
        peer = self.tools[name].peer
        cost: Cost = measure(words, peer.group, peer.environ)
        if cost.status:
            raise SystemExit(f"error: {' '.join(words)} ended with {cost.status}\n{cost.output}")
        row = {"peer": name, "round": number, "action": action, "wall_s": cost.wall_s, "cpu_s": cost.cpu_s}
        self.rows.append({**row, "memory_mb": cost.memory_mb})

    def table(self) -> str:
        lines = ["| action | peer | wall s | CPU s | memory MB | wall, of the best peer | CPU, of the best peer |"]
        lines.append("|---|---|---|---|---|---|---|")
        for action in ACTIONS:
            for name in self.tools:
                mine = [row for row in self.rows if (row["action"], row["peer"]) == (action, name)]
                middle = {key: statistics.median(row[key] for row in mine) for key in ("wall_s", "cpu_s", "memory_mb")}
                ratios = [self._ratio(action, name, key) for key in ("wall_s", "cpu_s")]
                told = f"{middle['wall_s']:.3f} | {middle['cpu_s']:.3f} | {middle['memory_mb']:.0f}"
                lines.append(f"| {action} | {name} | {told} | {ratios[0]} | {ratios[1]} |")
        return "\n".join(lines)

    def _ratio(self, action: str, name: str, key: str) -> str:
        found = []
        for number in range(self.options.rounds):
            here = {row["peer"]: row[key] for row in self.rows if (row["action"], row["round"]) == (action, number)}
            others = [value for peer, value in here.items() if peer not in ("aerogel", name)]
            if name == "aerogel" and others:
                found.append(here[name] / min(others))
        return f"{statistics.median(found):.2f}" if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=500, help="megabytes of blobs")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="skopeo,docker")
    parser.add_argument("--folder", default=os.environ.get("TMPDIR", "/var/tmp"))
    parser.add_argument("--python", help="run aerogel with this interpreter, without the launcher")
    parser.add_argument("--json", help="file that gets a line for each measurement")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="aerogel-bench-", dir=options.folder))
    fast = Path(tempfile.mkdtemp(prefix="aerogel-bench-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else folder))
    bench = None
    try:
        bench = Bench(options, folder, fast)
        bench.run()
        print(f"{options.size} MB in {options.layers} layers, {options.rounds} rounds, load {os.getloadavg()[0]:.1f}\n")
        print(bench.table())
        if options.json:
            Path(options.json).write_text("".join(f"{json.dumps(row)}\n" for row in bench.rows))
    finally:
        if bench is not None:
            bench.close()
        clean(folder)
        shutil.rmtree(fast, ignore_errors=True)


if __name__ == "__main__":
    main()
