"""What a command gives back: data and the exit status.

A command module is: an options Struct, a result Struct (a `Result`) and `run(options, world) -> result`. When
options such as `--format` decide what a person reads, the module has `text(options, result) -> str` as well, which
is then used instead of `Result.text`. `EXAMPLES` are pairs of a comment and a command line.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

__all__ = ["Result"]


class Result(Struct, frozen=True, kw_only=True):
    """Base of all results. The fields are the data that `--json` prints; a result without data has no `--json`."""

    is_data: ClassVar[bool] = True
    """False when the fields only tell the exit status."""

    def text(self) -> str:
        """What goes to standard output without `--json`; a line end is added unless it is empty."""
        return ""

    def exit_status(self) -> int:
        """What the process exits with: 0 unless the command passes on another program's status."""
        return 0
