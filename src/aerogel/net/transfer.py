"""The state of one download across its tries: which bytes the file holds, and what they are a part of.

Spec: RFC 9110, 13.1.5 If-Range and 14 range requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from aerogel.net.fault import HttpError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = ["Transfer"]


class Transfer:
    """A file that is being filled. `at` is how many bytes it holds."""

    def __init__(
        self,
        url: str,
        file: BinaryIO,
        *,
        headers: dict[str, str],
        size: int | None,
        limit: int | None,
        on_bytes: Callable[[int], object],
    ) -> None:
        self._url = url
        self._file = file
        self._headers = headers
        self._size = size
        self._limit = size if size is not None else limit
        self._on_bytes = on_bytes
        self._validator = ""
        self._continued = 0
        self.at = 0

    def start(self, *, keep: bool) -> None:
        self.at = self._file.seek(0, os.SEEK_END) if keep else 0
        if not keep or (self._limit is not None and self.at > self._limit):
            self._restart()
        elif self.at:
            self._on_bytes(self.at)

    def request_headers(self) -> dict[str, str]:
        if not self.at:
            return dict(self._headers)
        extra = {"Range": f"bytes={self.at}-"}
        if self._validator:
            extra["If-Range"] = self._validator
        return {**self._headers, **extra}

    def accept(self, answer: BaseHTTPResponse) -> None:
        """Sees whether the answer continues what the file holds; if not, the file starts anew."""
        etag = answer.headers.get("ETag", "")
        self._validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        if answer.status == 206:
            begin = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0].strip()
            if begin == str(self.at):
                self._check_length(answer)
                return
        if answer.status in (206, 416):
            self._restart()
            raise HttpError(
                "the server does not continue the download where it broke",
                code="net.cut",
                method="GET",
                url=self._url,
                status=answer.status,
                temporary=True,
            )
        if self.at:
            self._restart()
        self._check_length(answer)

    def write(self, chunk: bytes | memoryview) -> None:
        self._file.write(chunk)
        self.at += len(chunk)
        self._on_bytes(len(chunk))

    def allowed(self) -> int | None:
        return None if self._limit is None else self._limit - self.at

    def may_continue(self) -> bool:
        """At most 100 continuations: a server that cuts after every few bytes is no use."""
        self._continued += 1
        return self._continued <= 100

    def finish(self) -> None:
        self._file.flush()
        if self._size is not None and self.at != self._size:
            raise self._mismatch(self.at)

    def _check_length(self, answer: BaseHTTPResponse) -> None:
        announced = answer.headers.get("Content-Length", "")
        if self._size is not None and announced.isdigit() and self.at + int(announced) != self._size:
            raise self._mismatch(self.at + int(announced))

    def _mismatch(self, found: int) -> HttpError:
        return HttpError(
            f"{found} bytes are served, expected {self._size}",
            code="net.size-mismatch",
            method="GET",
            url=self._url,
            status=200,
        )

    def _restart(self) -> None:
        if self.at:
            self._on_bytes(-self.at)
        self._file.seek(0)
        self._file.truncate()
        self.at = 0
