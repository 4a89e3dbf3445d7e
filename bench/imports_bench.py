"""What compiled files save: the usual imports of Python in a base, with its bytecode and without.

    python bench/imports_bench.py [--rounds N] [--root FOLDER] [BASE...]      # aerogel/python3, if none is named

Each program runs in the composed image, N times of each kind by turns; milliseconds of processor time of the fastest.
`imports` is what the import statement takes, `start` the whole process. Without bytecode Python looks for it in a folder
that is not there and writes none, as upstream's images have none and cannot keep any. The aim is a fourth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AIM = 4.0

USUAL = "ssl, sqlite3, asyncio, http.server, json, logging, email, urllib.request"
PROGRAM = """\
import json, os, resource, subprocess, sys
child = "import time; begin = time.process_time(); import %s; print(time.process_time() - begin)"
def once(more):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", child], env={**os.environ, **more}, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [float(done.stdout) * 1000, whole * 1000]
without = {"PYTHONPYCACHEPREFIX": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}
rounds = [(once({}), once(without)) for _ in range(int(sys.argv[1]))]
print(json.dumps([[min(each[kind][part] for each in rounds) for part in (0, 1)] for kind in (0, 1)]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bases", nargs="*", default=["aerogel/python3"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--root", help="folder with what aerogel keeps; default: a new one")
    options = parser.parse_args()
    missed = []
    with tempfile.TemporaryDirectory(prefix="imports-bench-") as made:
        env = {**os.environ, "AEROGEL_ROOT": options.root or made, "PYTHONPATH": str(ROOT / "src")}
        print(f"{'base':28}{'imports ms':>12}{'without':>9}{'ratio':>7}{'start ms':>10}{'without':>9}{'ratio':>7}")
        for base in options.bases:
            words = ["run", "--rm", "--quiet", base, "-c", PROGRAM % USUAL, str(options.rounds)]
            command = [sys.executable, "-m", "aerogel", *words]
            out = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
            (imports, start), (slow_imports, slow_start) = json.loads(out)
            ratio = slow_imports / imports
            print(
                f"{base:28}{imports:12.0f}{slow_imports:9.0f}{ratio:7.1f}"
                f"{start:10.0f}{slow_start:9.0f}{slow_start / start:7.1f}"
            )
            if ratio < AIM:
                missed.append(f"{base}: {ratio:.1f} times, aim {AIM:g}")
    print("\n".join(missed) or "every aim is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
