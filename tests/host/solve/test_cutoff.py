"""Early cut-off: a step whose selected inputs are byte for byte the same hits, whatever ran again before it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from bench import Bench

pytestmark = pytest.mark.host("busybox")

PRODUCER = """\
FROM base AS made
RUN ["/bin/sh", "-c", "mkdir -p /out/sub && echo same > /out/sub/a && echo same > /out/b && cat /proc/sys/kernel/random/uuid > /noise"]
"""
MADE = PRODUCER.splitlines()[1]
AGAIN = ("--no-cache-filter", "made")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    "step",
    [
        "COPY --from=made /out/b /b",
        "COPY --from=made /out /all",
        "COPY --from=made /out/*/ /glob/",
        "COPY --from=made --parents /out/sub/a /",
        "COPY --from=made --chown=5:6 --chmod=600 /out/sub/ /owned/",
        "COPY --link --from=made /out /linked",
        "COPY --from=made --exclude=sub /out /part",
        'RUN --mount=from=made,source=/out,target=/m ["/bin/sh", "-c", "cat /m/b /m/sub/a > /sum"]',
        'RUN --mount=type=cache,target=/c,from=made,source=/out ["/bin/sh", "-c", "cat /c/b > /sum"]',
    ],
)
def test_the_producer_ran_again_and_gave_the_same(bench: Bench, step: str) -> None:
    text = f'{PRODUCER}FROM base\n{step}\nRUN ["/bin/sh", "-c", "echo after > /after"]\n'
    assert bench.build(text)[step] == "RAN"
    image = bench.last["image_id"]
    statuses = bench.build(text, *AGAIN)
    assert statuses[MADE] == "RAN"
    assert statuses[step] == "REUSED"
    assert statuses['RUN ["/bin/sh", "-c", "echo after > /after"]'] == "REUSED"
    assert bench.last["image_id"] == image


@pytest.mark.parametrize(
    ("step", "other"),
    [
        ("COPY --from=made /out /all", "echo other > /out/sub/a"),
        ("COPY --from=made /out /all", "chmod 700 /out/sub/a"),
        ("COPY --from=made /out /all", "chown 3 /out/sub/a"),
        ("COPY --from=made /out /all", "touch /out/sub/more"),
        ('RUN --mount=from=made,source=/out,target=/m ["/bin/sh", "-c", "ls -lR /m > /sum"]', "rm /out/sub/a"),
    ],
)
def test_what_the_step_selected_is_another(bench: Bench, step: str, other: str) -> None:
    changed = PRODUCER.replace("cat /proc", f"{other} && cat /proc")
    assert bench.build(f"{PRODUCER}FROM base\n{step}\n")[step] == "RAN"
    first = bench.last["image_id"]
    assert bench.build(f"{changed}FROM base\n{step}\n")[step] == "RAN"
    assert bench.last["image_id"] != first


@pytest.mark.parametrize(
    "step",
    ["COPY file /file", "ADD file /file", "ADD archive.tar /unpacked/", "COPY --from=extra file /file", "WORKDIR /w"],
)
def test_a_copy_onto_another_root(bench: Bench, step: str, tmp_path: Path) -> None:
    """The layer is the same when the root below it changed where the step does not look."""
    import tarfile

    bench.write("file", "content")
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "file").write_text("extra")
    with tarfile.open(bench.context / "archive.tar", "w") as archive:
        archive.add(bench.context / "file", "inner")
    words = ("--build-context", f"extra={tmp_path / 'extra'}")
    statuses = bench.build(f"{PRODUCER}{step}\n", *words)
    assert statuses[step] == "RAN"
    layers = bench.last["layers"]
    statuses = bench.build(f"{PRODUCER}{step}\n", *words, *AGAIN)
    assert statuses[MADE] == "RAN"
    # The step is in the stage that was asked to run again, so it runs; in a child of that stage it is found.
    assert bench.last["layers"][-1] == layers[-1]
    child = f"{PRODUCER}FROM made\n{step}\n"
    assert bench.build(child, *words, *AGAIN)[step] == "REUSED"


def test_triggers_of_a_base(bench: Bench) -> None:
    bench.write("file", "content")
    bench.build('FROM base\nONBUILD COPY file /file\nONBUILD RUN ["/bin/sh", "-c", "cp /file /copy"]\n', "-t", "parent")
    child = 'FROM parent\nRUN ["/bin/sh", "-c", "echo child > /child"]\n'
    first = bench.build(child)
    assert first["COPY file /file"] == "RAN"
    # A parent with other layers and the same triggers.
    bench.build(
        'FROM base\nRUN ["/bin/sh", "-c", "echo x > /x"]\nONBUILD COPY file /file\n'
        'ONBUILD RUN ["/bin/sh", "-c", "cp /file /copy"]\n',
        "-t",
        "parent",
    )
    second = bench.build(child)
    assert second["COPY file /file"] == "REUSED"
    assert second['RUN ["/bin/sh", "-c", "cp /file /copy"]'] == "RAN", "a command sees its whole root"
    bench.write("file", "changed")
    assert bench.build(child)["COPY file /file"] == "RAN"


def test_an_image_is_known_by_its_layers(bench: Bench) -> None:
    bench.build("FROM base\nCOPY busybox /tool\n", "-t", "tools")
    text = "FROM base\nCOPY --from=tools /tool /tool\n"
    assert bench.build(text)["COPY --from=tools /tool /tool"] == "RAN"
    bench.build('FROM base\nCOPY busybox /tool\nRUN ["/bin/sh", "-c", "echo > /more"]\n', "-t", "tools")
    assert bench.build(text)["COPY --from=tools /tool /tool"] == "REUSED"


def test_stages_that_are_not_needed_are_not_touched(bench: Bench) -> None:
    text = (
        'FROM base AS broken\nCOPY none /\nRUN ["/bin/false"]\n'
        'FROM registry.invalid/none AS absent\nRUN ["/bin/false"]\n'
        "FROM base AS wanted\nCOPY busybox /b\nFROM absent\nCOPY --from=broken / /\n"
    )
    statuses = bench.build(text, "--target", "wanted")
    assert "COPY none /" not in statuses


def test_equal_steps_of_two_stages_run_once(bench: Bench) -> None:
    step = 'RUN ["/bin/sh", "-c", "cat /proc/sys/kernel/random/uuid > /id"]'
    bench.build(
        f"FROM base AS one\n{step}\nFROM base AS two\n{step}\n"
        "FROM base\nCOPY --from=one /id /one\nCOPY --from=two /id /two\n",
        "-t",
        "once",
    )
    done = bench.aerogel("run", "--entrypoint", "/bin/busybox", "once", "cmp", "/one", "/two", check=False)
    assert done.returncode == 0, done.stderr


def test_jobs(bench: Bench) -> None:
    """With two jobs each of two commands can wait for the other; with one, no two steps work at once."""
    wait = 'RUN --mount=type=cache,target=/c ["/bin/sh", "-c", "touch /c/{}; until [ -e /c/{} ]; do sleep 0.05; done; touch /{}"]'
    text = (
        f"FROM base AS one\n{wait.format('a', 'b', 'x')}\nFROM base AS two\n{wait.format('b', 'a', 'y')}\n"
        "FROM base\nCOPY --from=one /x /\nCOPY --from=two /y /\n"
    )
    bench.build(text, "--jobs", "2", "--timeout", "90s")
    bench.build(text.replace("touch /c/", "true; touch /c/"), "--jobs", "1", "--timeout", "90s")
    steps = bench.aerogel.json("history", "@1")["steps"]
    worked = sorted((each["began_s"], each["duration_s"]) for each in steps if each["status"] in ("RAN", "REUSED"))
    assert len(worked) == 4
    assert all(began + took <= later + 0.001 for (began, took), (later, _) in pairwise(worked))
