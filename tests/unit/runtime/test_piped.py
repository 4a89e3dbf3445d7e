from __future__ import annotations

import os

import pytest

from aerogel.errors import AerogelError
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


def test_why_something_is_missing_is_said_by_who_did_not_send_it() -> None:
    def fails(fd: int) -> None:
        raise AerogelError("the file changed", code="tar.changed")

    def reads(code: str) -> None:
        with piped(fails) as read:
            assert os.read(read, 100) == b""
            raise AerogelError("it is not whole", code=code)

    for code, raised in (
        ("tar.truncated", "tar.changed"),
        ("cp.stream", "tar.changed"),
        ("extract.failed", "extract.failed"),
    ):
        with pytest.raises(AerogelError) as caught:
            reads(code)
        assert caught.value.code == raised


def test_what_is_wrong_with_the_stream_itself_is_said() -> None:
    def reads() -> None:
        with piped(lambda _fd: None):
            raise AerogelError("it is damaged", code="tar.damaged")

    with pytest.raises(AerogelError) as caught:
        reads()
    assert caught.value.code == "tar.damaged"
