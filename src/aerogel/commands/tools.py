"""A shell and small tools for images that have none: busybox, seen in the sandbox only and never in a layer."""

from __future__ import annotations

import os
import shutil

from aerogel.commands.world import World
from aerogel.errors import AerogelError, Source, Span
from aerogel.sandbox.program import HEAD_BYTES, read_program
from aerogel.sandbox.spec import Mount
from aerogel.solve.materials import Materials

__all__ = ["SHELL", "TOOLS", "tools_mount"]

TOOLS = "/.aerogel"
"""Where the tools are seen."""
SHELL = (f"{TOOLS}/busybox", "sh")

_BASE = "gcr.io/distroless/static:debug"


def tools_mount(world: World, materials: Materials) -> Mount:
    """The mount that shows them: the host's busybox if it is a static one, else that of Debian, fetched once.

    Raises what finding a base raises, with a hint.
    """
    path = shutil.which("busybox", path=world.settings.environment.get("PATH", os.defpath))
    if path is not None and _is_static(path):
        return Mount(kind="bind", source=os.path.realpath(path), target=SHELL[0], readonly=True)
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
    layers = materials.directories([Digest(one) for one in found.diff_ids])
    return Mount(kind="overlay", lowers=tuple(layers), source="busybox", target=TOOLS, readonly=True)


def _is_static(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            program = read_program(file.read(HEAD_BYTES))
    except OSError:
        return False
    return program.kind == "elf" and not program.interpreter and program.machine == os.uname().machine
