"""Makes containers of `aerogel run` and starts those that live in the background."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import msgspec

from aerogel.commands.world import World
from aerogel.errors import EXIT_HOST, AerogelError, Faults
from aerogel.runtime.containers import Container, Containers, Seen
from aerogel.runtime.volumes import Volumes
from aerogel.sandbox import wire
from aerogel.sandbox.control import detach
from aerogel.sandbox.launch import Helper

__all__ = ["containers_of", "each", "helper_for", "remove", "start", "with_upper"]


def containers_of(world: World) -> Containers:
    """The containers of this user."""
    return Containers(world.settings.data)


def with_upper(container: Container, folder: str) -> Container:
    """The container with a place below its folder for what it writes, so that it is still there after its end."""
    if container.is_removed or container.sandbox.root.readonly:
        return container
    root = msgspec.structs.replace(container.sandbox.root, upper=f"{folder}/upper", work=f"{folder}/work")
    return msgspec.structs.replace(container, sandbox=msgspec.structs.replace(container.sandbox, root=root))


def start(seen: Seen, world: World, *, waits: bool = False) -> None:
    """Starts a container in a process of its own, and waits until its command runs.

    With `waits` the command starts as soon as somebody is attached, who is told when it cannot.

    Raises what starting raises, with the command's exit status 126 or 127 when it cannot be started.
    """
    state_dir = str(world.settings.cache / "sandbox")
    said = detach(
        "aerogel.runtime.keeper",
        (str(world.settings.data), seen.folder, state_dir, "waits" if waits else ""),
        world.settings.environment,
        f"{seen.folder}/keeper.log",
    )
    answer = json.loads(said) if said else {}
    if "error" in answer:
        raise wire.error_from(answer["error"])
    if "pid" not in answer:
        raise AerogelError(
            "the process that was to hold the container ended",
            code="container.gone",
            detail=_last_words(seen),
            exit_status=EXIT_HOST,
        )


def _last_words(seen: Seen) -> str:
    try:
        with open(f"{seen.folder}/keeper.log", encoding="utf-8", errors="replace") as file:
            return file.read()[-4096:].strip()
    except OSError:  # it is gone with its folder
        return ""


def helper_for(seen: Seen, world: World) -> Callable[[], Helper]:
    """The helper on the rung of a container that has ended, started when it is asked for. Raises `container.other-rung`."""

    def get() -> Helper:
        helper = world.helper()
        if helper.rung.name != seen.container.rung:
            raise AerogelError(
                f"container `{seen.container.name}` has owners of files of the rung `{seen.container.rung}`, "
                f"and this command runs on `{helper.rung.name}`",
                code="container.other-rung",
                hints=[f"set `AEROGEL_ISOLATION={seen.container.rung}`, as the same user"],
                exit_status=EXIT_HOST,
            )
        return helper

    return get


def remove(seen: Seen, world: World, *, volumes: bool = False) -> None:
    """Removes a container that does not run, with what it wrote, and with `volumes` those that were made for it."""
    containers = containers_of(world)

    def discard(path: str) -> None:
        world.helper().call("remove", {"path": path})

    containers.remove(seen, discard)
    if volumes:
        Volumes(world.settings.data).remove_own(seen.container, containers.list, discard)


def each(names: Sequence[str], act: Callable[[str], object]) -> tuple[str, ...]:
    """Applies `act(name)` to every name, then raises the faults, if any; the names that went well."""
    done: list[str] = []
    faults: list[AerogelError] = []
    for name in names:
        try:
            act(name)
            done.append(name)
        except AerogelError as error:
            faults.append(error)
    if faults:
        raise faults[0] if len(faults) == 1 else Faults(faults)
    return tuple(done)
