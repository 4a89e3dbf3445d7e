"""Times what composing an image asks of `aerogel.debian`: indexes cold and warm, resolution, packages.

    python bench/debian_bench.py [--cache FOLDER] [--repeat N]

Uses the host's mirror for what is not in the cache folder (a temporary one unless named). Each line: what, wall
seconds, CPU seconds of this process (the best of the repeats).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SUITES = ("trixie", "trixie-updates", "trixie-security")
IMAGES = {
    "python3": (["python3.13-minimal", "libpython3.13-stdlib"], False),
    "build root": (["apt"], True),
    "go and g++": (["golang-go", "g++"], False),
}


def timed(label: str, call: Callable[[], object], repeat: int = 1) -> object:
    best: tuple[float, float] | None = None
    result: object = None
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        took = (time.perf_counter() - wall, time.process_time() - cpu)
        best = min(best or took, took)
    assert best is not None
    print(f"{label:<44} {best[0]:8.4f} {best[1]:8.4f}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    cache = options.cache or Path(tempfile.mkdtemp(prefix="debian-bench-"))
    print(f"{'cache: ' + str(cache):<44} {'wall s':>8} {'CPU s':>8}")
    modules = "aerogel.debian.archive, aerogel.debian.mirror, aerogel.debian.resolve"
    timed("interpreter alone", lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), options.repeat)
    timed(
        "interpreter and imports",
        lambda: subprocess.run([sys.executable, "-c", f"import {modules}"], check=True),
        options.repeat,
    )

    from aerogel.debian.archive import Archive
    from aerogel.debian.deb import open_deb
    from aerogel.debian.index import PackageIndex
    from aerogel.debian.mirror import discover
    from aerogel.debian.package import Package
    from aerogel.debian.resolve import Chosen, resolve
    from aerogel.net.http import Http

    def indexes(*, offline: bool) -> list[PackageIndex]:
        return Archive(discover(), cache, Http(), offline=offline).indexes(SUITES)

    timed("indexes, first time (network if not cached)", lambda: indexes(offline=False))
    timed("indexes, cached, signatures checked", lambda: indexes(offline=True), options.repeat)
    archive = Archive(discover(), cache, Http())
    for label, (names, essential) in IMAGES.items():

        def run(names: list[str] = names, essential: bool = essential) -> list[Chosen]:
            return resolve(names, indexes(offline=True), arch="amd64", essential=essential)

        found = timed(f"{label}: open, resolve", run, options.repeat)
        assert isinstance(found, list)
        packages: list[Package] = [chosen.package for chosen in found]
        size = sum(package.size for package in packages)
        timed(f"{label}: fetch {len(packages)}, {size / 1e6:.1f} MB (network)", lambda p=packages: archive.fetch_all(p))
        paths = timed(f"{label}: fetch again, digests checked", lambda p=packages: archive.fetch_all(p), options.repeat)

        def read(paths: object = paths) -> int:
            assert isinstance(paths, list)
            total = 0
            for path in paths:
                with open_deb(path) as package:
                    for entry, content in package.entries():
                        total += entry.size
                        while content.read(1 << 18):
                            pass
            return total

        total = timed(f"{label}: unpack and read all entries", read)
        print(f"{'':<44} {total} bytes")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB")


if __name__ == "__main__":
    main()
