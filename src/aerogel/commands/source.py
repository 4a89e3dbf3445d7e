"""What a user names on the command line of several commands: a text by its file, build arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from aerogel.errors import EXIT_USAGE, AerogelError, Source

__all__ = ["build_args", "check_text", "default_dockerfile", "dockerfile_of", "read_source"]


def read_source(
    name: str, folder: Path, stdin: int, code: str, hint: str = "name a Dockerfile, or `-` for standard input"
) -> Source:
    """The text of a file below `folder`, or of the descriptor `stdin` for `-`. It is called as the user called it.

    Raises AerogelError with the given code and hint and exit status 2 for a file that cannot be read.
    """
    if name == "-":
        with os.fdopen(os.dup(stdin), "rb") as stream:
            return Source("stdin", stream.read())
    try:
        return Source(name, (folder / name).read_bytes())
    except OSError as error:
        raise AerogelError(
            f"`{name}` cannot be read: {(error.strerror or str(error)).lower()}",
            code=code,
            exit_status=EXIT_USAGE,
            hints=[hint],
        ) from error


def default_dockerfile(folder: Path) -> str:
    """`Dockerfile`, or `dockerfile` if only that is in the folder."""
    return "dockerfile" if not (folder / "Dockerfile").exists() and (folder / "dockerfile").exists() else "Dockerfile"


def dockerfile_of(name: str, folder: Path) -> str:
    """The Dockerfile that a word of the command line names: a file, or the one in a folder."""
    path = folder / name
    if name == "-" or not path.is_dir():
        return name
    found = default_dockerfile(path)
    return found if name in ("", ".", "./") else os.path.join(name, found)


def build_args(given: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, str]:
    """`--build-arg NAME` takes the value of the environment; without one it is not set, as with docker.

    Raises `build.not-utf-8`.
    """
    found: dict[str, str] = {}
    for name, value in given.items():
        if value is not None:
            found[name] = value
        elif name in environment:
            found[name] = environment[name]
    check_text("--build-arg", found)
    return found


def check_text(flag: str, given: Mapping[str, str]) -> None:
    """Raises `build.not-utf-8` for a name or value that no image's JSON can hold."""
    for name, value in given.items():
        data = f"{name}={value}".encode("utf-8", "surrogateescape")
        try:
            data.decode()
        except UnicodeDecodeError as error:
            what = "name" if error.start < len(name.encode("utf-8", "surrogateescape")) else "value"
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise AerogelError(
                f"the {what} of `{flag} {shown}` is not UTF-8: it has the byte `{data[error.start]:02x}`",
                code="build.not-utf-8",
                exit_status=EXIT_USAGE,
                hints=["an image's configuration is JSON, which holds text only"],
            ) from None
