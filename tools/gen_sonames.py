"""Writes `checks/data/sonames.z`: which package of Debian 13 and 12 has a library of a name, on each architecture.

    python tools/gen_sonames.py FOLDER

The folder has `trixie/Contents-ARCH.gz` and `bookworm/Contents-ARCH.gz`, which are in `dists/SUITE/main` of any mirror. A
line of the table: name, package of Debian 13, and that of 12 if it is another; `-` for none. First those of amd64, then
behind `=ARCH` the lines that are others there. Of the names of one file (`libx.so.1`, `libx.so.1.2`) the shortest counts.
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections import defaultdict
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "src/aerogel/checks/data/sonames.z"
TRIPLETS = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
    "i386": "i386-linux-gnu",
    "ppc64el": "powerpc64le-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "s390x": "s390x-linux-gnu",
}
SUITES = ("trixie", "bookworm")
LIBRARY = re.compile(r"(?:lib[^/]*(?:\.so\.\d[^/]*|-\d[\w.]*\.so)|ld(?:64)?(?:-[\w-]+)?\.so\.\d)")

Rows = dict[str, tuple[str, str]]


def packages(path: Path, triplet: str) -> dict[str, str]:
    folders = (f"usr/lib/{triplet}/", f"lib/{triplet}/", "usr/lib/", "lib/", "usr/lib64/", "lib64/")
    owners: dict[str, list[tuple[bool, int, str]]] = defaultdict(list)
    with gzip.open(path, "rt", errors="replace") as lines:
        for line in lines:
            if not line.startswith(("usr/lib", "lib")):
                continue
            file, _, column = line.rstrip("\n").rpartition(" ")
            file = file.rstrip()
            folder = next((one for one in folders if file.startswith(one)), "")
            name = file[len(folder) :]
            if not folder or not LIBRARY.fullmatch(name):
                continue
            for entry in column.split(","):
                section, _, package = entry.rpartition("/")
                if not package.endswith(("-dev", "-dbg")) and "cross" not in package:
                    owners[name].append((section not in ("libs", "oldlibs"), len(package), package))
    best = {name: min(found)[2] for name, found in owners.items()}
    names: dict[str, set[str]] = defaultdict(set)
    for name, package in best.items():
        names[package].add(name)
    return {
        name: package
        for package, group in names.items()
        for name in group
        if not any(name.startswith(f"{other}.") for other in group if other != name)
    }


def rows(folder: Path, arch: str) -> Rows:
    """By name the packages of both releases; `-` for none."""
    both = []
    for suite in SUITES:
        path = folder / suite / f"Contents-{arch}.gz"
        both.append(packages(path, TRIPLETS[arch]) if path.exists() else {})  # Debian 12 has no riscv64
    newer, older = both
    return {name: (newer.get(name, "-"), older.get(name, "-")) for name in sorted(newer.keys() | older.keys())}


def line(name: str, row: tuple[str, str]) -> str:
    return f"{name} {row[0]}\n" if row[0] == row[1] else f"{name} {row[0]} {row[1]}\n"


def main() -> int:
    folder = Path(sys.argv[1])
    first = rows(folder, "amd64")
    text = "".join(line(name, row) for name, row in first.items())
    for arch in sorted(TRIPLETS.keys() - {"amd64"}):
        own = rows(folder, arch)
        if not (folder / SUITES[1] / f"Contents-{arch}.gz").exists():
            own = {name: (row[0], first.get(name, ("-", "-"))[1]) for name, row in own.items()}
        every = {name: own.get(name, ("-", "-")) for name in sorted(own.keys() | first.keys())}
        others = {name: row for name, row in every.items() if row != first.get(name)}
        text += f"={arch}\n" + "".join(line(name, row) for name, row in others.items())
        print(f"{arch}: {len(others)} names are others")
    TARGET.write_bytes(zlib.compress(text.encode(), 9))
    print(f"wrote {len(first)} names of amd64, {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
