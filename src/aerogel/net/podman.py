"""The images of containers-storage, by way of podman: `podman save` and `podman load`. The one place that starts it.

The storage has a lock protocol and drivers of its own; podman is what knows them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, cast

from aerogel.errors import EXIT_HOST, AerogelError

__all__ = ["load_into_podman", "save_from_podman"]


@contextmanager
def save_from_podman(name: str, environment: Mapping[str, str]) -> Iterator[BinaryIO]:
    """An image as `podman save` writes it. Raises `podman.missing`, `podman.failed`."""
    with _started(["save", "--quiet", "--format", "docker-archive", "--", name], environment) as process:
        stream = process.stdout
        assert stream is not None
        fault: AerogelError | None = None
        try:
            yield cast("BinaryIO", stream)
        except AerogelError as error:
            fault = error  # podman may know why the archive ends early
        while stream.read(1 << 20):
            pass
        _end(process, "save")
        if fault is not None:
            raise fault


def load_into_podman(
    write: Callable[[Callable[[bytes | memoryview], object]], None], environment: Mapping[str, str]
) -> None:
    """Gives podman an archive, which `write` writes. Raises `podman.missing`, `podman.failed`."""
    with _started(["load", "--quiet"], environment, is_written=True) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it says why it stopped to read
            write(process.stdin.write)
            process.stdin.close()
        _end(process, "load")


@contextmanager
def _started(
    words: list[str], environment: Mapping[str, str], *, is_written: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            ["podman", *words],
            stdin=subprocess.PIPE if is_written else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if is_written else subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
        )
    except OSError as error:
        raise AerogelError(
            f"`podman` cannot be started: {(error.strerror or str(error)).lower()}",
            code="podman.missing",
            exit_status=EXIT_HOST,
            hints=["`containers-storage:` is read and written by podman: install it, or use a registry or an archive"],
        ) from None
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            _close(pipe)
        process.wait()


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(BrokenPipeError):
            pipe.close()


def _end(process: subprocess.Popen[bytes], action: str) -> None:
    assert process.stderr is not None
    said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
    if process.wait() != 0:
        why = said[-1].removeprefix("Error: ")[:300] if said else f"it ends with status {process.returncode}"
        raise AerogelError(
            f"`podman {action}` fails: {why}", code="podman.failed", hints=["`podman images` lists what it has"]
        )
