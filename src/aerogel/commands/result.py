"""What a command gives back: data and the exit status.

A command module is: an options Struct, a result Struct (a `Result`), `run(options, world) -> result`, and, when a
person reads something else than the data itself, `text(options, result) -> str`: what goes to standard output
without `--json` (a line end is added unless it is empty). `EXAMPLES` are pairs of a comment and a command line.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Result"]


class Result(Struct, frozen=True, kw_only=True):
    """Base of all results. The fields are the data that `--json` prints; a result without fields has no `--json`."""

    def exit_status(self) -> int:
        """What the process exits with: 0 unless the command passes on another program's status."""
        return 0
