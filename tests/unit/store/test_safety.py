"""Processes that are killed, that share a store, and disks that are full."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.oci.digest import digest_of
from aerogel.oci.reference import Reference
from aerogel.store.store import Store

WRITER = Path(__file__).parent / "writer.py"
ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(WRITER), *arguments], env=ENV, stdout=subprocess.PIPE)


def check(store: Store) -> int:
    """All that the store says is true; returns how many actions it has."""
    for digest, size in store.blobs.all():
        assert digest_of(store.blobs.read(digest, size)) == digest
    for diff_id, _ in store.layers.all():
        record = store.layers.record(diff_id)
        if record is not None:
            for blob in record.blobs.values():
                assert store.blobs.size(blob.digest) == blob.size
            assert digest_of(store.layers.index_bytes(diff_id)) == diff_id
    for image in store.images.list():
        manifest = json.loads(store.blobs.read(image.descriptor.digest))
        assert store.blobs.has(manifest["layer"])
    count = 0
    for key, _ in store.actions.all():
        result = store.actions.get(key)
        assert result is not None
        count += 1
        assert store.layers.record(result["layer"]) is not None
        path = store.snapshots.dir_for("root", key)
        assert path is not None
        assert Path(path, "fs", "file").read_text() == result["layer"]
    return count


@pytest.mark.slow
@pytest.mark.damage
def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(2)
    data, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    done = turns = 0
    while turns < 12 or (done <= 10 and turns < 200):
        turns += 1
        writers = [start(data, cache, str(chance.randrange(1 << 30))) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begun\n"
        time.sleep(chance.uniform(0, 0.12))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        with Store.open(data, cache) as store:
            count = check(store)
            assert count >= done
            done = count
            assert store.reclaim() == []
            assert list(Path(data, "scratch").iterdir()) == []
            assert list(Path(cache, "scratch").iterdir()) == []
    assert done > 10


def test_a_living_process_keeps_its_scratch(tmp_path: Path) -> None:
    with Store.open(tmp_path / "d", tmp_path / "c") as one, Store.open(tmp_path / "d", tmp_path / "c") as two:
        made = one.snapshots.new("root")
        with one.blobs.write() as writer:
            writer.write(b"data")
            two.blobs.put(b"other")
            assert two.reclaim() == []
            assert Path(made).is_dir()
            writer.commit()
        assert one.snapshots.commit(made, "root", "k")


def test_what_cannot_be_removed_is_offered_to_the_remover(tmp_path: Path) -> None:
    with Store.open(tmp_path / "d", tmp_path / "c") as store:
        leftover = Path(store.cache, "scratch", "s-1-dead", "d-1")
        (leftover / "locked" / "deep").mkdir(parents=True)
        (leftover / "locked" / "deep" / "file").touch()
        (leftover / "locked" / "link").symlink_to(tmp_path)
        (leftover / "locked" / "deep").chmod(0o000)
        (leftover / "locked").chmod(0o555)
        assert store.reclaim(shutil.rmtree) == []
        assert not leftover.parent.exists()
        assert tmp_path.exists()


def test_once_does_the_work_once(tmp_path: Path) -> None:
    data, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    writers = [start(data, cache, "once") for _ in range(4)]
    outputs = [writer.communicate()[0].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    assert sum(output.count("worked") for output in outputs) == 1
    assert sum(output.count("found") for output in outputs) == 3
    assert list(Path(cache, "locks").iterdir()) == []


def test_once_among_threads_and_with_an_error(store: Store) -> None:
    running = []
    most = []

    def work() -> None:
        with store.once("key"):
            running.append(1)
            most.append(len(running))
            time.sleep(0.005)
            running.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    with pytest.raises(RuntimeError), store.once("key"):
        raise RuntimeError
    with store.once("key") as waited:
        assert waited is False


def test_the_holder_of_a_lock_may_be_killed(tmp_path: Path) -> None:
    data, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    holder = start(data, cache, "hold")
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    waits: list[int] = []

    def kill() -> None:
        waits.append(1)
        holder.kill()
        holder.communicate()

    with Store.open(data, cache) as store, store.once("sha256:work", kill) as waited:
        assert waited
    assert waits == [1]


def test_removing_needs_the_store_alone(tmp_path: Path) -> None:
    with Store.open(tmp_path / "d", tmp_path / "c") as one:
        with Store.open(tmp_path / "d", tmp_path / "c"), pytest.raises(AerogelError) as caught, one.exclusive():
            pass
        assert caught.value.code == "store.busy"
        with one.exclusive():
            waits: list[int] = []
            thread = threading.Thread(
                target=lambda: Store.open(tmp_path / "d", tmp_path / "c", on_wait=lambda: waits.append(1)).close()
            )
            thread.start()
            while not waits:
                time.sleep(0.001)
            assert thread.is_alive()
        thread.join()


@pytest.mark.host
def test_a_full_disk(tmp_path: Path) -> None:
    """On a file system of 2 MB: told in words, nothing half-written, usable after space is freed."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces")
    script = (
        f"mount -t tmpfs -o size=2m tmpfs {tmp_path} && exec {sys.executable} {WRITER} {tmp_path}/d {tmp_path}/c full"
    )
    result = subprocess.run(["unshare", "-rm", "sh", "-c", script], env=ENV, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["codes"] == ["store.full"] * 5
    assert told["exit"] == EXIT_HOST
    assert "is full: " in told["message"]
    assert " free" in told["message"]
    assert told["blobs"] == 1
    assert told["after"] is True


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AerogelError) as caught:
        Store.open(tmp_path / "file" / "data", tmp_path / "cache")
    assert caught.value.code == "store.io"
    assert caught.value.exit_status == EXIT_HOST


@pytest.mark.damage
def test_two_processes_tag_the_same_name(tmp_path: Path) -> None:
    data, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    writers = [start(data, cache, "tag") for _ in range(3)]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    with Store.open(data, cache) as store:
        assert store.images.resolve(Reference.parse("same")) is not None
        check(store)


def test_a_build_that_has_nothing_to_do_loads_little(tmp_path: Path) -> None:
    """Opening the store and asking the action cache needs none of the slow modules."""
    code = (
        "import sys; from aerogel.store.store import Store\n"
        f"store = Store.open({str(tmp_path / 'd')!r}, {str(tmp_path / 'c')!r})\n"
        "store.actions.get('sha256:' + '0' * 64); store.snapshots.dir_for('root', 'x')\n"
        "print(*sorted({'msgspec', 'ctypes', 'shutil', 'pathlib', 'zstandard', 'subprocess'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert not (tmp_path / "d" / "scratch").exists()
