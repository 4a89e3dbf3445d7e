"""Which times files get: while a build runs, and in the image.

A step must not see when it ran, nor the date of the image, or a new commit would run everything again. So inside the
store what COPY brings has the time `COPIED_S`, and what a RUN wrote the mark of its layer (`files.settle`). The
image's own date is stamped on its layers when the image is made (`solve.stamp`).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COPIED_S", "Times"]

COPIED_S = 315532800
"""1980-01-01T00:00:00Z: the time of what COPY, ADD and WORKDIR make, as steps see it; zip knows nothing older."""


class Times(NamedTuple):
    """`epoch_s` is the image's date in seconds since 1970.

    With `keep` files have the times that they happen to have (`--timestamps=keep`); with `keep_volatile` logs and
    caches of package managers stay as they are.
    """

    epoch_s: int = COPIED_S
    keep: bool = False
    keep_volatile: bool = False

    @property
    def copied(self) -> int | None:
        """The time of what COPY brings, inside the store; None for that of the source."""
        return None if self.keep else COPIED_S

    @property
    def kind(self) -> int:
        """What results of steps depend on: the image's date is not part of it."""
        return COPIED_S - self.keep - 2 * self.keep_volatile
