"""The engine on real layers and real commands, without network: a root of Debian's busybox-static, FROM scratch.

What a key must and must not depend on, what is said of each step, and what happens when the store is damaged or a
process of ours dies. Debian package: busybox-static.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from bench import HEAD, Bench
from waiting import until

pytestmark = pytest.mark.host("busybox")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_statuses_mean_what_they_say(bench: Bench) -> None:
    bench.write("a", "1")
    bench.write("b", "1")
    text = (
        'FROM base AS left\nCOPY a /a\nRUN ["/bin/sh", "-c", "wc -c < /a > /size"]\n'
        "FROM scratch AS middle\nCOPY --from=left /size /half\n"
        "FROM scratch\nCOPY --from=middle /half /size\nCOPY b /b\n"
    )
    first = bench.build(text)
    assert set(first.values()) == {"RAN"}
    image = bench.last["image_id"]
    again = bench.build(text)
    assert again["COPY b /b"] == "CACHED"
    assert set(again.values()) == {"CACHED", "SKIPPED"}
    bench.write("b", "2")
    later = bench.build(text)
    assert (later["COPY --from=middle /half /size"], later["COPY b /b"]) == ("CACHED", "RAN")
    bench.write("b", "1")
    bench.write("a", "2")
    cut = bench.build(text)
    assert cut["COPY a /a"] == "RAN"
    assert cut["COPY --from=left /size /half"] == "REUSED", "the producer ran again and the file is the same"
    assert cut["COPY --from=middle /half /size"] == cut["COPY b /b"] == "REUSED"
    assert bench.last["image_id"] == image


@pytest.mark.parametrize("change", ["content", "mode", "name", "kind"])
def test_a_changed_file_runs_the_copy_again(bench: Bench, change: str) -> None:
    bench.write("d/f", "same")
    before = bench.build("FROM base\nCOPY d /d/\n")
    assert before["COPY d /d/"] == "RAN"
    path = bench.context / "d/f"
    status = path.stat()
    if change == "content":
        path.write_text("SAME")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "mode":
        path.chmod(0o755)
    elif change == "name":
        path.rename(path.with_name("g"))
    else:
        path.unlink()
        path.symlink_to("elsewhere")
    assert bench.build("FROM base\nCOPY d /d/\n")["COPY d /d/"] == "RAN"


def test_time_owner_of_the_file_and_ignored_files_do_not_count(bench: Bench) -> None:
    bench.write("d/f", "same")
    bench.write(".dockerignore", "d/*.tmp\n")
    bench.build("FROM base\nCOPY d /d/\n")
    os.utime(bench.context / "d/f", (1, 1))
    os.chown(bench.context / "d/f", 12, 34)
    bench.write("d/x.tmp", "ignored")
    assert bench.build("FROM base\nCOPY d /d/\n")["COPY d /d/"] == "CACHED"


def test_chown_follows_the_accounts_of_the_base(bench: Bench) -> None:
    text = "FROM base\nCOPY passwd /etc/passwd\nCOPY --chown=app a /a\n"
    bench.write("a", "1")
    for number in (1000, 1001):
        bench.write("passwd", f"root:x:0:0::/:/bin/sh\napp:x:{number}:{number}::/:/bin/sh\n")
        bench.build(text, "-t", "owner")
        done = bench.aerogel("run", "--entrypoint", "/bin/busybox", "owner", "stat", "-c", "%u:%g", "/a")
        assert done.stdout.strip() == f"{number}:{number}"


def test_no_cache_and_its_filter(bench: Bench) -> None:
    text = 'FROM base AS one\nRUN ["/bin/sh", "-c", "echo 1 > /one"]\nFROM base AS two\nRUN ["/bin/sh", "-c", "echo 2 > /two"]\nFROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n'
    bench.build(text)
    one = 'RUN ["/bin/sh", "-c", "echo 1 > /one"]'
    two = 'RUN ["/bin/sh", "-c", "echo 2 > /two"]'
    filtered = bench.build(text, "--no-cache-filter", "two")
    assert filtered[two] == "RAN"
    assert filtered[one] in ("CACHED", "SKIPPED")
    everything = bench.build(text, "--no-cache")
    assert set(everything.values()) == {"RAN"}


def test_the_epoch_counts(bench: Bench) -> None:
    text = 'FROM base\nRUN ["/bin/sh", "-c", "echo 1 > /one"]\n'
    bench.build(text)
    image = bench.last["image_id"]
    bench.build(text, "--build-arg", "SOURCE_DATE_EPOCH=1000000000")
    assert bench.last["image_id"] != image
    bench.build(text)
    assert bench.last["image_id"] == image


def test_compression_is_what_was_asked_for(bench: Bench) -> None:
    text = "FROM scratch\nCOPY busybox /b\n"
    digests = []
    for words in ((), ("--compression", "zstd"), (), ("--compression", "uncompressed"), ()):
        bench.build(text, *words)
        digests.append(bench.last["descriptor"]["digest"])
    assert digests[0] == digests[2] == digests[4]
    assert len(set(digests)) == 3


def test_a_file_that_a_step_may_not_change_meanwhile(bench: Bench) -> None:
    bench.write("f", "AAAA")
    nap = f"sleep 9{os.getpid()}.7"
    bench.write("Dockerfile", HEAD + f'FROM base\nRUN ["/bin/sh", "-c", "{nap}; true"]\nCOPY f /f\n')
    process = subprocess.Popen(
        bench.aerogel.argv("build", str(bench.context), "--progress=plain"),
        env=bench.aerogel.env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if nap in line and bench.context.joinpath("f").read_text() == "AAAA":
            bench.write("f", "BBBB")
            for pid in until(lambda: asleep(nap)):
                os.kill(pid, signal.SIGTERM)
    process.communicate()
    assert process.returncode == 1
    assert "`f` changed during the build" in "".join(lines)


@pytest.mark.damage
def test_damaged_blobs_are_found_and_made_again(bench: Bench) -> None:
    bench.write("big", "0123456789" * 400_000)
    text = "FROM scratch AS b\nCOPY big /big\nFROM scratch\nCOPY --from=b /big /{}\n"
    bench.build(text.format("one"), "--compression", "uncompressed")
    for blob in bench.blobs.iterdir():
        if blob.stat().st_size > 4_000_000:
            blob.chmod(0o600)
            with blob.open("r+b") as file:
                file.seek(100_000)
                file.write(b"damage")
    done = bench.fail(text.format("two"), "--compression", "uncompressed")
    assert "blob `sha256:" in done.stderr
    bench.build(text.format("two"), "--compression", "uncompressed")


def test_umask_does_not_reach_the_image(bench: Bench) -> None:
    text = 'FROM base\nUSER 1000\nWORKDIR /w\nRUN ["/bin/sh", "-c", "echo 1 > /w/f"]\n'
    ids = set()
    for umask in (0o077, 0o022, 0o000):
        shutil.rmtree(bench.aerogel.state, ignore_errors=True)
        bench.build(text, preexec_fn=lambda umask=umask: os.umask(umask))
        ids.add(bench.last["image_id"])
    assert len(ids) == 1


def test_the_helper_dies(bench: Bench) -> None:
    bench.write("Dockerfile", HEAD + 'FROM base\nRUN ["/bin/sh", "-c", "sleep 20"]\n')
    process = subprocess.Popen(
        bench.aerogel.argv("build", str(bench.context), "--progress=plain"),
        env=bench.aerogel.env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if "sleep 20" in line and not line.startswith("error"):
            time.sleep(0.5)
            for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
                for child in children.read_text().split():
                    os.kill(int(child), signal.SIGKILL)
    process.communicate()
    assert process.returncode == 3
    assert "Traceback" not in "".join(lines)
    assert "the sandbox helper ended" in "".join(lines)


def test_two_builds_do_the_work_once(bench: Bench) -> None:
    bench.write(
        "Dockerfile", HEAD + 'FROM base\nRUN ["/bin/sh", "-c", "sleep 2; cat /proc/sys/kernel/random/uuid > /id"]\n'
    )
    results: list[dict] = []
    threads = [
        threading.Thread(target=lambda: results.append(bench.aerogel.json("build", str(bench.context))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result["image_id"] for result in results}) == 1
    ran = [step for result in results for step in result["steps"] if "uuid" in step["name"] and step["status"] == "RAN"]
    assert len(ran) == 1


def test_a_waiting_build_can_be_interrupted(bench: Bench) -> None:
    nap = f"sleep 9{os.getpid()}.5"
    bench.write("Dockerfile", HEAD + f'FROM base\nRUN ["/bin/sh", "-c", "{nap}; true"]\n')
    command = bench.aerogel.argv("build", str(bench.context), "--progress=plain")
    options = {"env": bench.aerogel.env, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    first = subprocess.Popen(command, **options)
    assert first.stderr is not None
    for line in first.stderr:
        if nap in line:
            break
    until(lambda: asleep(nap))
    second = subprocess.Popen(command, **options)
    assert second.stderr is not None
    for line in second.stderr:
        if "waiting" in line:
            break
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=120)
    assert second.returncode == 130
    assert first.poll() is None, "it did not wait for the end of the first one"
    for pid in asleep(nap):
        os.kill(pid, signal.SIGTERM)
    first.communicate(timeout=120)
    assert first.returncode == 0


def asleep(command: str) -> list[int]:
    """The processes that are a command, by its words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip() == command:
                found.append(int(path.parent.name))
    return found


def test_names_that_mean_a_removal_are_refused(bench: Bench) -> None:
    bench.write("d/.wh.keep", "")
    done = bench.fail("FROM base\nCOPY d /d/\n")
    assert "`.wh.`" in done.stderr


def test_a_heredoc_replaces_a_copied_file(bench: Bench) -> None:
    text = 'FROM base AS b\nRUN ["/bin/sh", "-c", "for n in a b c; do echo $n > /$n; done"]\nFROM base\nCOPY --from=b /a /b /c <<b /q/\nnew\nb\n'
    bench.build(text, "-t", "replaced")
    done = bench.aerogel("run", "--entrypoint", "/bin/busybox", "replaced", "cat", "/q/a", "/q/b", "/q/c")
    assert done.stdout == "a\nnew\nc\n"


def test_mode_of_the_root_is_no_part_of_a_layer(bench: Bench) -> None:
    text = 'FROM base\nRUN ["/bin/busybox", "chmod", "1777", "/"]\nRUN ["/bin/sh", "-c", "stat -c %a / > /mode"]\n'
    bench.build(text, "-t", "mode")
    done = bench.aerogel("run", "--entrypoint", "/bin/busybox", "mode", "cat", "/mode")
    assert done.stdout == "755\n"
