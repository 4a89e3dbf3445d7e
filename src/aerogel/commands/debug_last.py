"""`aerogel debug last`: a shell in the root of the step that failed last, with what it had written.

What is changed there stays, so that `aerogel build --retry` goes on from it.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Annotated, ClassVar

import msgspec
from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_HOST, EXIT_USAGE, AerogelError, Diagnostic, render
from aerogel.events import Message, Warned
from aerogel.flag import Flag
from aerogel.oci.digest import Digest
from aerogel.sandbox.emulator import Emulator
from aerogel.sandbox.spec import DEFAULT_PATH, Exit, Mount, Rootfs, Sandbox
from aerogel.solve.materials import FS, Materials
from aerogel.store.failed import FailedState

__all__ = ["EXAMPLES", "DebugLast", "DebugLastResult", "debug_failed", "run"]

EXAMPLES = (
    ("a shell where the last build failed", "aerogel debug last"),
    ("one command there", "aerogel debug last -- cat /tmp/config.log"),
)
_SHELLS = ("/bin/bash", "/bin/sh", "/bin/ash", "/busybox/sh")


class DebugLast(Struct, frozen=True, kw_only=True):
    """Open a shell where a step of a build failed.

    The step's variables, user, folder and mounts are there; its secrets are not. The exit status is the shell's.
    """

    arguments: Annotated[tuple[str, ...], Flag("Command instead of a shell", rest=True, metavar="COMMAND")] = ()
    user: Annotated[str | None, Flag("User and group instead of the step's", short="u", metavar="USER[:GROUP]")] = None


class DebugLastResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    code: int

    def exit_status(self) -> int:
        return self.code


def run(options: DebugLast, world: World) -> DebugLastResult:
    """Runs a shell, or the command, on the caller's streams.

    Raises `debug.nothing-failed`, `debug.other-mapping`, `debug.gone`, `sandbox.*`.
    """
    state = next(world.store.failed.all(), None)
    if state is None:
        raise AerogelError(
            "no failed step is kept",
            code="debug.nothing-failed",
            hints=[
                "a step that fails is kept until three later ones have failed, the host starts anew, or `aerogel prune`"
            ],
        )
    return DebugLastResult(code=_enter(state, options, world))


def debug_failed(error: AerogelError, world: World) -> None:
    """For `--on-error=debug`: shows the error, and opens a shell in what the step left if a terminal is there."""
    if error.code not in ("solve.step-failed", "solve.timeout"):
        return
    streams = world.streams
    if not (os.isatty(streams.stdin) and os.isatty(streams.stdout)):
        message = "`--on-error=debug` opens no shell: standard input and output are no terminal"
        world.sink.emit(Warned(Diagnostic(message, code="debug.no-terminal")))
        return
    state = next(world.store.failed.all(), None)
    if state is None or state.message != error.message:
        return  # it could not be kept, and the error says why
    for line in render(error).splitlines():
        world.sink.emit(Message(line))
    _enter(state, DebugLast(), world)


def _enter(state: FailedState, options: DebugLast, world: World) -> int:
    helper = world.helper()
    if state.mapping != helper.rung.map_id:
        rung = state.mapping.partition("-")[0]
        raise AerogelError(
            f"the step ran with other owners of files (`{state.mapping}`) than this command has (`{helper.rung.map_id}`)",
            code="debug.other-mapping",
            hints=["use the same user and the same `AEROGEL_ISOLATION` as the build", f"it was `{rung}`"],
            exit_status=EXIT_USAGE,
        )
    materials = Materials(world.store, world.helper)
    try:
        lowers = tuple(materials.directories([Digest(one) for one in state.layers]))
    except AerogelError as error:
        raise AerogelError(
            f"the layers below the failed step are gone: {error.message}",
            code="debug.gone",
            hints=["build again"],
            exit_status=EXIT_HOST,
        ) from error
    sandbox = _sandbox(state, lowers, options, world, materials)
    age = time.time() - os.stat(state.path).st_ctime
    for line in _about(state, age):
        world.sink.emit(Message(line))
    with world.store.failed.held(state):
        ended = _try(sandbox, options.arguments, world, materials)
    if ended.fault is not None:
        ended.fault.exit_status = ended.code
        raise ended.fault
    return ended.code


def _about(state: FailedState, age_s: float) -> list[str]:
    lines = [f"{state.title} ({state.place}, {_age(age_s)} ago): {state.message}"]
    if state.lent:
        lines.append(f"not here: {', '.join(state.lent)}")
    return [*lines, "what is changed here stays: `aerogel build --retry` goes on from it"]


def _age(age_s: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if age_s >= size:
            return f"{int(age_s // size)} {unit}"
    return f"{int(age_s)} s"


def _sandbox(
    state: FailedState, lowers: tuple[str, ...], options: DebugLast, world: World, materials: Materials
) -> Sandbox:
    kept = msgspec.json.decode(state.sandbox, type=Sandbox)
    upper, work = f"{state.path}/{FS}", f"{state.path}/work"
    root = Rootfs(lowers=lowers, upper=upper, work=work)
    is_terminal = os.isatty(world.streams.stdin) and os.isatty(world.streams.stdout)
    env = dict(kept.env)
    env.setdefault("PATH", DEFAULT_PATH)
    if is_terminal:
        env.setdefault("TERM", world.settings.environment.get("TERM") or "xterm")
    return msgspec.structs.replace(
        kept,
        root=root,
        env=tuple(env.items()),
        user=kept.user if options.user is None else options.user,
        mounts=tuple(mount for mount in kept.mounts if _is_there(mount)),
        tty=is_terminal,
        emulated=Emulator().prepare(materials.helper, state.platform),
        create_cwd=True,
    )


def _is_there(mount: Mount) -> bool:
    return all(os.path.exists(path) for path in (*mount.lowers, *([mount.source] if mount.kind == "bind" else [])))


def _try(sandbox: Sandbox, command: tuple[str, ...], world: World, materials: Materials) -> Exit:
    """Runs the command, or the first shell that is there; when there is none, one of outside."""
    from aerogel.runtime.container import attend

    def attempt(argv: tuple[str, ...], *more: Mount) -> Exit:
        asked = msgspec.structs.replace(sandbox, argv=argv, mounts=(*sandbox.mounts, *more))
        return attend(world.helper(), asked, signal.SIGTERM, 10.0, interactive=True, stdio=world.streams)

    if command:
        return attempt(command)
    shell = next((shell for shell in _SHELLS if _starts(shell, sandbox, world)), None)
    if shell is not None:
        return attempt((shell,))
    from aerogel.commands.tools import SHELL, TOOLS, tools_mount

    mount = tools_mount(world, materials)
    world.sink.emit(Message(f"the image has no shell: one from outside is at `{TOOLS}`, in no layer"))
    return attempt(SHELL, mount)


def _starts(shell: str, sandbox: Sandbox, world: World) -> bool:
    """Whether the shell is there; one that is not must not take what is typed already."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        asked = msgspec.structs.replace(sandbox, argv=(shell, "-c", ":"), tty=False)
        if world.helper().rung.copies and sandbox.root.upper is not None:  # what is written there would be copied back
            root = Rootfs(lowers=(*sandbox.root.lowers, sandbox.root.upper))
            asked = msgspec.structs.replace(asked, root=root)
        with world.helper().run(asked, stdin=None, stdout=nowhere, stderr=nowhere) as process:
            ended = process.wait()
    finally:
        os.close(nowhere)
    return ended.fault is None or not ended.fault.code.startswith("sandbox.not-")
