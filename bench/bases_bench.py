"""Sizes of the built-in bases against upstream's package lists, and what composing them costs.

    python bench/bases_bench.py [--cache FOLDER] [--repeat N] [--platform OS/ARCH] [--json FILE] [BASE...]

Each base is composed in a process of its own from a warm package cache: choosing the packages, checking their
digests, laying out, writing and compressing the layer. `micro` is the default, `parity` upstream's list with whole
packages. MB are 10^6 bytes: the sum of the files' sizes, and the layer as `gzip -6` writes it. The times are those of
the best of the repeats. The memory is the most that one process had, aerogel's own or one that it started such as jlink
(proportional set size, in which a page that many share counts once, looked at every 20 ms), and `all`, the most that all
of them had together at one moment without program text and other pages of files, which depend on what else runs: of the
repeats, and of a first run in which everything that is kept otherwise is made, whose time is printed as well. The limit is
for both. `PSS` is all of them together with pages of files, `RSS` the sum of resident sizes.
Limits are those of the project, `-` where it states none; `OVER` marks what misses one.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/support")]

from memory import Memory  # noqa: E402 - of tests/support

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
    if options.one:
        print(json.dumps(compose_one(options.one, options.platform, options.cache)))
        return 0
    if options.cache:
        return table(options, options.cache)
    with tempfile.TemporaryDirectory(prefix="bases-bench-") as folder:
        return table(options, Path(folder))


def table(options: argparse.Namespace, cache: Path) -> int:
    """Prints it, a line for each base; 1 when a target is missed."""
    from aerogel.distroless.catalogue import built_in, declarations

    names = options.bases or [name for name in declarations() if built_in(name).method == "files"]
    rows = []
    print(header())
    for name in names:
        rows.append(row := measured(name, options, cache))
        print(line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
    missed = [f"{row['name']}: {what}" for row in rows for what in row["missed"]]
    print("\n".join(["", *missed]) if missed else "\nevery target is met")
    return 1 if missed else 0


def measured(name: str, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Both profiles of a base; the first run makes what is kept, and its time is told apart."""
    run(f"aerogel/{name}", options.platform, cache)
    forget(cache)
    first = run(f"aerogel/{name}", options.platform, cache)
    micro = [run(f"aerogel/{name}", options.platform, cache) for _ in range(max(1, options.repeat))]
    parity = run(f"aerogel/{name}:parity", options.platform, cache)
    best = min(micro, key=lambda one: one["wall_s"])
    for key in ("tree_mb", "anonymous_mb", "resident_mb", "process_mb"):
        best[key] = max(one[key] for one in (first, *micro, parity))
    best["first_s"] = first["wall_s"]
    row = {"name": name, "micro": best, "parity": parity, "missed": []}
    size, packed, seconds = TARGETS.get(name, (0.0, 0.0, 0.0))
    # What is linked by jlink has its limit for the linking, not for taking what is kept.
    timed = first["wall_s"] if name.startswith("java") else best["wall_s"]
    found = (
        ("unpacked MB", best["size"] / 1e6, size),
        ("gzip MB", best["gzip"] / 1e6, packed),
        ("seconds", timed, seconds),
        ("MB of memory", best["process_mb"], MEMORY_MB),
        ("MB of memory of all processes together", best["anonymous_mb"], MEMORY_MB),
    )
    row["missed"] = [
        f"{what} {value:.2f}, target {target}" for what, value, target in found if target and value > target
    ]
    return row


def forget(cache: Path) -> None:
    """Removes what makers made."""
    from aerogel.distroless.made import FOLDER

    for path in (cache / FOLDER).glob("*.tar"):
        path.unlink()


COLUMNS = (
    *(
        ("base", -17),
        ("pkgs", 5),
        ("MB", 8),
        ("limit", 6),
        ("gzip", 7),
        ("limit", 6),
        ("s", 6),
        ("first s", 8),
        ("limit", 6),
    ),
    *(
        ("CPU s", 6),
        ("MB RAM", 7),
        ("limit", 6),
        ("all", 5),
        ("PSS", 5),
        ("RSS", 5),
        ("parity pkgs", 12),
        ("MB", 8),
        ("gzip", 7),
        ("smaller", 8),
        ("", 6),
    ),
)


def header() -> str:
    return table_line([title for title, _ in COLUMNS])


def table_line(cells: list[str]) -> str:
    pairs = zip(cells, (width for _, width in COLUMNS), strict=True)
    return "".join(cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, width in pairs).rstrip()


def line(row: dict[str, Any]) -> str:
    micro, parity = row["micro"], row["parity"]
    size, packed, seconds = (f"{limit:g}" if limit else "-" for limit in TARGETS.get(row["name"], (0.0, 0.0, 0.0)))
    cells = [
        row["name"],
        str(micro["packages"]),
        f"{micro['size'] / 1e6:.2f}",
        size,
        f"{micro['gzip'] / 1e6:.2f}",
        packed,
    ]
    cells += [f"{micro['wall_s']:.2f}", f"{micro['first_s']:.2f}", seconds, f"{micro['cpu_s']:.2f}"]
    cells += [
        f"{micro['process_mb']:.0f}",
        str(MEMORY_MB),
        f"{micro['anonymous_mb']:.0f}",
        f"{micro['tree_mb']:.0f}",
        f"{micro['resident_mb']:.0f}",
        str(parity["packages"]),
        f"{parity['size'] / 1e6:.2f}",
    ]
    cells += [
        f"{parity['gzip'] / 1e6:.2f}",
        f"{1 - micro['gzip'] / parity['gzip']:.0%}",
        "OVER" if row["missed"] else "ok",
    ]
    return table_line(cells)


def run(name: str, platform: str, cache: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, "--cache", str(cache), "--platform", platform]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        memory = Memory(process.pid)
        out, err = process.communicate()
        memory.stop()
    if process.returncode:
        sys.exit(f"{name}: {err.strip()}")
    found: dict[str, Any] = json.loads(out)
    sizes = {
        "tree_mb": memory.peak,
        "anonymous_mb": memory.peak_anonymous,
        "resident_mb": memory.peak_resident,
        "process_mb": memory.largest,
    }
    return found | {key: size / 1e6 for key, size in sizes.items()}


def compose_one(name: str, platform: str, cache: Path) -> dict[str, Any]:
    """Composes once in this process."""
    os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=cache) as scratch, ExitStack() as stack:
        return compose_in(scratch, stack, name, platform, cache)


def compose_in(scratch: str, stack: ExitStack, name: str, platform: str, cache: Path) -> dict[str, Any]:
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

    started = time.perf_counter()
    made = 0

    @functools.cache
    def helper() -> Helper:
        return stack.enter_context(Helper.start(f"{scratch}/state"))

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
