"""500 builds in random order, two at a time, with edits, Ctrl-C, SIGKILL and prune between: no image is ever wrong.

The state of a context is a few small numbers, so each is built many times, after whatever happened before; at the end
every image must be the one that a build in an empty store gives. Debian package: busybox-static.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from bad_input import leftovers
from process import Aerogel

from aerogel.oci.image import images
from aerogel.oci.validate import validate
from aerogel.store.store import Store

pytestmark = [pytest.mark.host("busybox"), pytest.mark.slow]

SEED = 20261121
BUILDS = 500
KILLED, INTERRUPTED, PRUNED = 0.12, 0.12, 0.03
DOCKERFILES = (
    """\
FROM scratch AS base
COPY busybox /bin/
RUN ["/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]
FROM base AS left
ARG LEVEL
COPY src /src
RUN ["/bin/sh", "-c", "cat /src/* > /out; echo $LEVEL >> /out; mkdir -m 700 -p /d/e; ln /out /d/e/f"]
FROM base AS right
COPY other /other
RUN ["/bin/sh", "-c", "rm /bin/sh.old; wc -c < /other > /size; chown 7:8 /size"]
FROM base
COPY --from=left /d /d
COPY --from=right /size /other /
RUN --mount=from=left,source=/src,target=/m ["/bin/sh", "-c", "cat /m/a /d/e/f > /sum; rm -r /d"]
""",
    """\
FROM scratch AS base
COPY busybox /bin/
RUN ["/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]
ARG LEVEL
RUN --mount=target=/context ["/bin/sh", "-c", "cat /context/src/* > /out; echo $LEVEL > /level"]
FROM scratch
WORKDIR /w
COPY --from=base --chmod=600 /out /level ./
ADD src other /added/
LABEL done=yes
""",
)
State = tuple[int, int, int, int]
"""Dockerfile, version of `src/a`, version of `other`, LEVEL."""


class Worker:
    """One person with a context, building in a store that others use as well."""

    def __init__(self, folder: Path, aerogel: Aerogel, seed: int, found: dict[State, set[str]]) -> None:
        self.context = folder
        self.aerogel = aerogel
        self.chance = random.Random(seed)
        self.found = found
        self.state: State = (0, 0, 0, 0)
        self.ended: dict[str, int] = {}
        self.faults: list[str] = []
        folder.mkdir()
        shutil.copy(shutil.which("busybox") or "", folder / "busybox")
        (folder / "src").mkdir()
        (folder / "src" / "b").write_text("b")
        self.edit(self.state)

    def edit(self, state: State) -> None:
        self.state = state
        (self.context / "Dockerfile").write_text(DOCKERFILES[state[0]].replace("rm /bin/sh.old; ", ""))
        (self.context / "src" / "a").write_text("aA"[state[1] % 2] * (1 + state[1] // 2))
        (self.context / "other").write_text("o" * 100 * (state[2] + 1))

    @property
    def words(self) -> tuple[str, ...]:
        return ("build", str(self.context), "--build-arg", f"LEVEL={self.state[3]}", "--progress=plain", "-q")

    def step(self) -> None:
        at = self.chance.randrange(4)
        self.edit((*self.state[:at], self.chance.randrange((2, 3, 2, 2)[at]), *self.state[at + 1 :]))  # type: ignore[arg-type]  # four numbers
        dice = self.chance.random()
        if dice < PRUNED:
            words = self.chance.choice((["--all"], ["--max-size", "2MB"], ["--older-than", "1s"]))
            done = self.aerogel("prune", *words, check=False)
            self.check(done.returncode in (0, 3), f"prune: {done.stderr}")
            self.check(done.returncode == 0 or "another aerogel process" in done.stderr, done.stderr)
            self.note("pruned" if done.returncode == 0 else "busy")
        number = 0
        if dice > 1 - KILLED - INTERRUPTED:
            number = signal.SIGKILL if dice > 1 - KILLED else signal.SIGINT
            status, out, err = self.ended_by(number)
        else:
            done = self.aerogel(*self.words, check=False)
            status, out, err = done.returncode, done.stdout, done.stderr
        # In its first moments Ctrl-C ends the interpreter before a line of ours is read: -2, or 1 with its own words.
        is_early = number == signal.SIGINT and status in (-2, 1) and "/aerogel/" not in err
        word = "interrupted" if is_early else {0: "done", 130: "interrupted", -9: "killed"}.get(status, str(status))
        self.note(word)
        self.check(is_early or status == 0 or (number and status in (130, -9)), f"status {status}: {self.state}: {err}")
        self.check(is_early or "Traceback" not in err, err)
        if status == 0:
            self.found.setdefault(self.state, set()).add(out.strip())

    def ended_by(self, number: int) -> tuple[int, str, str]:
        """A build that gets a signal at some moment: status and output."""
        process = subprocess.Popen(
            self.aerogel.argv(*self.words),
            env=self.aerogel.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        time.sleep(self.chance.uniform(0.05, 0.6))
        if process.poll() is None:
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def note(self, word: str) -> None:
        self.ended[word] = self.ended.get(word, 0) + 1

    def check(self, is_well: object, what: str) -> None:
        if not is_well:
            self.faults.append(what)

    def run(self, number: int) -> None:
        try:
            for _ in range(number):
                self.step()
        except BaseException as error:  # noqa: BLE001 - a thread's error must reach the test
            self.faults.append(repr(error))


def test_long_run(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    found: dict[State, set[str]] = {}
    workers = [Worker(tmp_path / name, aerogel, SEED + number, found) for number, name in enumerate(("one", "two"))]
    threads = [threading.Thread(target=each.run, args=(BUILDS // 2,)) for each in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults = [fault for each in workers for fault in each.faults]
    assert not faults, "\n".join(faults)
    ended = {word: sum(each.ended.get(word, 0) for each in workers) for each in workers for word in each.ended}
    assert ended["killed"] > BUILDS // 25, ended
    assert ended["interrupted"] > BUILDS // 25, ended
    assert ended["done"] > BUILDS * 6 // 10, ended
    assert {state: len(ids) for state, ids in found.items()} == dict.fromkeys(found, 1)
    # The last build removes what the killed ones left.
    last = workers[0]
    assert aerogel("build", str(last.context), "--no-cache", "-q").returncode == 0
    assert leftovers(aerogel.state, locks=False) == []
    with Store.open(aerogel.state / "data", aerogel.state / "cache") as store:
        for record in store.images.list():
            for image in images(record.descriptor, store.blobs):
                assert validate(image) == []
    for number, (state, ids) in enumerate(sorted(found.items())):
        fresh = Aerogel(tmp_path / f"fresh-{number}")
        last.edit(state)
        words = ("build", str(last.context), "--build-arg", f"LEVEL={state[3]}")
        assert {json.loads(fresh(*words, "--json").stdout)["image_id"]} == ids, state
        shutil.rmtree(fresh.state)
