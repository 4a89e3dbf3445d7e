"""The folder of all volumes: what is made, kept, removed, and what killed processes leave there."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.runtime.containers import Container, Seen, State, VolumeUse
from aerogel.runtime.volumes import Volumes
from aerogel.sandbox.spec import Rootfs, Sandbox


def container(*names: str) -> Seen:
    uses = tuple(VolumeUse(name=name, target="/data", is_own=True) for name in names)
    made = Container(
        id="c" * 64, name="box", image="x", created=1.0, rung="root", volumes=uses,
        sandbox=Sandbox(argv=("x",), root=Rootfs()),
    )  # fmt: skip
    return Seen("/nowhere", made, State())


def nobody() -> list[Seen]:
    return []


def inside(volumes: Volumes) -> list[str]:
    return sorted(name for name in os.listdir(volumes.root) if name not in ("lock", "lending"))


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path)


def test_who_has_it_is_asked_when_nobody_new_can_get_it(volumes: Volumes) -> None:
    volumes.create("kept", 1.0)
    containers: list[Seen] = []
    at_work, may_end = threading.Event(), threading.Event()

    def start() -> None:
        with volumes.lending():
            at_work.set()
            may_end.wait(60)
            containers.append(container("kept"))

    thread = threading.Thread(target=start)
    thread.start()
    at_work.wait(60)
    threading.Timer(0.2, may_end.set).start()
    with pytest.raises(AerogelError) as caught:
        volumes.remove("kept", lambda: containers, shutil.rmtree)
    thread.join()
    assert caught.value.code == "volume.in-use"
    assert inside(volumes) == ["kept"]


def test_what_is_swept(volumes: Volumes) -> None:
    volumes.create("named", 1.0, is_passing=True)  # one with a name never is
    asked = volumes.create("", 1.0)
    left, used, kept = (volumes.create("", 1.0, is_passing=True) for _ in range(3))
    volumes.keep([kept.name, "nothing"])
    for half in (".new-0", ".gone-1"):
        os.makedirs(f"{volumes.root}/{half}/data/below")
    volumes.sweep(lambda: [container(used.name)], shutil.rmtree)
    assert inside(volumes) == sorted(["named", asked.name, used.name, kept.name])
    assert left.is_anonymous
    with volumes.lending():  # a container is about to start with it
        volumes.sweep(nobody, shutil.rmtree)
    assert used.name in inside(volumes)


def test_a_removal_that_is_killed_leaves_no_half(volumes: Volumes) -> None:
    volumes.create("kept", 1.0)
    Path(volumes.data_of("kept"), "file").write_text("x")

    def killed(path: str) -> None:
        raise KeyboardInterrupt(path)

    with pytest.raises(KeyboardInterrupt):
        volumes.remove("kept", nobody, killed)
    assert not volumes.has("kept")
    volumes.create("kept", 2.0)
    assert volumes.is_empty("kept")
    volumes.sweep(nobody, shutil.rmtree)
    assert inside(volumes) == ["kept"]


def test_one_that_is_gone_is_no_fault(volumes: Volumes) -> None:
    volumes.sweep(nobody, shutil.rmtree)
    volumes.create("kept", 1.0)
    volumes.remove("kept", nobody, shutil.rmtree)
    volumes.remove("kept", nobody, shutil.rmtree)
    assert inside(volumes) == []


def test_two_do_not_claim_it_for_different_owners(volumes: Volumes) -> None:
    volumes.create("kept", 1.0)
    volumes.claim("kept", "root")
    volumes.claim("kept", "root.copied")
    with pytest.raises(AerogelError) as caught:
        volumes.claim("kept", "u100000-65536")
    assert caught.value.code == "volume.other-mapping"


def test_two_do_not_fill_it_at_once(volumes: Volumes) -> None:
    volumes.create("kept", 1.0)
    found: list[bool] = []
    at_work = threading.Event()

    def first() -> None:
        with volumes.filling("kept", shutil.rmtree) as is_empty:
            found.append(is_empty)
            at_work.set()
            Path(volumes.data_of("kept"), "file").write_text("x")

    thread = threading.Thread(target=first)
    thread.start()
    at_work.wait(60)
    with volumes.filling("kept", shutil.rmtree) as is_empty:
        found.append(is_empty)
    thread.join()
    assert found == [True, False]


def test_what_a_killed_one_filled_is_not_taken_for_filled(volumes: Volumes) -> None:
    volumes.create("kept", 1.0)
    data = Path(volumes.data_of("kept"))

    def killed() -> None:
        with volumes.filling("kept", shutil.rmtree):
            (data / "half").write_text("of it")
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            killed()
        assert os.listdir(data) == ["half"]
    with volumes.filling("kept", shutil.rmtree) as is_empty:
        assert is_empty
        assert os.listdir(data) == []
        (data / "whole").write_text("")
    with volumes.filling("kept", shutil.rmtree) as is_empty:
        assert not is_empty
    assert os.listdir(data) == ["whole"]
    with volumes.filling("kept", shutil.rmtree):
        (data / "more").write_text("")  # who finds it full writes nothing, so there is no half of that
    assert sorted(os.listdir(data)) == ["more", "whole"]
