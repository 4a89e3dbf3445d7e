"""Blobs: whole or absent, checked when read."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, digest_of
from aerogel.store.store import Store

NOWHERE = digest_of(b"nowhere")


def scratch_files(store: Store) -> list[str]:
    found = []
    for root in (store.data, store.cache):
        for _, _, files in os.walk(f"{root}/scratch"):
            found += [name for name in files if name != "lock"]
    return found


def write_as(store: Store, data: bytes, digest: Digest, size: int | None = None) -> None:
    with store.blobs.write() as writer:
        writer.write(data)
        writer.commit(digest, size)


def drain(store: Store, digest: Digest) -> None:
    with store.blobs.open(digest, 8) as stream:
        while stream.read(3):
            pass


@given(st.binary(max_size=3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=50)
def test_put_and_read_back(store: Store, data: bytes) -> None:
    descriptor = store.blobs.put(data, "text/plain")
    assert (descriptor.digest, descriptor.size, descriptor.media_type) == (digest_of(data), len(data), "text/plain")
    assert store.blobs.has(descriptor.digest)
    assert store.blobs.size(descriptor.digest) == len(data)
    assert store.blobs.read(descriptor.digest) == data
    assert os.stat(store.blobs.path(descriptor.digest)).st_mode & 0o777 == 0o444
    assert scratch_files(store) == []


def test_missing(store: Store) -> None:
    assert not store.blobs.has(NOWHERE)
    assert store.blobs.size(NOWHERE) is None
    for read in (store.blobs.open, store.blobs.read, store.blobs.open_fd):
        with pytest.raises(AerogelError) as caught:
            read(NOWHERE)
        assert caught.value.code == "store.missing"


def test_nothing_stays_without_commit(store: Store) -> None:
    with store.blobs.write() as writer:
        writer.write(b"half")
    assert scratch_files(store) == []
    with pytest.raises(ZeroDivisionError), store.blobs.write() as writer:
        os.write(writer.fd, bytes(1 // len(b"")))
    assert scratch_files(store) == []
    assert list(store.blobs.all()) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_commit_checks_what_was_written(store: Store, algorithm: str) -> None:
    right = Digest(f"{algorithm}:{hashlib.new(algorithm, b'data').hexdigest()}")
    wrong = Digest(f"{algorithm}:{hashlib.new(algorithm, b'other').hexdigest()}")
    with pytest.raises(AerogelError) as caught:
        write_as(store, b"data", wrong)
    assert caught.value.code == "store.mismatch"
    assert f"expected {wrong}" in caught.value.detail
    assert f"found    {right}" in caught.value.detail
    with pytest.raises(AerogelError, match="not what its descriptor says"):
        write_as(store, b"data", right, 5)
    assert list(store.blobs.all()) == []
    assert scratch_files(store) == []
    with store.blobs.write() as writer:
        writer.write(b"da")
        writer.write(b"ta")
        assert writer.commit(right, 4) == right
    assert list(store.blobs.all()) == [(right, 4)]


def test_copy_in_refuses_a_stream_that_is_longer_or_other(store: Store) -> None:
    digest = digest_of(b"data")
    for stream, size in ((b"data and more" * 1000, 4), (b"dat", 4), (b"atad", None)):
        with pytest.raises(AerogelError) as caught:
            store.blobs.copy_in(io.BytesIO(stream), digest, size)
        assert caught.value.code == "store.mismatch"
    assert list(store.blobs.all()) == []
    assert store.blobs.copy_in(io.BytesIO(b"data"), digest, 4) == digest


def test_a_layer_writer_may_use_the_descriptor(store: Store) -> None:
    with store.blobs.write() as writer:
        os.write(writer.fd, b"compressed")
        writer.commit(digest_of(b"compressed"), 10)
    assert store.blobs.read(digest_of(b"compressed")) == b"compressed"


@pytest.mark.parametrize("damage", [b"changed!", b"longer than it was", b"", b"cut"])
def test_a_damaged_blob_is_told_and_dropped(store: Store, damage: bytes) -> None:
    digest = store.blobs.put(b"original").digest
    path = Path(store.blobs.path(digest))
    path.unlink()
    path.write_bytes(damage)
    with pytest.raises(AerogelError) as caught:
        drain(store, digest)
    assert caught.value.code == "store.corrupt"
    assert digest in caught.value.detail
    assert not store.blobs.has(digest)
    assert store.blobs.put(b"original").digest == digest
    assert store.blobs.read(digest) == b"original"


def test_a_torn_blob_is_replaced_when_it_is_put_again(store: Store) -> None:
    digest = store.blobs.put(b"original").digest
    path = Path(store.blobs.path(digest))
    path.unlink()
    path.touch()
    store.blobs.put(b"original")
    assert store.blobs.read(digest) == b"original"


def test_two_writers_of_one_blob(store: Store) -> None:
    data = os.urandom(100_000)
    digest = digest_of(data)
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with store.blobs.write() as writer:
                for at in range(0, len(data), 1000):
                    writer.write(data[at : at + 1000])
                barrier.wait()
                writer.commit(digest)
            assert store.blobs.read(digest) == data
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(store.blobs.all()) == [(digest, len(data))]
    assert scratch_files(store) == []


def test_sync_and_remove(store: Store) -> None:
    one, two = store.blobs.put(b"one").digest, store.blobs.put(b"two").digest
    store.blobs.sync([one])
    store.blobs.sync()
    assert store.blobs.remove(one) == 3
    assert store.blobs.remove(one) == 0
    assert [digest for digest, _ in store.blobs.all()] == [two]


def test_a_document_has_a_limit(store: Store) -> None:
    with store.blobs.write() as writer:
        os.ftruncate(writer.fd, 17 << 20)
        digest = writer.commit(NOWHERE)
    with pytest.raises(AerogelError) as caught:
        store.blobs.read(digest)
    assert caught.value.code == "store.too-large"


def test_a_download_that_was_ended_is_gone_on_with(store: Store) -> None:
    data, digest = b"the whole of it", digest_of(b"the whole of it")
    with store.blobs.resume(digest) as writer:
        os.write(writer.fd, data[:7])
        writer.is_kept = True
    assert not store.blobs.has(digest)
    assert store.reclaim() == []
    part = next(Path(store.data, "scratch").glob("p-*"))
    with store.blobs.resume(digest) as writer:
        assert os.pread(writer.fd, 100, 0) == data[:7]
        store.reclaim(parts=True)
        assert part.exists(), "somebody works on it"
        os.lseek(writer.fd, 0, os.SEEK_END)
        os.write(writer.fd, data[7:])
        writer.commit(digest, len(data))
    assert store.blobs.read(digest) == data
    assert scratch_files(store) == []
    # What is not kept, sealed by a process that was killed then, or old, goes.
    with store.blobs.resume(NOWHERE) as writer:
        os.write(writer.fd, b"wrong")
    assert scratch_files(store) == []
    part.touch(mode=0o600)
    os.utime(part, (1, 1))
    assert store.reclaim() == []
    assert not part.exists()
    part.touch(mode=0o600)
    assert store.reclaim(parts=True) == []
    assert not part.exists()


def test_the_medium_begins_while_a_blob_still_grows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, at, size, advice: told.append((at, size, advice)))
    with store.blobs.write() as writer:
        writer.settle()
        writer.write(b"first")
        writer.settle()
        writer.write(b"second")
        writer.settle()
        os.ftruncate(writer.fd, 2)
        writer.settle()
        os.lseek(writer.fd, 2, os.SEEK_SET)
        os.write(writer.fd, b"third")
        writer.settle()
    assert told == [(at, size, os.POSIX_FADV_DONTNEED) for at, size in ((0, 5), (5, 6), (2, 5))]
