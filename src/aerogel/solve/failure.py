"""Why a RUN step failed, in words, and what to do about the frequent causes."""

from __future__ import annotations

import re
import signal

from aerogel.errors import EXIT_FAILED, EXIT_HOST, AerogelError
from aerogel.files.entry import REG
from aerogel.files.tree import Tree
from aerogel.graph.ops import Run
from aerogel.sandbox.spec import Exit

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


_RECORDS = b"var/lib/dpkg/status.d"
_SBOM = b"var/lib/db/sbom"
_PIP = re.compile(r"(?:/\S*/)?(?:pip3?|python3? -m pip)\s+install\s+(.+)", re.DOTALL)
_NPM = re.compile(r"(?:/\S*/)?(?:npm|npx|yarn|pnpm)\s+.+", re.DOTALL)
_APT = re.compile(r"(?:\S+ update\s*&&\s*)?(?:apt-get|apt)\s+(?:-\S+\s+)*install\s+(.+)", re.DOTALL)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+")
_NODE = re.compile(rb"node-\S*-(\d+)\.[0-9.]+\.spdx\.json")


def _with_builder(op: Run, tree: Tree | None) -> str:
    """What to write in place of a command that a base without a shell has no tool for; empty for other commands and bases."""
    if tree is None or len(op.argv) < 3 or tree.lookup(_RECORDS) is None:
        return ""
    command = " ".join(op.argv[2].replace("\\\n", " ").split())
    place = op.cwd if op.cwd not in ("", "/") else "/app"
    if (found := _PIP.fullmatch(command)) is not None:
        is_older = tree.lookup(b"usr/bin/python3.11") is not None
        builder, install = "aerogel/python3-build" + ":bookworm" * is_older, f"/venv/bin/pip install {found[1]}"
        steps = [f"RUN python3 -m venv /venv && {install}"]
        copies = ["COPY --from=build /venv /venv", "ENV PATH=/venv/bin:$PATH"]
    elif _NPM.fullmatch(command) is not None:
        folder = tree.children(_SBOM) if tree.lookup(_SBOM) is not None else []
        version = next((match[1].decode() for name in folder if (match := _NODE.fullmatch(name))), "24")
        builder = f"aerogel/nodejs{version}-build"
        steps = [f"WORKDIR {place}", "COPY package*.json ./", f"RUN {command}"]
        copies = [f"COPY --from=build {place} {place}"]
    elif (found := _APT.fullmatch(command)) is not None:
        names = [word for word in found[1].partition("&&")[0].split() if _PACKAGE.fullmatch(word)]
        added = "".join(f"+{name}" for name in names)
        return (
            "this base has no shell and no apt: name the packages in FROM, "
            f"`aerogel/NAME{added}` for the base `NAME`, or run the command in a stage `FROM debian AS build` "
            "and take what it made with `COPY --from=build`"
        )
    else:
        return ""
    before, after = ", ".join(f"`{one}`" for one in steps), " and ".join(f"`{one}`" for one in copies)
    return f"this base has no shell: put a stage before it, `FROM {builder} AS build`, {before}; in place of this RUN write {after}"


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
) -> StepError:
    """The error of a step that ended with a status other than 0; its span is added by the solver.

    `disk_full` says that the disk of the store has no space: then the host failed, not the step. `is_limited`: with `--memory`. `log` is the file
    with the whole output, `tree` the root before the step.
    """
    hints: list[str] = []
    message = f"RUN failed: {exit_in_words(ended)}" + (", and the disk is full" if disk_full else "")
    if ended.fault is not None:
        message = f"RUN could not start: {ended.fault.message}"
        hints += ended.fault.hints
        if ended.fault.code == "sandbox.not-found" and not hints:
            hints = ["the exec form looks for the program itself: give its path in the image of this stage"]
        if ended.fault.code == "sandbox.not-found" and op.argv[:1] == ("/bin/sh",):
            hints = [
                _with_builder(op, tree)
                or (
                    "this base has no shell: run the command in an earlier stage and `COPY --from` its result, "
                    'or use the exec form `RUN ["/path/to/program"]`'
                )
            ]
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
