"""Files into and out of a container, running or not, as a stream of `files.transfer`.

In a running one a job joins its namespaces; one that has ended is set up as for its command, and the job runs in place
of that. Either way the job sees the container's root as its own, with its mounts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from aerogel.errors import AerogelError
from aerogel.runtime.containers import Seen, alive
from aerogel.runtime.keeper import pinned, ready
from aerogel.runtime.remote import Command
from aerogel.runtime.serving import beside
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import Exit, Sandbox

__all__ = ["in_container", "piped", "run_work"]

_MODULE = "aerogel.files.transfer"


@contextmanager
def piped(write: Callable[[int], object]) -> Iterator[int]:
    """A descriptor to read what `write(fd)` writes in a thread meanwhile; its error is raised at the end.

    When the block finds that something is missing of it, the error that tells why is raised instead.
    """
    read_fd, write_fd = os.pipe()
    faults: list[BaseException] = []

    def pump() -> None:
        try:
            write(write_fd)
        except BrokenPipeError:
            pass  # who reads has said why
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            faults.append(error)
        finally:
            os.close(write_fd)

    thread = threading.Thread(target=pump, name="copy", daemon=True)
    thread.start()
    cut: AerogelError | None = None
    try:
        yield read_fd
    except AerogelError as error:
        if not error.code.startswith(("tar.", "cp.stream")):
            raise
        cut = error
    finally:
        os.close(read_fd)
        thread.join()
    if faults:
        raise faults[0]
    if cut is not None:
        raise cut


def in_container(
    seen: Seen, helper: Callable[[], Helper], job: str, args: dict[str, Any], stdin: int, stdout: int
) -> None:
    """Runs `pack` or `unpack` in the container, on these descriptors. Raises what the job raises, `container.*`."""
    work = (f"{_MODULE}:{job}", args)
    if seen.is_running:
        sandbox = beside(seen.container, (job,), user="0", cwd="/", emulated=False)
        with Command(seen, sandbox, (stdin, stdout, 2), work=work) as command:
            _check(command.wait())
        return
    with alive(seen.folder), pinned(seen.container.sandbox.root.lowers):
        sandbox = ready(seen, helper())
        run_work(helper(), sandbox, work, stdin, stdout)


def run_work(helper: Helper, sandbox: Sandbox, work: tuple[str, dict[str, Any]], stdin: int, stdout: int) -> None:
    """Runs a job in the root of a sandbox, in place of its command. Raises what the job raises."""
    sandbox = msgspec.structs.replace(
        sandbox, argv=("work",), user="0", cwd="/", tty=False, network="host", ports=(), emulated=False, joinable=False
    )
    with helper.run(sandbox, stdin=stdin, stdout=stdout, stderr=2, work=work) as process:
        _check(process.wait())


def _check(end: Exit) -> None:
    if end.fault is not None:
        raise end.fault
    if end.code:
        raise AerogelError(f"the copy was ended from outside (status {end.code})", code="cp.ended")
