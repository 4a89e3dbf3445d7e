"""A disk that is full at any moment, a state folder copied during a build, one that may only be read, a wrong clock.

In each case: an error in words or a right image, and the next build on the same store gives the right one. Debian
package: busybox-static.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from bad_input import leftovers
from bench import HEAD, Bench
from process import Aerogel

from aerogel.oci.image import images
from aerogel.oci.validate import validate
from aerogel.store.store import Store

pytestmark = pytest.mark.host("busybox")

SEED = 7
TEXT = """\
FROM base AS made
COPY src /src
RUN ["/bin/sh", "-c", "cat /src/* > /all; for n in 1 2 3 4 5 6 7 8 9; do mkdir -p /d/$n; cp /src/0 /d/$n/f; done"]
FROM base
COPY --from=made /d /d
COPY --from=made /all /all
RUN --mount=from=made,source=/src,target=/m ["/bin/sh", "-c", "cat /m/* > /again"]
"""


IMAGES: dict[str, str] = {}
"""What the builds of this file gave: one image."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    for number in range(6):
        made.write(f"src/{number}", str(number) * 60_000)
    made.write("Dockerfile", HEAD + TEXT)
    return made


def mounted(script: str, *, root: str = "") -> subprocess.CompletedProcess[str]:
    """A shell script where it may mount; `root` is the state folder of aerogel in it."""
    flags = ["--mount"] if os.getuid() == 0 else ["--mount", "--map-root-user"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src"), "AEROGEL_ROOT": root}
    return subprocess.run(["unshare", *flags, "sh", "-c", script], env=env, capture_output=True, text=True, timeout=300)


FULL = """\
mount -t tmpfs -o {limit} tmpfs {state} || exit 90
{build} > {out}/1.out 2> {out}/1.err; echo $? > {out}/1.status
mount -o remount,size=300m,nr_inodes=100k {state} || exit 91
{build} > {out}/2.out 2> {out}/2.err; echo $? > {out}/2.status
ls {state}/*/scratch {state}/*/locks > {out}/left
"""


@pytest.mark.parametrize(
    "limit",
    [f"size={size}k" for size in (300, 1200, 1350, 2600, 3800, 5000, 6500)]
    + [f"nr_inodes={number}" for number in (12, 40, 80)],
)
def test_a_disk_that_is_full(bench: Bench, tmp_path: Path, limit: str) -> None:
    state, out = tmp_path / "full", tmp_path / "out"
    state.mkdir()
    out.mkdir()
    build = f"{sys.executable} -m aerogel build -q {bench.context}"
    done = mounted(FULL.format(limit=limit, state=state, build=build, out=out), root=str(state))
    assert done.returncode == 0, done.stderr
    status = int((out / "1.status").read_text())
    told = (out / "1.err").read_text()
    assert status in (0, 3), told
    if status:
        assert "full" in told or "no space left" in told, told
        assert "hint: " in told
    assert "Traceback" not in told
    assert (out / "2.err").read_text() == ""
    assert (out / "2.out").read_text().strip() == IMAGES.setdefault("image", (out / "2.out").read_text().strip())
    assert [line for line in (out / "left").read_text().split() if not line.endswith(":")] == []


def whole(state: Path) -> None:
    with Store.open(state / "data", state / "cache") as store:
        for record in store.images.list():
            for image in images(record.descriptor, store.blobs):
                assert validate(image) == []


def test_copies_of_the_state_taken_during_builds(bench: Bench, tmp_path: Path) -> None:
    image = IMAGES.setdefault("image", Aerogel(tmp_path / "other").json("build", str(bench.context))["image_id"])
    chance = random.Random(SEED)
    copies: list[Path] = []
    for turn in range(3):
        state = tmp_path / f"state-{turn}"
        building = Aerogel(state)
        thread = threading.Thread(target=building, args=("build", str(bench.context)))
        thread.start()
        while thread.is_alive():
            time.sleep(chance.uniform(0.01, 0.12))
            copy = tmp_path / f"copy-{len(copies)}"
            subprocess.run(["cp", "-a", str(state), str(copy)], capture_output=True, check=False)
            if copy.exists():
                copies.append(copy)
        thread.join()
    assert len(copies) > 4
    for number, copy in enumerate(chance.sample(copies, 9) if len(copies) > 9 else copies):
        used = Aerogel(copy)
        if number % 3 == 2:
            _cut_some_files(copy, chance)
        done = used("build", str(bench.context), "--json", check=False)
        if done.returncode and number % 3 == 2:
            # Damage is told once, and what was damaged is gone.
            assert "error: " in done.stderr
            done = used("build", str(bench.context), "--json", check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["image_id"] == image
        assert leftovers(copy, locks=False) == []
        whole(copy)


def _cut_some_files(state: Path, chance: random.Random) -> None:
    """What a power cut may do to files that were never synced: all but blobs."""
    files = [
        path
        for folder in ("cache/actions-v1", "cache/selections-v1", "cache/builds-v1", "data/layers-v1")
        for path in sorted((state / folder).rglob("*"))
        if path.is_file()
    ]
    for path in chance.sample(files, min(6, len(files))):
        with path.open("r+b") as file:
            file.truncate(chance.choice((0, path.stat().st_size // 2)))


def test_a_state_folder_that_may_only_be_read(bench: Bench) -> None:
    bench.build(TEXT, "-t", "app")
    state = bench.aerogel.state
    aerogel = f"{sys.executable} -m aerogel"
    bench.write("src/0", "changed")
    script = (
        f"mount --bind {state} {state} && mount -o remount,bind,ro {state} && "
        f"{aerogel} images -q && {aerogel} history app -q && {aerogel} why && ! {aerogel} build {bench.context} && "
        f"! {aerogel} prune --all"
    )
    done = mounted(script, root=str(state))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.lower().count("read-only file system") == 2, done.stderr
    assert "hint: the store must be writable; `AEROGEL_ROOT` puts it elsewhere" in done.stderr
    bench.build(TEXT)


CLOCK = """\
import sys, time
shift, real, real_ns, gmtime = float(sys.argv[1]), time.time, time.time_ns, time.gmtime
time.time = lambda: real() + shift
time.time_ns = lambda: real_ns() + int(shift * 1e9)
from aerogel.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_clock_that_goes_backwards(bench: Bench) -> None:
    def at(days: float, *words: str) -> str:
        argv = [sys.executable, "-c", CLOCK, str(days * 86400), *words]
        done = subprocess.run(argv, env=bench.aerogel.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    context = str(bench.context)
    image = at(0, "build", "-q", context).strip()
    statuses = {step["status"] for step in json.loads(at(-400, "build", "--json", context))["steps"]}
    assert statuses == {"CACHED", "SKIPPED"}
    bench.write("src/0", "1" * 60_000)
    changed = at(-400, "build", "-q", context).strip()
    assert changed != image
    bench.write("src/0", "0" * 60_000)
    assert at(-399, "build", "-q", context).strip() == image
    ids = [build["id"] for build in json.loads(at(-500, "history", "--json"))["builds"]]
    assert ids == sorted(ids, reverse=True)
    assert "src/0" in at(-500, "why", "--build", "@2", "--json") + at(-500, "why", "--json")
    # What was used in the future is not old.
    assert json.loads(at(-400, "prune", "--older-than", "1d", "--json"))["actions"] == 0
    assert at(-400, "build", "-q", context).strip() == image
    at(-400, "prune", "--all")
    assert at(0, "build", "-q", context).strip() == image
