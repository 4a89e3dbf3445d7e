"""Micro benchmark of `aerogel.files`: the figures of the hot paths, CPU seconds and wall, on a made tree.

    PYTHONPATH=src python bench/files_bench.py [entries]

Prints one line for each operation: wall, CPU, microseconds of CPU for an entry (or MB/s). Not a test: compare runs on
one quiet machine only. The tree is made below the temporary directory and removed.
"""

from __future__ import annotations

import io
import os
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from aerogel.errors import Source
from aerogel.files import jobs
from aerogel.files.codec import FAST, GZIP, UNCOMPRESSED, ZSTD, LayerWriter, open_uncompressed
from aerogel.files.copy import CopyOptions, plan_copy
from aerogel.files.hashing import DigestCache, content_key
from aerogel.files.host import HostTree
from aerogel.files.index import LayerIndex, build_index
from aerogel.files.pattern import IgnoreMatcher
from aerogel.files.tar import TarWriter, scan
from aerogel.files.tree import LayerTree

T = TypeVar("T")


def measure(name: str, count: int, unit: str, action: Callable[[], T]) -> T:
    """Runs once; prints wall, CPU of this process and its threads, and the cost of one."""
    before, began = os.times(), time.perf_counter()
    result = action()
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.user - before.user + after.system - before.system
    rate = f"{count / 1e6 / max(wall, 1e-9):8.0f} MB/s" if unit == "bytes" else f"{cpu / count * 1e6:8.2f} us/{unit}"
    print(f"{name:44} {wall:7.3f} s wall {cpu:7.3f} s CPU {rate}")
    return result


def make_tree(root: Path, count: int) -> int:
    """Small files in nested folders, as a dependency folder has them; gives the bytes."""
    rng = random.Random(1)
    words = [rng.randbytes(40) for _ in range(500)]
    total = 0
    for number in range(count):
        folder = root / f"p{number // 500}" / f"d{number // 25}"
        if number % 25 == 0:
            folder.mkdir(parents=True)
        data = b"".join(rng.choice(words) for _ in range(rng.randrange(5, 400)))
        (folder / f"file-{number}.js").write_bytes(data)
        total += len(data)
    return total


def write_context(root: Path, writer: LayerWriter) -> None:
    """What the solver does for COPY: plan, read, tar, hash, compress."""
    tree = HostTree(root)
    tar = TarWriter(writer.write)
    for item in plan_copy(tree, ["/"], "/app", LayerTree(), CopyOptions()):
        if item.source is None:
            tar.entry(item.entry)
            continue
        fd = tree.open(item.source)
        tar.file_fd(item.entry, fd)
        os.close(fd)
    tar.close()
    tree.close()


def pipeline(root: Path, count: int, size: int) -> bytes:
    """From a folder to a blob with each codec; gives the plain tar."""
    for codec in (FAST, GZIP, ZSTD, UNCOMPRESSED):
        with tempfile.TemporaryFile() as out, LayerWriter(out.fileno(), codec) as writer:
            measure(f"context -> {codec.name}", size, "bytes", lambda: write_context(root, writer))
            blob = measure("  finish", size, "bytes", writer.finish)
            print(f"  {blob.size_uncompressed:,} -> {blob.size:,} bytes")
            out.seek(0)
            stream = open_uncompressed(out.fileno(), codec.media_type)
            data = measure("  inflate", size, "bytes", lambda: b"".join(iter(lambda: stream.read(1 << 20), b"")))  # noqa: B023
    measure("index of the tar", count, "entry", lambda: build_index(io.BytesIO(data)))
    return data


def plan_and_key(tree: HostTree, count: int, name: str) -> None:
    """What a cached COPY costs."""
    items = measure(f"plan, {name}", count, "entry", lambda: plan_copy(tree, ["/"], "/", LayerTree(), CopyOptions()))
    measure(f"content key, {name}", count, "entry", lambda: content_key(items, tree))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "context")
        size = make_tree(root, count)
        print(f"{count:,} files, {size:,} bytes, load {os.getloadavg()[0]:.1f}")
        measure("walk", count, "entry", lambda: sum(1 for _ in HostTree(root).walk()))
        lines = "\n".join(f"**/n{n}/*.tmp\nlit{n}/x\n*.e{n}\n**/name{n}" for n in range(50))
        ignore = IgnoreMatcher.parse(Source(".dockerignore", lines.encode()))
        measure(
            "walk, 200 ignore patterns", count, "entry", lambda: sum(1 for _ in HostTree(root, ignore=ignore).walk())
        )
        store = Path(scratch, "digests")
        time.sleep(0.1)
        for name in ("first", "warm"):
            tree = HostTree(root, digests=DigestCache(store))
            plan_and_key(tree, count, name)
            tree.close()
        data = pipeline(root, count, size)
        measure("scan", count, "entry", lambda: sum(1 for _ in scan(io.BytesIO(data))))
        index = build_index(io.BytesIO(data))
        saved = measure("index dumps", count, "entry", index.dumps)
        measure("index loads", count, "entry", lambda: LayerIndex.loads(saved))
        measure("merge into a tree", count, "entry", lambda: LayerTree([index]))
        with tarfile.open(fileobj=io.BytesIO(data)) as oracle:
            measure("tarfile reads the same", count, "entry", oracle.getmembers)
        tar = Path(scratch, "layer.tar")
        tar.write_bytes(data)
        target = Path(scratch, "unpacked")
        target.mkdir()
        with tar.open("rb") as stream:
            measure("extract", count, "entry", lambda: jobs.extract({"path": str(target)}, [stream.fileno()]))
        with tempfile.TemporaryFile() as out:
            args = {"upper": str(target), "lowers": [], "epoch": 0}
            measure("diff of all", count, "entry", lambda: jobs.diff(args, [out.fileno()]))
        measure("remove", count, "entry", lambda: jobs.remove({"path": str(target)}, []))


if __name__ == "__main__":
    main()
