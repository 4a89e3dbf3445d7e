"""Why a RUN step failed, in words, and what to do about the frequent causes."""

from __future__ import annotations

import re
import signal

from aerogel.errors import EXIT_FAILED, EXIT_HOST, AerogelError
from aerogel.files.entry import REG
from aerogel.files.tree import Tree
from aerogel.graph.ops import Run
from aerogel.sandbox.spec import Exit
from aerogel.solve.builders import Extend, extends_nothing, with_builder

__all__ = ["StepError", "exit_in_words", "step_failed", "step_timed_out"]


class StepError(AerogelError):
    """A step ended badly. `log` is the file with its whole output, empty when there is none."""

    log = ""


_DNS = "names cannot be resolved: check the host's /etc/resolv.conf and network"
_TRUST = "the server's certificate is not trusted: give your CA bundle with `--ca FILE`"
_FULL = "a file system of the step has no space left: `/dev/shm` grows with `--shm-size`, a tmpfs mount with `size=`"
_FREQUENT = (
    ("temporary failure resolving", _DNS),
    ("temporary failure in name resolution", _DNS),
    ("could not resolve host", _DNS),
    ("eai_again", _DNS),
    ("bad address '", _DNS),
    ("404  not found", "the package index is older than the mirror: run `apt-get update` in the same RUN step"),
    ("unable to locate package", "run `apt-get update` in the same RUN step, and check the package's name"),
    ("certificate_verify_failed", _TRUST),
    ("server certificate verification failed", _TRUST),
    ("unable to get local issuer certificate", _TRUST),
    ("exec format error", "the program is made for another kind of processor"),
    ("no space left on device", _FULL),
)
"""What output says in lower case, and what to do about it."""


def exit_in_words(ended: Exit) -> str:
    """`exit status 2`, `signal 9 (SIGKILL), out of memory`, ..."""
    if ended.oom:
        return "it was killed because memory ran out"
    if ended.signal:
        try:
            name = f" ({signal.Signals(ended.signal).name})"
        except ValueError:
            name = ""
        return f"it was ended by signal {ended.signal}{name}"
    if ended.code == 127:
        return "exit status 127: a command was not found"
    if ended.code == 126:
        return "exit status 126: a command could not be executed"
    return f"exit status {ended.code}"


def _not_found(output: str, tree: Tree | None) -> str:
    """What to do about a command that a shell did not find; one that is there lacks what runs it."""
    named = re.findall(r"(?m)([^\s:]+): (?:command )?not found\s*$", output)
    path = named[-1] if named else ""
    if tree is not None and path.startswith("/"):
        found = tree.lookup(tree.resolve(path.encode("utf-8", "surrogateescape")))
        if found is not None and found.kind == REG:
            return f"`{path}` is in the image; the interpreter of its first line, or its loader, is not"
    what = f"`{path}`" if path else "the program"
    return f"install {what} in an earlier RUN of this stage, or correct its name"


def step_timed_out(timeout_s: float, output: str, *, log: str = "") -> StepError:
    """The error of a step that took longer than `--timeout` allows."""
    error = StepError(
        f"RUN took longer than the {timeout_s:g} s that `--timeout` allows",
        code="solve.timeout",
        detail=output,
        hints=_log_hint(log),
    )
    error.log = log
    return error


def _log_hint(path: str) -> list[str]:
    return [f"all of its output is in `{path}`"] if path else []


def step_failed(
    op: Run,
    ended: Exit,
    output: str,
    *,
    disk_full: bool = False,
    is_limited: bool = False,
    log: str = "",
    tree: Tree | None = None,
    extend: Extend = extends_nothing,
) -> StepError:
    """The error of a step that ended with a status other than 0; its span is added by the solver.

    `disk_full` says that the disk of the store has no space: then the host failed, not the step. `is_limited`: with `--memory`. `log` is the file
    with the whole output, `tree` the root before the step, `extend` tells how its base gets packages.
    """
    hints: list[str] = []
    message = f"RUN failed: {exit_in_words(ended)}" + (", and the disk is full" if disk_full else "")
    if ended.fault is not None:
        message = f"RUN could not start: {ended.fault.message}"
        hints += ended.fault.hints
        if ended.fault.code == "sandbox.not-found" and not hints:
            hints = ["the exec form looks for the program itself: give its path in the image of this stage"]
        if ended.fault.code == "sandbox.not-found":
            advice = with_builder(op, tree, extend)
            if not advice and op.argv[:1] == ("/bin/sh",):
                advice = (
                    "this base has no shell: run the command in an earlier stage and `COPY --from` its result, "
                    'or use the exec form `RUN ["/path/to/program"]`'
                )
            hints = [advice] if advice else hints
    said = output.lower()
    hints += dict.fromkeys(hint for sign, hint in _FREQUENT if sign in said and not (disk_full and hint == _FULL))
    if ended.oom and is_limited:
        hints.append("the limit of `--memory` was reached, or the machine has no more: raise it, or use less at once")
    elif ended.oom:
        hints.append("give the machine more memory, or make the step use less (fewer parallel jobs)")
    elif ended.signal == signal.SIGKILL:
        hints.append("something killed it: if that was the kernel, for lack of memory, the host's log says so")
    elif ended.code == 127 and ended.fault is None:
        hints.append(_not_found(output, tree))
    if disk_full:
        hints.append("the disk that holds the store is full: `aerogel prune`, or `AEROGEL_ROOT` on another disk")
    hints += _log_hint(log if output else "")
    error = StepError(
        message,
        code="solve.step-failed",
        detail=output,
        hints=hints,
        exit_status=EXIT_HOST if disk_full else EXIT_FAILED,
    )
    error.log = log
    return error
