"""Rate and rest of transfers, as terminals show them."""

from __future__ import annotations

import pytest

from aerogel.cli.lines import Pace
from aerogel.events import Progress


@pytest.mark.parametrize(
    ("done", "total", "seconds", "unit", "told"),
    [
        (10_000_000, 40_000_000, 5.0, "bytes", "2.0 MB/s, 15 s left"),
        (500_000, 40_000_000, 5.0, "bytes", "100.0 kB/s, 6 min 35 s left"),
        (10_000_000, 0, 5.0, "bytes", "2.0 MB/s"),
        (39_999_999, 40_000_000, 5.0, "bytes", "8.0 MB/s, 1 s left"),
        (40_000_000, 40_000_000, 5.0, "bytes", ""),
        (10_000_000, 40_000_000, 0.5, "bytes", ""),
        (0, 40_000_000, 5.0, "bytes", ""),
        (3, 9, 5.0, "packages", ""),
    ],
)
def test_what_is_told(done: int, total: int, seconds: float, unit: str, told: str) -> None:
    pace = Pace(Progress(1, "app", 0, total, unit), 100.0)
    pace.see(Progress(1, "app", done, total, unit))
    assert pace.words(100.0 + seconds) == told


def test_what_was_there_before_counts_for_nothing() -> None:
    """A download that goes on from half."""
    pace = Pace(Progress(1, "app", 50_000_000, 100_000_000), 0.0)
    pace.see(Progress(1, "app", 60_000_000, 100_000_000))
    assert pace.words(10.0) == "1.0 MB/s, 40 s left"
