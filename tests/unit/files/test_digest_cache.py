"""The table of remembered digests: it grows, it is shared, damage in it counts as absence."""

from __future__ import annotations

import os
import random
import stat
import threading
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from aerogel.files import hashing
from aerogel.files.hashing import DigestCache


def status(number: int) -> SimpleNamespace:
    """The state of a file that has lain there for long."""
    return SimpleNamespace(
        st_dev=7, st_ino=1000 + number, st_size=number % 50, st_mtime_ns=10**18 - number, st_ctime_ns=10**18 + number
    )


class Files:
    """Opens files whose states are `status(number)`, and counts how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = 0
        self.number = 0
        self._fstat = os.fstat
        monkeypatch.setattr("aerogel.files.hashing.os.fstat", self._state)

    def _state(self, fd: int) -> object:
        found = self._fstat(fd)
        return status(self.number) if stat.S_ISFIFO(found.st_mode) else found

    def digest(self, cache: DigestCache, number: int) -> bytes:
        self.number = number

        def open_file() -> int:
            self.opened += 1
            read_fd, write_fd = os.pipe()
            os.write(write_fd, b"%d" % number)
            os.close(write_fd)
            return read_fd

        return cache.digest(status(number), open_file, b"name")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(monkeypatch)


def expected(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


def test_many_are_remembered(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aerogel.files.hashing._PENDING", 2000)
    cache = DigestCache(tmp_path / "digests")
    count = 6000  # more than are held back, and more than the first table holds
    assert all(files.digest(cache, number) == expected(number) for number in range(count))
    cache.save()
    assert files.opened == count
    again = DigestCache(tmp_path / "digests")
    assert all(files.digest(again, number) == expected(number) for number in reversed(range(count)))
    assert files.opened == count
    files.digest(again, count + 1)
    assert files.opened == count + 1


def test_two_writers_lose_nothing(files: Files, tmp_path: Path) -> None:
    first, second = DigestCache(tmp_path / "digests"), DigestCache(tmp_path / "digests")
    for number in range(3000):
        files.digest(first if number % 2 else second, number)
    threads = [threading.Thread(target=cache.save) for cache in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files.opened = 0
    again = DigestCache(tmp_path / "digests")
    assert all(files.digest(again, number) == expected(number) for number in range(3000))
    assert files.opened == 0


def test_damage_counts_as_absent(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "digests"
    cache = DigestCache(path)
    for number in range(1500):
        files.digest(cache, number)
    cache.save()
    data = bytearray(path.read_bytes())
    rng = random.Random(5)
    for _ in range(2000):
        data[rng.randrange(32, len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    files.opened = 0
    again = DigestCache(path)
    assert all(files.digest(again, number) == expected(number) for number in range(1500))
    assert 0 < files.opened < 1500
    again.save()


@pytest.mark.parametrize("data", [b"", b"x", b"aerogel digests 1\n" + bytes(144), b"aerogel digests 2" + bytes(100)])
def test_another_file_is_replaced(files: Files, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "digests"
    path.write_bytes(data)
    for _ in range(2):
        cache = DigestCache(path)
        assert files.digest(cache, 1) == expected(1)
        cache.save()
    assert files.opened == 1


def test_a_folder_in_its_place_costs_only_time(files: Files, tmp_path: Path) -> None:
    (tmp_path / "digests").mkdir()
    for _ in range(2):
        cache = DigestCache(tmp_path / "digests")
        assert files.digest(cache, 1) == expected(1)
        cache.save()
    assert files.opened == 2


@pytest.mark.slow
def test_a_big_table_forgets_nothing(tmp_path: Path) -> None:
    place = tmp_path / "table"
    names = [sha256(b"%d" % n).digest() for n in range(60_000)]
    statuses = [status(n) for n in range(60_000)]
    for start in range(0, 60_000, 15_000):
        hashing._Table.add(place, {hashing._key(statuses[n]): names[n] for n in range(start, start + 15_000)})
    hashing._Table.add(place, {hashing._key(statuses[7]): names[8]})
    table = hashing._Table.open(place, os.O_RDONLY)
    assert table is not None
    assert (table.used, table.slots) == (60_000, 1 << 18)
    names[7] = names[8]
    assert all(table.find(hashing._key(statuses[n])) == names[n] for n in range(60_000))
    assert dict(table._records()).keys() == {hashing._key(each) for each in statuses}
    table.close()
