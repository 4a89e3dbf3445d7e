"""`du` and `prune` on a small store; the removal itself is tested with the store."""

from __future__ import annotations

import pytest

from aerogel.commands import du, prune
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.oci.digest import digest_of
from aerogel.settings import load_settings


@pytest.fixture
def world(tmp_path):
    settings = load_settings({"AEROGEL_ROOT": str(tmp_path), "HOME": str(tmp_path)}, str(tmp_path))
    with World(settings) as made:
        made.store.blobs.put(b"a blob that no image names")
        made.store.actions.put(digest_of(b"key"), {}, {"layers": [], "chain": []})
        yield made


def test_du_counts(world):
    found = du.run(du.Du(), world)
    assert (found.blobs, found.actions, found.images) == (1, 1, 0)
    assert found.total_bytes >= found.blobs_bytes > 0
    assert "snapshots" in found.text()


def test_dry_run_removes_nothing(world):
    would = prune.run(prune.Prune(all=True, dry_run=True), world)
    assert (would.blobs, would.actions) == (1, 1)
    assert du.run(du.Du(), world).blobs == 1


def test_all_removes_what_no_image_needs(world):
    done = prune.run(prune.Prune(all=True), world)
    assert (done.blobs, done.actions) == (1, 1)
    assert du.run(du.Du(), world).blobs == 0


@pytest.mark.parametrize(
    "options",
    [{"older_than": "7"}, {"older_than": "d"}, {"older_than": "1y"}, {"max_size": "GB"}, {"max_size": "1.5GB"}],
)
def test_bad_values(world, options):
    with pytest.raises(AerogelError) as caught:
        prune.run(prune.Prune(**options), world)
    assert (caught.value.code, caught.value.exit_status) == ("prune.bad-value", 2)


@pytest.mark.parametrize(("text", "value"), [("10GB", 10**10), ("5m", 5 * 10**6), ("7", 7), ("3kb", 3000)])
def test_sizes(text, value):
    assert prune._bytes(text) == value
