"""Writes `checks/data/sonames.z`: which package of Debian 13 and 12 has a library of a name.

    python tools/gen_sonames.py TRIXIE/Contents-amd64.gz BOOKWORM/Contents-amd64.gz

Both files are in `dists/SUITE/main` of any mirror. A line of the table: name, package of Debian 13, and that of 12 if it is
another; `-` for none. Of the names of one file (`libx.so.1`, `libx.so.1.2`) the shortest counts.
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections import defaultdict
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "src/aerogel/checks/data/sonames.z"
FOLDERS = ("usr/lib/x86_64-linux-gnu/", "lib/x86_64-linux-gnu/", "usr/lib/", "lib/")
LIBRARY = re.compile(r"lib[^/]*(?:\.so\.\d[^/]*|-\d[\w.]*\.so)")


def packages(path: str) -> dict[str, str]:
    owners: dict[str, list[tuple[bool, int, str]]] = defaultdict(list)
    with gzip.open(path, "rt", errors="replace") as lines:
        for line in lines:
            file, _, column = line.rstrip("\n").rpartition(" ")
            file = file.rstrip()
            folder = next((one for one in FOLDERS if file.startswith(one)), "")
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


def main() -> int:
    newer, older = map(packages, sys.argv[1:3])
    lines = []
    for name in sorted(newer.keys() | older.keys()):
        first, second = newer.get(name, "-"), older.get(name, "-")
        lines.append(f"{name} {first}" if first == second else f"{name} {first} {second}")
    TARGET.write_bytes(zlib.compress("".join(f"{line}\n" for line in lines).encode(), 9))
    print(f"wrote {len(lines)} names, {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
