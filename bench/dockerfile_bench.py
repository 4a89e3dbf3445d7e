"""How long the frontend takes: parse, lint and lower a big Dockerfile, match many paths against an ignore file.

python bench/dockerfile_bench.py            the best of 15 runs each, in milliseconds
python bench/dockerfile_bench.py --profile ignore
                                            where the time of one goes

Goals on one core of a small server: 50 ms for 2,000 lines in 60 stages, 1 s for 100,000 paths against 200 patterns.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import random
import time
from collections.abc import Callable

from aerogel.dockerfile.format import format_dockerfile
from aerogel.dockerfile.parse import parse
from aerogel.errors import Source
from aerogel.files.pattern import IgnoreMatcher
from aerogel.graph.request import Request
from aerogel.graph.stages import plan
from aerogel.graph.steps import BaseImage, lower
from aerogel.lint.dockerfile import check
from aerogel.lint.rule import Subject
from aerogel.oci.types import ContainerConfig, ImageConfig

BASE = BaseImage(("sha256:" + "0" * 64,), ImageConfig(config=ContainerConfig(env=("PATH=/usr/bin:/bin",))))


def dockerfile(stages: int = 60, lines: int = 2000) -> bytes:
    """A Dockerfile as people write them, only longer: every stage is needed by a later one."""
    rng = random.Random(1)
    out = ["# syntax=docker/dockerfile:1", "ARG VERSION=1.0", "ARG BASE=debian:trixie"]
    each = (lines - len(out)) // stages
    for number in range(stages):
        body = [f"FROM {'$BASE' if number % 4 == 0 else f'stage{number - 1}'} AS stage{number}"]
        if number:
            body.append(f"COPY --from=stage{number - 1} --chown=1000:1000 /out/ /in/{number}/")
        while len(block := rng.choice(BLOCKS).replace("@", str(rng.randrange(1000))).splitlines()) <= each - len(body):
            body += block
        out += body + ["USER root"] * (each - len(body))
    out += ["USER root"] * (lines - len(out))
    return "\n".join(out).encode() + b"\n"


BLOCKS = (
    "RUN apt-get update \\\n    && apt-get install -y \\\n        git@ \\\n        curl \\\n    && rm -rf /var/lib/apt/lists/*",
    "ENV NAME_@=value \\\n    PATH=/opt/@/bin:$PATH",
    "ARG VERSION\nLABEL org.example.version=${VERSION:-none} org.example.build=@",
    "COPY --chown=app:app package@.json src/ ./app/@/",
    "WORKDIR /srv/@",
    "# Why: the next step needs it.\nRUN --mount=type=cache,target=/var/cache/@ make -j4 target@",
    'CMD ["serve", "--port", "80@"]\nEXPOSE 80/tcp',
    "RUN <<EOF\nset -e\nmake install@\nEOF",
    "USER app",
)


def ignore_file() -> bytes:
    rng = random.Random(2)
    kinds = ("dir@", "**/*.ext@", "dir@/sub*/file?.txt", "**/name@", "top@/**/*.o", "!dir@/keep", "a[0-9]@*")
    return "\n".join(rng.choice(kinds).replace("@", str(number)) for number in range(200)).encode() + b"\n"


def paths(count: int = 100_000) -> list[bytes]:
    rng = random.Random(3)
    parts = [f"{word}{number}" for word in ("dir", "sub", "top", "name", "x") for number in range(60)]
    ends = [f"file{number}.{end}" for number in range(50) for end in ("txt", "o", "ext7", "py", "ext42")]
    return [
        "/".join([*(rng.choice(parts) for _ in range(rng.randrange(1, 6))), rng.choice(ends)]).encode()
        for _ in range(count)
    ]


def measures() -> dict[str, Callable[[], object]]:
    data = dockerfile()
    tree = parse(Source("Dockerfile", data))
    planned = plan(tree, Request())
    many = paths()
    text = ignore_file()

    def match() -> int:
        matcher = IgnoreMatcher.parse(Source(".dockerignore", text))
        return sum(map(matcher.matches, many))

    def whole() -> object:
        graph = lower(plan(parse(Source("Dockerfile", data)), Request()), lambda *_: BASE)
        return [step.node.digest for step in graph.steps]

    return {
        "parse and lower": whole,
        "parse": lambda: parse(Source("Dockerfile", data)),
        "lower": lambda: lower(planned, lambda *_: BASE),
        "lint": lambda: check(Subject(tree, base_environment=lambda _: {})),
        "format": lambda: format_dockerfile(tree),
        "ignore": match,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", metavar="NAME", help="profile one measure")
    options = parser.parse_args()
    found = measures()
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(found[options.profile])
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    print(json.dumps({name: round(best(measure), 2) for name, measure in found.items()}))


def best(measure: Callable[[], object], runs: int = 15) -> float:
    """The best time of some runs, in milliseconds of this process's own time."""
    times = []
    for _ in range(runs):
        began = time.process_time()
        measure()
        times.append(time.process_time() - began)
    return min(times) * 1000


if __name__ == "__main__":
    main()
