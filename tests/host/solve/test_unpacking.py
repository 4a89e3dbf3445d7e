"""A base that comes from elsewhere is inflated once, and nobody sees it before all of it was what its image says."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, LNK, REG, Entry
from aerogel.files.tar import TarWriter
from aerogel.oci.digest import Digest, digest_of
from aerogel.oci.image import Layer
from aerogel.oci.types import OCI_LAYER_GZIP
from aerogel.sandbox.launch import Helper
from aerogel.solve.materials import Materials
from aerogel.solve.offers import Offer, Offers
from aerogel.store import load
from aerogel.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data", tmp_path / "cache") as opened:
        yield opened


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    with Helper.start(str(tmp_path_factory.mktemp("state"))) as started:
        yield started


def tar_of(**files: bytes) -> bytes:
    out = BytesIO()
    tar = TarWriter(out.write)
    tar.entry(Entry(b"d", DIR, 0o750, mtime=7))
    for name, data in files.items():
        tar.entry(Entry(b"d/" + name.encode(), REG, 0o644, size=len(data), mtime=7))
        tar.content(data)
        tar.pad()
    tar.close()
    return out.getvalue()


def offered(store: Store, tars: list[bytes], wrong: int = -1) -> tuple[Offers, list[Digest]]:
    """Layers whose blobs are here and which nobody has looked into; one may be another than its image says."""
    offers, layers = Offers(), []
    for number, tar in enumerate(tars):
        blob = store.blobs.put(gzip.compress(tar), OCI_LAYER_GZIP)
        diff_id = digest_of(b"something else" if number == wrong else tar)
        bring = partial(load.record_layer, Layer(blob, diff_id), number, store)
        offers.add(diff_id, Offer("base", blob, bring, is_part=True, bring_through=bring))
        layers.append(diff_id)
    return offers, layers


TARS = [tar_of(one=b"1" * 300_000, two=b"2"), tar_of(two=b"22"), tar_of(three=b"3", **{".wh.one": b""})]


def test_each_layer_is_inflated_once(store: Store, helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    inflated = []
    for module in ("aerogel.store.load", "aerogel.solve.materials"):
        original = load.open_uncompressed
        monkeypatch.setattr(
            f"{module}.open_uncompressed", lambda *args, original=original: inflated.append(args) or original(*args)
        )
    offers, layers = offered(store, TARS)
    materials = Materials(store, lambda: helper, offers=offers)
    (folder,) = materials.directories(layers)
    assert len(inflated) == len(TARS)
    assert {path.name: path.read_bytes() for path in Path(folder, "d").iterdir()} == {"two": b"22", "three": b"3"}
    assert [entry.path for entry in materials.index(layers[1]).entries] == [b"d", b"d/two"]
    assert materials.directories(layers) == [folder]
    assert len(inflated) == len(TARS)
    # What is on top of a known part is read from there.
    more, layers = offered(store, [*TARS, tar_of(four=b"4")])
    (other,) = Materials(store, lambda: helper, offers=more).directories(layers)
    assert Path(other, "d/four").read_bytes() == b"4"
    assert sorted(path.name for path in Path(other, "d").iterdir()) == ["four", "three", "two"]


@pytest.mark.parametrize("wrong", [0, 1, 2])
@pytest.mark.damage
def test_a_layer_that_is_another_leaves_nothing(store: Store, helper: Helper, wrong: int) -> None:
    offers, layers = offered(store, TARS, wrong)
    with pytest.raises(AerogelError) as raised:
        Materials(store, lambda: helper, offers=offers).directories(layers)
    assert raised.value.code == "oci.diff-id"
    assert list(store.snapshots.all()) == []


def test_what_cannot_be_unpacked_says_why(store: Store, helper: Helper) -> None:
    out = BytesIO()
    tar = TarWriter(out.write)
    tar.entry(Entry(b"x", LNK, 0o644, link=b"nowhere"))
    tar.close()
    offers, layers = offered(store, [*TARS, out.getvalue()])
    materials = Materials(store, lambda: helper, offers=offers)
    with pytest.raises(AerogelError) as raised:
        materials.directories(layers)
    assert raised.value.code.startswith("extract.")
    assert list(store.snapshots.all()) == []
