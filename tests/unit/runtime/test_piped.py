from __future__ import annotations

import os

import pytest

from aerogel.runtime.copying import piped


def test_what_goes_wrong_at_the_other_end_is_raised() -> None:
    """A file that cannot be read must not look like one that was copied."""

    def fails(fd: int) -> None:
        os.write(fd, b"beginning")
        raise PermissionError(13, "Permission denied", "/root/file")

    def reads() -> None:
        with piped(fails) as read:
            assert os.read(read, 100) == b"beginning"
            assert os.read(read, 100) == b""

    with pytest.raises(PermissionError):
        reads()


def test_who_reads_no_more_is_no_fault() -> None:
    def writes(fd: int) -> None:
        while True:
            os.write(fd, b"x" * 65536)

    with piped(writes) as read:
        assert os.read(read, 1) == b"x"
