"""`why` names the first input that differs; `history` lists builds, their steps and an image's layers."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from bench import HEAD, Bench

pytestmark = pytest.mark.host("busybox")

TEXT = """\
FROM base AS made
ARG LEVEL=1
COPY src /src
RUN ["/bin/sh", "-c", "cat /src/*.c > /out"]
FROM base
COPY --from=made /out /out
RUN --mount=type=secret,id=one --mount=from=made,source=/src,target=/m ["/bin/sh", "-c", "cat /m/a.c > /copy"]
"""
COPIED = "COPY src /src"
RAN = 'RUN ["/bin/sh", "-c", "cat /src/*.c > /out"]'


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.write("src/a.c", "a")
    made.write("src/b.c", "b")
    return made


def why(bench: Bench, step: str | None = None, *words: str) -> list[dict]:
    found = bench.aerogel.json("why", *([step] if step else []), *words)["steps"]
    return found if step is None else found[0]["causes"]


def leaves(causes: list[dict]) -> list[str]:
    """The texts of the causes without causes of their own."""
    found = []
    for cause in causes:
        found += leaves(cause["causes"]) if cause.get("causes") else [cause["text"]]
    return found


CONTEXT: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (lambda src: (src / "a.c").write_text("A"), "`src/a.c`: content, 1 bytes as before"),
    "size": (lambda src: (src / "b.c").write_text("bbb"), "`src/b.c`: content, 1 -> 3 bytes"),
    "mode": (lambda src: (src / "a.c").chmod(0o755), "`src/a.c`: mode 0644 -> 0755"),
    "new": (lambda src: (src / "c.c").write_text("c"), "`src/c.c` is new"),
    "gone": (lambda src: (src / "b.c").unlink(), "`src/b.c` is gone"),
    "link": (
        lambda src: ((src / "a.c").unlink(), (src / "a.c").symlink_to("b.c")),
        "`a.c` is new",
    ),
}


@pytest.mark.parametrize("name", list(CONTEXT))
def test_a_file_of_the_context(bench: Bench, name: str) -> None:
    change, expected = CONTEXT[name]
    (bench.context / "src/a.c").chmod(0o644)
    bench.build(TEXT)
    change(bench.context / "src")
    bench.build(TEXT)
    assert why(bench, COPIED)[0]["text"] == expected
    (cause,) = why(bench, RAN)
    assert (cause["kind"], cause["text"], cause["status"]) == ("step", f"`{COPIED}` gives another result", "RAN")
    assert cause["causes"][0]["text"] == expected


def test_after_builds_in_which_nothing_ran(bench: Bench) -> None:
    """These know little of their steps; what is the same all the same is no cause."""
    (bench.context / "busybox").chmod(0o755)
    text = TEXT.replace('"cat /src/*.c > /out"', '"cat /src/*.c > /out; echo $LEVEL"')
    bench.build(text)
    told = bench.aerogel("why").stdout
    assert told == "6 steps ran: no earlier build of this Dockerfile, context and target is known\n"
    for _ in range(2):
        bench.build(text)
    bench.write("Dockerfile", (HEAD + text).replace("COPY busybox", "COPY --chmod=755 busybox"))
    bench.aerogel("build", "-q", "--build-arg", "LEVEL=2", str(bench.context))
    (cause,) = why(bench, "/src/*.c >")
    assert (cause["kind"], cause["path"]) == ("variable", "LEVEL")


def test_a_file_that_is_ignored_now(bench: Bench) -> None:
    bench.build(TEXT)
    bench.write(".dockerignore", "src/b.c\n")
    bench.build(TEXT)
    (cause,) = why(bench, COPIED)
    assert cause["text"] == "`src/b.c` is not taken any more, though it is there (is it ignored now?)"


def test_the_same_step_on_other_layers(bench: Bench) -> None:
    bench.build(TEXT)
    bench.build(TEXT.replace("COPY src /src", "COPY src/a.c /more\nCOPY src /src"))
    (cause,) = why(bench, RAN)
    assert (cause["text"], cause["status"]) == (f"`{COPIED}` is the same on other layers", "REUSED")
    assert leaves([cause]) == ["the instruction is new"]


@pytest.mark.parametrize(
    ("old", "new", "step", "expected"),
    [
        ("cat /src/*.c", "cat /src/a.c", "/src/a.c >", {"kind": "instruction", "text": "the command changed"}),
        ("LEVEL=1", "LEVEL=2", RAN, {"kind": "variable", "path": "LEVEL", "old": "1", "new": "2"}),
        ("ARG LEVEL=1", "ARG TOKEN=hunter22", RAN, {"kind": "variable", "path": "LEVEL", "old": "1"}),
        (
            "COPY src /src",
            "COPY --chmod=700 src /src",
            "chmod=700",
            {"kind": "instruction", "path": "chmod", "new": "700"},
        ),
        ("COPY src /src", "WORKDIR /src\nCOPY src /src", "WORKDIR", {"kind": "new", "new": "WORKDIR /src"}),
        ("id=one", "id=two", "id=two", {"kind": "mount", "old": "one", "new": "two"}),
        (
            "--mount=type=secret,id=one ",
            "--network=none ",
            "network=none",
            {"kind": "instruction", "path": "network"},
        ),
    ],
)
def test_the_instruction(bench: Bench, old: str, new: str, step: str, expected: dict[str, str]) -> None:
    bench.build(TEXT)
    bench.build(TEXT.replace(old, new))
    causes = why(bench, step)
    assert any(expected.items() <= cause.items() for cause in causes), causes
    assert "hunter22" not in json.dumps(causes)


def test_a_build_argument_and_the_image_below(bench: Bench) -> None:
    bench.build(TEXT)
    bench.build(TEXT, "--build-arg", "LEVEL=9")
    assert [cause["text"] for cause in why(bench, RAN)] == ["argument or variable `LEVEL` changed"]
    bench.build("FROM base\nCOPY src /below\n", "-t", "below")
    child = 'FROM below\nRUN ["/bin/sh", "-c", "true > /x"]\n'
    bench.build(child)
    bench.build("FROM base\nCOPY src /below2\n", "-t", "below")
    bench.build(child)
    (cause,) = why(bench, "true > /x")
    assert cause["causes"][0]["kind"] == "base"
    assert cause["text"] == "`FROM below` is another image"


def test_what_a_mount_or_a_copy_reads_of_another_stage(bench: Bench) -> None:
    bench.build(TEXT)
    bench.write("src/a.c", "aaaa")
    bench.build(TEXT)
    (copied,) = why(bench, "COPY --from=made")
    assert copied["causes"][0]["text"] == "`out`: content, 2 -> 5 bytes"
    assert "`src/a.c`: content, 1 -> 4 bytes" in leaves(why(bench, "/m/a.c"))


def test_what_is_no_change(bench: Bench) -> None:
    bench.build(TEXT)
    assert {cause["kind"] for step in why(bench) for cause in step["causes"]} == {"first"}
    bench.build(TEXT, "--no-cache-filter", "made")
    assert [cause["kind"] for cause in why(bench, RAN)] == ["no-cache"]
    step = bench.aerogel.json("why", "COPY --from=made")["steps"][0]
    assert step["status"] == "REUSED"
    os.utime(bench.context / "src/a.c", (5, 5))
    bench.build(TEXT, "--label", "a=b")
    assert why(bench) == []
    assert why(bench, "/m/a.c")[0]["kind"] == "same"
    bench.aerogel("prune", "--all")
    bench.build(TEXT, "--label", "a=c")
    kinds = {cause["kind"] for step in why(bench) for cause in step["causes"]}
    assert kinds <= {"removed", "first"}


def test_a_failed_build_and_the_one_after(bench: Bench) -> None:
    broken = TEXT.replace("cat /src/*.c > /out", "cat /src/*.c > /out; exit $(cat /src/status)")
    bench.write("src/status", "1")
    bench.fail(broken)
    (build,) = bench.aerogel.json("history")["builds"]
    assert (build["result"], build["error"]) == ("failed", "RUN failed: exit status 1")
    assert build["steps"]["FAILED"] == 1
    bench.write("src/status", "0")
    bench.build(broken)
    assert why(bench, COPIED)[0]["text"] == "`src/status`: content, 1 bytes as before"


def test_records_hold_no_secret(bench: Bench) -> None:
    (bench.context.parent / "secret").write_text("s3cr3t-value\n")
    text = (
        "FROM base\nARG TOKEN=plain-token\nARG DB=postgres://me:passw0rd@db/x\n"
        'RUN --mount=type=secret,id=one ["/bin/sh", "-c", "true"]\n'
    )
    bench.build(text, "--secret", f"id=one,src={bench.context.parent / 'secret'}", "--build-arg", "X=s3cr3t-value")
    told = b""
    for folder in ("builds-v1", "actions-v1"):
        told += b"".join(path.read_bytes() for path in (bench.aerogel.state / "cache" / folder).rglob("*.json"))
    for secret in (b"s3cr3t-value", b"plain-token", b"passw0rd"):
        assert secret not in told


def test_history(bench: Bench, tmp_path: Path) -> None:
    bench.build(TEXT, "-t", "app")
    bench.write("src/a.c", "x")
    bench.build(TEXT, "-t", "app", "--jobs", "1")
    done = bench.aerogel.json("history")["builds"]
    assert [build["result"] for build in done] == ["done", "done"]
    assert done[0]["image"] == bench.last["image_id"]
    assert done[0]["id"] > done[1]["id"]
    one = bench.aerogel.json("history", "@1", "--svg", str(tmp_path / "x.svg"))
    timed = sorted((s["began_s"], s["duration_s"]) for s in one["steps"] if s["status"] == "RAN")
    assert len(timed) == 4
    assert all(a + took <= b + 0.001 for (a, took), (b, _) in pairwise(timed)), "one job, one step"
    drawn = ET.parse(tmp_path / "x.svg").getroot()
    titles = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert any(f"{COPIED}: RAN" in title for title in titles)
    assert "made" in [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}tspan")], "the stage of the step"
    assert "build " in bench.aerogel("history", done[1]["id"]).stdout
    layers = bench.aerogel("history", "--format", "{{.CreatedBy}}", "--no-trunc", "app").stdout
    assert "COPY /out /out # buildkit" in layers
    assert bench.aerogel("history", "-q", "app").stdout.split()[0] == bench.last["image_id"][7:19]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["why", "nothing like it"], "why.no-step"),
        (["why", "COPY"], "why.ambiguous"),
        (["why", "--build", "@7"], "why.no-build"),
        (["history", "20200101-000000-0000"], "why.no-build"),
        (["history", "none"], "image.not-found"),
        (["history", "none", "--svg", "x"], "history.no-picture"),
    ],
)
def test_what_is_not_there(bench: Bench, words: list[str], code: str) -> None:
    bench.build(TEXT)
    done = bench.aerogel(*words, "--progress=json", check=False)
    assert done.returncode in (1, 2)
    assert json.loads(done.stderr.splitlines()[-1])["code"] == code
    assert json.loads(done.stderr.splitlines()[-1])["hints"]


def test_nothing_was_built(bench: Bench) -> None:
    done = bench.aerogel("why", check=False)
    assert done.returncode == 2
    assert done.stderr == "error: no build is on record\nhint: build something first: `aerogel build .`\n"
    assert bench.aerogel("history").stdout.splitlines() == ["BUILD   WHEN   TOOK   RESULT   NAME   STEPS"]
    assert HEAD
