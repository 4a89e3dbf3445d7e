"""High stacks of layers: the lowest become one directory before look-ups get slow, and nothing else changes.

Debian package: busybox-static.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest

from aerogel.files.codec import select
from aerogel.files.entry import DIR, REG, SYM, Entry
from aerogel.files.tar import TarWriter
from aerogel.oci.digest import Digest
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import Rootfs, Sandbox
from aerogel.solve.materials import Materials, take_tar
from aerogel.solve.unpacking import flat_part
from aerogel.store.gc import prune
from aerogel.store.store import Store

pytestmark = pytest.mark.host("busybox")
HIGHEST = 501
STEP = "cat /f* | md5sum; ls -lR /d; cat /same; rm /f7; rm -r /d/7; mkdir /d/7; echo new > /d/7/x; echo >> /same; chmod 700 /d"


class Pile(NamedTuple):
    store: Store
    helper: Helper
    layers: list[Digest]
    folder: Path


def tar_of(number: int) -> bytes:
    """A layer that adds, changes, removes and hides; the lowest has the programs."""
    entries: list[tuple[Entry, bytes]] = []

    def add(path: str, kind: int, mode: int, data: bytes = b"", link: bytes = b"") -> None:
        entries.append((Entry(path.encode(), kind, mode, size=len(data), mtime=number, link=link), data))

    if number == 0:
        add("bin", DIR, 0o755)
        add("bin/busybox", REG, 0o755, Path(shutil.which("busybox") or "").read_bytes())
        for name in ("cat", "chmod", "echo", "ls", "md5sum", "mkdir", "rm", "sh"):
            add(f"bin/{name}", SYM, 0o777, link=b"busybox")
    add("d", DIR, 0o755)
    if number % 10 == 9:
        add(f"d/.wh.{number % 10 - 2}", REG, 0o644)
    add(f"d/{number % 10}", DIR, 0o755)
    if number % 50 == 49:
        add(f"d/{number % 10}/.wh..wh..opq", REG, 0o644)
    add(f"d/{number % 10}/{number}", REG, 0o644, b"%d" % number)
    add(f"f{number}", REG, 0o644, b"%d\n" % number)
    if number % 3 == 2:
        add(f".wh.f{number - 1}", REG, 0o644)
    add("same", REG, 0o644, b"of %d\n" % number)
    out = BytesIO()
    tar = TarWriter(out.write)
    for entry, data in sorted(entries, key=lambda each: each[0].path.split(b"/")):
        # The marks of a layer have no time.
        tar.entry(entry._replace(mtime=0) if b".wh." in entry.path else entry)
        if data:
            tar.content(data)
            tar.pad()
    tar.close()
    return out.getvalue()


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pile]:
    folder = tmp_path_factory.mktemp("pile")
    with Store.open(folder / "data", folder / "cache") as store, Helper.start(str(folder / "state")) as helper:
        layers = []
        for number in range(HIGHEST):
            # Every other one has no blob, as what a step leaves that no image holds.
            codec = select("uncompressed") if number % 2 == 0 else None
            made, _ = take_tar(store, BytesIO(tar_of(number)), codec)
            layers.append(Digest(made.diff_id))
            if codec is None:
                snapshot = store.snapshots.new(helper.rung.map_id)
                os.mkdir(f"{snapshot}/fs", 0o755)
                file = folder / "layer.tar"
                file.write_bytes(tar_of(number))
                with file.open("rb") as stream:
                    args = {"path": f"{snapshot}/fs", "overlay": helper.rung.overlay}
                    helper.call("extract", args, [stream.fileno()])
                store.snapshots.commit(snapshot, helper.rung.map_id, layers[-1])
        yield Pile(store, helper, layers, folder)


def step(pile: Pile, count: int) -> tuple[int, str, str]:
    """The number of directories that a command works on, what it sees and the layer that it leaves."""
    materials = Materials(pile.store, lambda: pile.helper)
    lowers = materials.directories(pile.layers[:count])
    upper, work = pile.folder / f"upper-{count}", pile.folder / f"work-{count}"
    for path in (upper, work):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    said = pile.folder / "said"
    with said.open("wb") as out:
        root = Rootfs(lowers=tuple(lowers), upper=str(upper), work=str(work))
        sandbox = Sandbox(argv=("sh", "-c", STEP), env=(("PATH", "/bin"),), root=root)
        with pile.helper.run(sandbox, stdout=out.fileno(), stderr=out.fileno()) as process:
            assert process.wait().code == 0, said.read_text()
    os.utime(upper / "same", (1, 1))
    os.utime(upper / "d/7/x", (1, 1))
    os.utime(upper / "d/7", (1, 1))
    os.utime(upper / "d", (1, 1))
    layer, _ = materials.read_diff(str(upper), lowers, lambda stream: take_tar(pile.store, stream, None))
    return len(lowers), said.read_text(), layer.diff_id


@pytest.mark.parametrize("count", [20, 60, 61, 130, 500, 501])
def test_a_high_stack_is_made_low_and_shows_the_same(pile: Pile, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for lower in range(180, min(count, 500) - 20, 40):  # as a build does that comes here step by step
        Materials(pile.store, lambda: pile.helper).directories(pile.layers[:lower])
    lowers, seen, layer = step(pile, count)
    assert lowers <= 60
    assert (lowers < count) == (count > 60)
    if count > 60:
        again = Materials(pile.store, lambda: pile.helper).directories(pile.layers[:count])
        assert len(again) == lowers
    if count < 500:  # the kernel stacks no more
        monkeypatch.setattr("aerogel.solve.materials.flat_part", lambda _: 0)
        assert step(pile, count) == (count, seen, layer)
    expected = [f"{number}" for number in range(count) if number % 3 != 1 or number == count - 1]
    assert f"of {count - 1}\n" in seen
    tree = Materials(pile.store, lambda: pile.helper).tree(pile.layers[:count])
    names = [name for name in tree.children(b"") if name.startswith(b"f")]
    assert sorted(names) == sorted(b"f" + each.encode() for each in expected)


def test_one_layer_is_what_it_was(pile: Pile) -> None:
    assert len(Materials(pile.store, lambda: pile.helper).directories(pile.layers[:1])) == 1


def test_what_is_flat_changes_seldom() -> None:
    parts = [flat_part(number) for number in range(600)]
    assert set(parts[:61]) == {0}
    assert all(number - part < 61 for number, part in enumerate(parts))
    assert len(set(parts)) == 15


def test_what_is_flat_stays_as_long_as_its_layers(pile: Pile) -> None:
    """The last test: it empties the store."""
    used = pile.layers[:100]
    pile.store.actions.put(Digest("sha256:" + "0" * 64), {}, {"layers": used})
    Materials(pile.store, lambda: pile.helper).directories(used)
    prune(pile.store, remove=lambda path: pile.helper.call("remove", {"path": path}))
    left = [path for _, key, path in pile.store.snapshots.all() if pile.store.snapshots.layers(path, key) == used[:80]]
    assert len(left) == 1
    high = [path for _, key, path in pile.store.snapshots.all() if len(pile.store.snapshots.layers(path, key)) > 100]
    assert high == [], "what is above 100 layers goes with them"
