"""Sizes of the built-in bases against upstream's package lists, and what composing them costs.

    python bench/bases_bench.py [--cache FOLDER] [--repeat N] [--platform OS/ARCH] [--json FILE] [BASE...]

Each base is composed in a process of its own from a warm package cache: choosing the packages, checking their
digests, laying out, writing and compressing the layer. `micro` is the default, `parity` upstream's list with whole
packages. MB are 10^6 bytes: the sum of the files' sizes, and the layer as `gzip -6` writes it. The times are those of
the best of the repeats, the memory the most that any of them took (programs that run in a room are not in it). Targets
are those of the project; what misses one is marked.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

TARGETS = {
    "static": (1.4, 0.45, 0.3),
    "base-nossl": (6.5, 2.8, 2.0),
    "base": (15.0, 6.0, 2.0),
    "cc": (18.0, 7.1, 2.0),
    "python3": (55.0, 20.5, 4.0),
    "python3.14": (55.0, 20.5, 0.0),
    "java-base": (17.0, 7.0, 0.0),
    "java17": (96.0, 52.0, 20.0),
    "java21": (96.0, 52.0, 20.0),
    "java25": (96.0, 52.0, 20.0),
    "nodejs22": (127.0, 48.0, 0.0),
    "nodejs24": (127.0, 48.0, 0.0),
    "nodejs26": (136.0, 50.0, 0.0),
    "dotnet-deps": (18.0, 7.0, 0.0),
    "dotnet-deps-icu": (56.0, 22.0, 0.0),
}
"""Unpacked MB, gzip MB, seconds (0: none stated)."""
MEMORY_MB = 250


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bases", nargs="*")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--platform", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cache = options.cache or Path(tempfile.mkdtemp(prefix="bases-bench-"))
    if options.one:
        print(json.dumps(compose_one(options.one, options.platform, cache)))
        return 0
    from aerogel.distroless.catalogue import built_in, declarations

    names = options.bases or [name for name in declarations() if built_in(name).method == "files"]
    rows = []
    print(f"{'':16}{'micro':>40}{'parity':>26}{'smaller':>9}")
    print(
        f"{'base':<16}{'pkgs':>5}{'MB':>8}{'gzip MB':>9}{'s':>6}{'CPU s':>7}{'MB RAM':>8}{'pkgs':>8}{'MB':>9}{'gzip MB':>9}{'':>6}"
    )
    for name in names:
        rows.append(row := measured(name, options, cache))
        print(line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
    missed = [f"{row['name']}: {what}" for row in rows for what in row["missed"]]
    print("\n".join(["", *missed]) if missed else "\nevery target is met")
    return 1 if missed else 0


def measured(name: str, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Both profiles of a base; the first run warms the cache and does not count."""
    run(f"aerogel/{name}", options.platform, cache)
    micro = [run(f"aerogel/{name}", options.platform, cache) for _ in range(max(1, options.repeat))]
    parity = run(f"aerogel/{name}:parity", options.platform, cache)
    best = min(micro, key=lambda one: one["wall_s"])
    row = {"name": name, "micro": best, "parity": parity, "missed": []}
    best["rss_mb"] = max(one["rss_mb"] for one in micro)
    size, packed, seconds = TARGETS.get(name, (0.0, 0.0, 0.0))
    found = (
        ("unpacked MB", best["size"] / 1e6, size),
        ("gzip MB", best["gzip"] / 1e6, packed),
        ("seconds", best["wall_s"], seconds),
        ("MB of memory", best["rss_mb"], MEMORY_MB),
    )
    row["missed"] = [
        f"{what} {value:.2f}, target {target}" for what, value, target in found if target and value > target
    ]
    return row


def line(row: dict[str, Any]) -> str:
    micro, parity = row["micro"], row["parity"]
    return (
        f"{row['name']:<16}{micro['packages']:>5}{micro['size'] / 1e6:>8.2f}{micro['gzip'] / 1e6:>9.2f}"
        f"{micro['wall_s']:>6.2f}{micro['cpu_s']:>7.2f}{micro['rss_mb']:>8.0f}{parity['packages']:>8}{parity['size'] / 1e6:>9.2f}"
        f"{parity['gzip'] / 1e6:>9.2f}{1 - micro['gzip'] / parity['gzip']:>9.0%}" + ("  !" if row["missed"] else "")
    )


def run(name: str, platform: str, cache: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, "--cache", str(cache), "--platform", platform]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compose_one(name: str, platform: str, cache: Path) -> dict[str, Any]:
    """Composes once in this process."""
    import aerogel.distroless.base as bases
    from aerogel.debian.archive import Archive
    from aerogel.debian.mirror import discover
    from aerogel.distroless.catalogue import lookup
    from aerogel.distroless.externals import Fetcher
    from aerogel.distroless.pool import Pool
    from aerogel.events import NullSink
    from aerogel.files.codec import GZIP, LayerWriter
    from aerogel.net.http import Http
    from aerogel.oci.platform import Platform
    from aerogel.sandbox.launch import Helper

    started, helpers = time.perf_counter(), []
    os.makedirs(cache, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="scratch-", dir=cache)
    made = 0

    def helper() -> Helper:
        if not helpers:
            helpers.append(Helper.start(f"{scratch}/state"))
        return helpers[0]

    def folder() -> str:
        nonlocal made
        made += 1
        os.mkdir(f"{scratch}/{made}")
        return f"{scratch}/{made}"

    http = Http()
    recipe = lookup(name)
    fetcher = Fetcher(cache, http, dict(os.environ))
    pool = Pool(
        Archive(discover(), cache, http, allow_expired=recipe.allow_expired), archives=recipe.archives, fetcher=fetcher
    )
    wanted = Platform.parse(platform) if platform else Platform.host()
    selection = bases.select(recipe, wanted, pool)
    with tempfile.TemporaryFile() as blob, LayerWriter(blob.fileno(), GZIP) as writer:
        composed = bases.compose_base(
            selection, pool, writer, cache=cache, helper_factory=helper, scratch=folder, sink=NullSink()
        )
        wall_s = time.perf_counter() - started
        usage = resource.getrusage(resource.RUSAGE_SELF)
        gzip6 = compressed(blob)
    for one in helpers:
        one.close()
    return {
        "packages": len(selection.chosen),
        "size": sum(entry.size for entry in composed.index.entries),
        "gzip": gzip6,
        "blob": composed.blob.size,
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_mb": usage.ru_maxrss / 1000,
        "diff_id": str(composed.blob.diff_id),
    }


def compressed(blob: BinaryIO) -> int:
    """Bytes of the layer as `gzip -6` would write it, whatever the builds here compress with."""
    blob.seek(0)
    packer, size = zlib.compressobj(6, zlib.DEFLATED, 31), 0
    with gzip.open(blob) as plain:
        while piece := plain.read(1 << 20):
            size += len(packer.compress(piece))
    return size + len(packer.flush())


if __name__ == "__main__":
    sys.exit(main())
