"""Reads a file of an archive, over HTTP or from a folder (`file:` and `copy:` roots)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from aerogel.net.fault import HttpError
from aerogel.net.http import Http

__all__ = ["fetch_file", "read_url", "root_url"]


def root_url(uri: str, path: str) -> str:
    """The address of a file below an archive root."""
    return f"{uri}/{quote(path, safe='/~+:@')}"


def read_url(http: Http, url: str, limit: int) -> bytes:
    """The whole content. Raises HttpError as `Http.request` does, for local files too."""
    local = _local(url)
    if local is None:
        return http.request("GET", url, limit=limit, headers={"Cache-Control": "max-age=0"}).body
    try:
        with open(local, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise _missing(url, error) from None


def fetch_file(
    http: Http,
    url: str,
    path: Path,
    *,
    limit: int,
    resume: bool = False,
    on_bytes: Callable[[int], object] | None = None,
) -> str:
    """Writes the content into an existing or new file and returns its SHA-256 in hexadecimal.

    With `resume` what the file holds is kept as the first part. Raises HttpError.
    """
    local = _local(url)
    with open(path, "r+b" if os.path.exists(path) else "w+b") as out:
        if local is None:
            http.download(url, out, limit=limit, resume=resume, on_bytes=on_bytes)
        else:
            out.truncate()
            try:
                with open(local, "rb") as file:
                    while chunk := file.read(1 << 20):
                        out.write(chunk)
                        if on_bytes is not None:
                            on_bytes(len(chunk))
            except OSError as error:
                raise _missing(url, error) from None
        out.seek(0)
        return hashlib.file_digest(out, "sha256").hexdigest()


def _local(url: str) -> str | None:
    scheme, colon, _ = url.partition(":")
    return unquote(urlsplit(url).path) if colon and scheme.lower() in ("file", "copy") else None


def _missing(url: str, error: OSError) -> HttpError:
    return HttpError((error.strerror or str(error)).lower(), code="net.status", method="GET", url=url, status=404)
