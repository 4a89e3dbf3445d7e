"""A shell and small tools for images that have none: busybox, seen in the sandbox only and never in a layer."""

from __future__ import annotations

import hashlib
import os
import re
import shutil

from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span
from aerogel.sandbox.join import PACKAGES
from aerogel.sandbox.launch import TOOLS
from aerogel.sandbox.program import HEAD_BYTES, read_program
from aerogel.sandbox.spec import Mount
from aerogel.solve.materials import Materials

__all__ = ["SHELL", "TOOLS", "installed", "packages_folder", "packages_mount", "tools_mount", "tools_program"]

SHELL = (f"{TOOLS}/busybox", "sh")

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+(?<!\+)")
_ROOT = f"{TOOLS}/{PACKAGES}"
_WRAPPERS = (
    # Programs of the packages run by their own loader with their own libraries, wherever these lie in the joined root.
    f"for ld in {_ROOT}/lib*/ld-linux*.so.* {_ROOT}/usr/lib*/ld-linux*.so.*; do [ -e $ld ] && break; done; "
    f"libs=; for d in {_ROOT}/usr/lib/*-linux-gnu* {_ROOT}/lib/*-linux-gnu*; do [ -d $d ] && libs=$libs:$d; done; "
    f"for f in {_ROOT}/usr/bin/* {_ROOT}/usr/sbin/* {_ROOT}/bin/* {_ROOT}/sbin/*; do "
    "[ -f $f ] && [ -x $f ] || continue; n=${f##*/}; "
    'run="$ld --argv0 $n --library-path ${libs#:} $f"; '
    'IFS= read -r line <$f 2>/dev/null; case "$line" in "#!"*) i=${line#??}; i=${i# }; i=${i%% *}; run="'
    f'{TOOLS}/${{i##*/}} $f"; esac; '
    f'rm -f {TOOLS}/$n; printf "#!{SHELL[0]} sh\\nexec %s \\"\\$@\\"\\n" "$run" >{TOOLS}/$n; chmod 755 {TOOLS}/$n; done; '
)

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


def installed(command: tuple[str, ...], *, with_packages: bool = False) -> tuple[str, ...]:
    """A command, or a shell, that runs when each tool has its name in `TOOLS`."""
    script = f"{SHELL[0]} --install -s {TOOLS} 2>/dev/null; "
    if with_packages:
        script += _WRAPPERS
    return (*SHELL, "-c", script + 'exec "$@"', "sh", *(command or SHELL))


def packages_folder(names: tuple[str, ...], world: World, materials: Materials) -> str:
    """A folder of this host that is the root of Debian packages with all that they need, composed once.

    Raises `debug.tools`, and what composing raises.
    """
    wrong = [name for name in names if not _PACKAGE.fullmatch(name)]
    if wrong:
        raise AerogelError(
            f"`{wrong[0]}` is not the name of a Debian package",
            code="debug.tools",
            hints=["write `--tools strace,curl`"],
            exit_status=EXIT_USAGE,
        )
    folders = _composed(
        f"aerogel/cc+{'+'.join(names)}", world, materials, "see the names of packages on this release of Debian"
    )
    return folders[0] if len(folders) == 1 else _merged(folders, world)


def packages_mount(folder: str) -> Mount:
    """The mount that shows such a folder in a new container."""
    return Mount(kind="overlay", lowers=(folder,), source="/", target=f"{TOOLS}/{PACKAGES}", readonly=True)


def _merged(folders: list[str], world: World) -> str:
    """Layers as one folder, made once."""
    name = hashlib.sha256("\n".join(folders).encode()).hexdigest()
    target = f"{world.settings.cache}/tools-v1/{name}"
    if not os.path.isdir(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        made = f"{target}.{os.getpid()}"
        world.helper().call("aerogel.sandbox.copied:layer", {"lowers": folders, "source": "", "target": made})
        os.rename(made, target)
    return target


def _of_host(world: World) -> str | None:
    path = shutil.which("busybox", path=world.settings.environment.get("PATH", os.defpath))
    return os.path.realpath(path) if path is not None and _is_static(path) else None


def _of_debian(world: World, materials: Materials) -> list[str]:
    hint = "this image has no shell; with `apt install busybox-static` the host lends its own"
    return _composed(_BASE, world, materials, hint)


def _composed(name: str, world: World, materials: Materials, hint: str) -> list[str]:
    from aerogel.commands.bases import Bases
    from aerogel.graph.stages import ImageRef
    from aerogel.oci.digest import Digest
    from aerogel.oci.platform import Platform

    typed = Source("the tools", name.encode())
    try:
        bases = Bases(world, materials, {}, pull=False)
        bases.will_run = True
        found = bases.resolve(ImageRef(name), str(Platform.host()), Span(typed, 0, len(typed.data)))
    except AerogelError as error:
        error.span = None
        error.hints = (*error.hints, hint)
        raise
    return materials.directories([Digest(one) for one in found.diff_ids])


def _is_static(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            program = read_program(file.read(HEAD_BYTES))
    except OSError:
        return False
    return program.kind == "elf" and not program.interpreter and program.machine == os.uname().machine
