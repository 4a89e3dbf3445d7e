"""What an image says of itself, as a declaration that extends it takes it."""

from __future__ import annotations

import time

import pytest

from aerogel.distroless.underlay import Underlay
from aerogel.oci.digest import Digest
from aerogel.oci.types import ImageConfig


@pytest.mark.parametrize(
    ("created", "epoch"),
    [
        ("2024-01-01T00:00:00", 1704067200),
        ("2024-01-01T00:00:00.123456789Z", 1704067200),
        ("2024-01-01T02:00:00+02:00", 1704067200),
        ("0001-01-01T00:00:00", 0),
        ("9999-12-31T23:59:59-23:59", 253402387139),
        ("1960-01-01T00:00:00Z", 0),
        ("yesterday", 0),
        ("", 0),
    ],
)
def test_when_it_was_made_is_the_same_in_all_time_zones(
    monkeypatch: pytest.MonkeyPatch, created: str, epoch: int
) -> None:
    try:
        for zone in ("UTC", "America/New_York", "XYZ-14"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            image = Underlay("store:x", Digest("sha256:" + "0" * 64), ImageConfig(created=created), [], lambda _: -1)
            assert image.epoch == epoch
    finally:
        monkeypatch.undo()
        time.tzset()
