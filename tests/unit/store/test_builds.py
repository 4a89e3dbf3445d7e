"""Records of builds: bounded, in order whatever the clock does, and absent when they are damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aerogel.store import builds as module
from aerogel.store.store import Store

NOW = 1_700_000_000.0


def put(store: Store, now: float = NOW, **more: object) -> str:
    name = store.builds.new_id(now)
    store.builds.put({"id": name, "steps": [], **more})
    return name


def test_a_clock_that_goes_backwards(store: Store) -> None:
    names = [put(store, NOW), put(store, NOW), put(store, NOW - 1e6), put(store, NOW - 2e6), put(store, NOW + 5)]
    assert names == sorted(names)
    assert store.builds.ids() == names[::-1]
    assert all(module.BUILD_ID.fullmatch(name) for name in names)
    many = [put(store, 0.0) for _ in range(150)]
    assert many == sorted(many)
    assert many[0] > names[-1]


def test_they_are_bounded_in_number_and_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_BUILDS", 5)
    names = [put(store, NOW + number) for number in range(9)]
    assert store.builds.ids() == names[:3:-1]
    monkeypatch.setattr(module, "_MAX_BYTES", 10_000)
    big = [put(store, NOW + 100 + number, filler="x" * 4000) for number in range(4)]
    assert store.builds.ids() == big[:1:-1]


def test_what_is_damaged_is_absent(store: Store) -> None:
    kept, torn, foreign = put(store), put(store, NOW + 1), put(store, NOW + 2)
    Path(store.builds.root, f"{torn}.json").write_bytes(b'{"id"')
    Path(store.builds.root, f"{foreign}.json").write_bytes(b'{"id": "other", "steps": []}')
    Path(store.builds.root, "something.else").touch()
    assert [record["id"] for record in store.builds.newest()] == [kept]


def test_lists_of_files(store: Store) -> None:
    selections = store.builds.selections
    digest = "sha256:" + "ab" * 32
    rows = [(b"a/\xff", 0x30, 0o644, 0, 0, 3, b"", b"d" * 32), (b"l", 0x32, 0o777, 1, 2, 0, b"a", b"")]
    selections.keep(digest, lambda: rows)
    selections.keep(digest, lambda: pytest.fail("it is there"))
    found = selections.get(digest)
    assert found == {b"a/\xff": (*rows[0][:7], b"d" * 16), b"l": rows[1]}
    path = Path(selections.path(digest))
    data = path.read_bytes()
    for damage in (b"", data[:-1], data[:10] + b"x" + data[11:], b"\0" * len(data)):
        path.write_bytes(damage)
        assert selections.get(digest) is None
    assert selections.get("sha256:" + "cd" * 32) is None


def test_lists_go_when_no_build_can_have_used_them(store: Store) -> None:
    selections = store.builds.selections
    digests = [f"sha256:{number:064x}" for number in range(6)]
    for age, digest in enumerate(digests):
        selections.keep(digest, lambda: [(os.urandom(4000), 0x30, 0o644, 0, 0, 0, b"", b"")])
        os.utime(selections.path(digest), (NOW - age, NOW - age))
    selections.trim(NOW - 4)
    assert {digest for digest, _ in selections.all()} == set(digests[:5])
    selections.trim(0.0, max_bytes=9000)
    assert {digest for digest, _ in selections.all()} == set(digests[:2])


def test_a_folder_that_may_not_be_written(store: Store) -> None:
    """The record is lost, nothing else."""
    Path(store.builds.root).write_bytes(b"a file is in the way")
    store.builds.put({"id": "20200101-000000-0000", "steps": []})
    assert store.builds.ids() == []


def test_the_salt_of_a_store_stays_and_is_its_own(tmp_path: Path) -> None:
    salts = []
    for name in ("one", "one", "two"):
        with Store.open(tmp_path / name / "data", tmp_path / name / "cache") as store:
            salts.append(store.builds.salt())
    assert salts[0] == salts[1] != salts[2]
    assert len(salts[0]) == 32
