"""What keeps a command from starting, read from the files of an image: nothing is run, so no shell is needed.

Told are a program that is not there or is none, one for another machine, a missing loader or interpreter, libraries that
are missing or too old, for the program or a module of Python's packages, packages for another Python, and rights that the
user lacks. The checks are those of every build (`starting`, `checks`).
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator

import msgspec

from aerogel.checks.dynamic import Dynamic
from aerogel.checks.image import Found, check_image, is_python_module
from aerogel.commands.image_checks import Reading
from aerogel.commands.starting import start_fault, started_paths
from aerogel.errors import AerogelError
from aerogel.export.image import Finished
from aerogel.files.entry import REG
from aerogel.files.tree import LayerTree
from aerogel.oci.digest import Digest
from aerogel.oci.platform import Platform
from aerogel.oci.types import ContainerConfig, ImageConfig
from aerogel.sandbox.accounts import find_account
from aerogel.solve.materials import Materials

__all__ = ["report", "why_not", "with_command"]

_RULES = ("LibraryTooOld", "MissingLibrary", "MissingLoader", "PythonVersionMismatch", "WrongArchitecture")


def why_not(
    layers: tuple[Digest, ...], config: ContainerConfig, platform: str, name: str, materials: Materials
) -> list[tuple[str, ...]]:
    """What is wrong, each a sentence and hints; empty when nothing is known. `name` is what FROM would say."""
    materials.bring_all(layers)
    tree = materials.tree(layers)
    asked = Platform.parse(platform)
    finished = Finished(ImageConfig(architecture=asked.architecture, os=asked.os, config=config), layers, len(layers))
    fault = start_fault(config, asked.architecture, layers, materials)
    if fault is not None:
        return [fault]
    found = [*_rights(config, tree)]
    return [*found, *((one.message, *one.hints) for one in _libraries(finished, name, tree, materials))]


def report(words: tuple[str, ...], config: ContainerConfig, found: list[tuple[str, ...]]) -> str:
    """The command, and what keeps it from starting, as text."""
    lines = [f"command: {json.dumps(words)}", f"folder: {config.working_dir or '/'}", f"user: {config.user or '0'}"]
    if not found:
        lines.append("nothing is known that keeps it from starting")
    for message, *hints in found:
        lines += [f"fault: {message}", *(f"hint: {hint}" for hint in hints)]
    return "\n".join(lines)


def _libraries(finished: Finished, name: str, tree: LayerTree, materials: Materials) -> list[Found]:
    reading = Reading(finished, materials)
    names: dict[str, list[bytes]] = {}
    modules: list[bytes] = []
    for entry in tree.walk(b""):
        base = entry.path.rpartition(b"/")[2]
        if b".so" in base:
            names.setdefault(base.decode("utf-8", "replace"), []).append(entry.path)
            if entry.kind == REG and is_python_module(entry.path):
                modules.append(entry.path)
    dynamic: dict[bytes, Dynamic] = {}
    pending = [*started_paths(finished.config.config, tree), *modules]
    while pending:
        path = pending.pop()
        found = None if path in dynamic else reading.given(path)
        if found is None:
            continue
        dynamic[path] = found
        pending += [tree.resolve(place) for soname in found.needed for place in names.get(soname, ())]
    subject = reading.subject(name)._replace(dynamic=dynamic, base=0)
    return [one for one in check_image(subject) if one.rule in _RULES]


def _rights(config: ContainerConfig, tree: LayerTree) -> Iterator[tuple[str, ...]]:
    """What the user may not enter or execute; root may enter everything."""
    try:
        account = find_account(config.user, tree.small(b"etc/passwd") or b"", tree.small(b"etc/group") or b"")
    except AerogelError as error:
        yield error.message, *error.hints
        return
    if account.uid == 0:
        return
    for path in sorted(started_paths(config, tree)):
        parts = path.split(b"/")
        for length in range(1, len(parts) + 1):
            entry = tree.lookup(b"/".join(parts[:length]))
            if entry is None:
                break
            groups = {account.gid, *account.groups}
            shift = 6 if entry.uid == account.uid else 3 if entry.gid in groups else 0
            if not entry.mode >> shift & 1:
                shown = "/" + entry.path.decode("utf-8", "backslashreplace")
                kind = stat.S_IFREG if length == len(parts) else stat.S_IFDIR
                verb = "execute" if length == len(parts) else "enter"
                owner = f"{stat.filemode(kind | entry.mode)} and belongs to {entry.uid}:{entry.gid}"
                yield (
                    f"user `{config.user}` may not {verb} `{shown}`, which is {owner}",
                    f"copy it with `COPY --chown={account.uid}:{account.gid}` or `COPY --chmod=755`",
                )
                return


def with_command(config: ContainerConfig, words: tuple[str, ...]) -> ContainerConfig:
    """The config with this command in place of the image's own."""
    return msgspec.structs.replace(config, entrypoint=words, cmd=())
