"""A shell and small tools for images that have none: busybox, seen in the sandbox only and never in a layer."""

from __future__ import annotations

import os
import shutil

from aerogel.commands.world import World
from aerogel.errors import AerogelError, Source, Span
from aerogel.sandbox.launch import TOOLS
from aerogel.sandbox.program import HEAD_BYTES, read_program
from aerogel.sandbox.spec import Mount
from aerogel.solve.materials import Materials

__all__ = ["SHELL", "TOOLS", "installed", "tools_mount", "tools_program"]

SHELL = (f"{TOOLS}/busybox", "sh")

_BASE = "gcr.io/distroless/static:debug"


def tools_mount(world: World, materials: Materials) -> Mount:
    """The mount that shows them: the host's busybox if it is a static one, else that of Debian, fetched once.

    Raises what finding a base raises, with a hint.
    """
    path = _of_host(world)
    if path is not None:
        return Mount(kind="bind", source=path, target=SHELL[0], readonly=True)
    return Mount(
        kind="overlay", lowers=tuple(_of_debian(world, materials)), source="busybox", target=TOOLS, readonly=True
    )


def tools_program(world: World, materials: Materials) -> str:
    """The static busybox as a file of this host. Raises as `tools_mount`."""
    path = _of_host(world)
    if path is not None:
        return path
    folders = _of_debian(world, materials)
    found = [f"{folder}/busybox/busybox" for folder in folders if os.path.isfile(f"{folder}/busybox/busybox")]
    if not found:
        raise AerogelError("Debian's busybox is not where it was", code="debug.no-tools")
    return found[-1]


def installed(command: tuple[str, ...]) -> tuple[str, ...]:
    """A command, or a shell, that runs when each tool has its name in `TOOLS`."""
    script = f'{SHELL[0]} --install -s {TOOLS} 2>/dev/null; exec "$@"'
    return (*SHELL, "-c", script, "sh", *(command or SHELL))


def _of_host(world: World) -> str | None:
    path = shutil.which("busybox", path=world.settings.environment.get("PATH", os.defpath))
    return os.path.realpath(path) if path is not None and _is_static(path) else None


def _of_debian(world: World, materials: Materials) -> list[str]:
    from aerogel.commands.bases import Bases
    from aerogel.graph.stages import ImageRef
    from aerogel.oci.digest import Digest
    from aerogel.oci.platform import Platform

    typed = Source("the tools", _BASE.encode())
    try:
        bases = Bases(world, materials, {}, pull=False)
        bases.will_run = True
        found = bases.resolve(ImageRef(_BASE), str(Platform.host()), Span(typed, 0, len(typed.data)))
    except AerogelError as error:
        error.span = None
        error.hints = (
            *error.hints,
            "this image has no shell; with `apt install busybox-static` the host lends its own",
        )
        raise
    return materials.directories([Digest(one) for one in found.diff_ids])


def _is_static(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            program = read_program(file.read(HEAD_BYTES))
    except OSError:
        return False
    return program.kind == "elf" and not program.interpreter and program.machine == os.uname().machine
