"""The volumes of `aerogel run`: what `-v name:/path`, `--mount type=volume`, `--volumes-from` and VOLUME ask for.

Spec: `docker run` reference; a volume that is empty gets what the image has at its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from aerogel.commands.detaching import containers_of
from aerogel.commands.run_flags import Wish, fault
from aerogel.commands.world import World
from aerogel.errors import EXIT_HOST, AerogelError
from aerogel.runtime.containers import VolumeUse
from aerogel.runtime.copying import piped, run_work
from aerogel.runtime.volumes import Volumes, check_volume_name
from aerogel.sandbox.spec import Mount, Rootfs, Sandbox

__all__ = ["from_others", "lend", "lending", "parse_wish", "refuse_doubles", "volumes_of", "wishes_of_image"]

_WORDS = ("ro", "rw", "z", "Z", "nocopy")

_WITHOUT_MOUNTS = ("chroot",)


def volumes_of(world: World) -> Volumes:
    """The volumes of this user."""
    return Volumes(world.settings.data)


def parse_wish(text: str) -> Wish | None:
    """`name:/path[:ro,nocopy]` or `/path`; None for a folder of the host. Raises `run.volume`, `volume.name`."""
    name, sign, rest = text.partition(":")
    if not sign:
        if not text.startswith("/") or text.strip("/") == "":
            raise fault(
                f"volume `{text}`: it is not an absolute path", "run.volume", "write `-v NAME:/path`, or `/path`"
            )
        return Wish(target=text)
    if name.startswith(("/", ".", "~")) or "/" in name:
        return None
    target, _, words = rest.partition(":")
    unknown = [word for word in words.split(",") if word and word not in _WORDS]
    if unknown:
        raise fault(
            f"volume `{text}`: `{unknown[0]}` is not `ro`, `rw` or `nocopy`", "run.volume", "write `NAME:/path:ro`"
        )
    if not target.startswith("/"):
        raise fault(f"volume `{text}`: `{target}` is not an absolute path", "run.volume", "write `NAME:/path`")
    check_volume_name(name)
    return Wish(name=name, target=target, readonly="ro" in words.split(","), is_filled="nocopy" not in words.split(","))


def from_others(given: Sequence[str], world: World) -> tuple[list[Wish], list[Mount]]:
    """The volumes and lent folders of the containers of `--volumes-from`. Raises `container.not-found`, `run.volume`."""
    wishes: list[Wish] = []
    mounts: list[Mount] = []
    for text in given:
        name, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw"):
            raise fault(f"`--volumes-from {text}`: `{mode}` is not `ro` or `rw`", "run.volume", "write `CONTAINER:ro`")
        container = containers_of(world).find(name).container
        taken = {use.target for use in container.volumes}
        wishes += [
            Wish(name=use.name, target=use.target, readonly=use.readonly or mode == "ro", is_filled=False)
            for use in container.volumes
        ]
        mounts += [
            msgspec.structs.replace(mount, readonly=mount.readonly or mode == "ro")
            for mount in container.sandbox.mounts
            if mount.kind == "bind" and mount.target not in taken
        ]
    return wishes, mounts


def wishes_of_image(declared: Sequence[str], taken: Sequence[str]) -> list[Wish]:
    """A volume for each VOLUME of the image at whose place nothing else is asked for."""
    places = {_clean(each) for each in taken}
    return [Wish(target=path) for path in declared if path.startswith("/") and _clean(path) not in places]


def _clean(path: str) -> str:
    return os.path.normpath(path)


def refuse_doubles(targets: Sequence[str]) -> None:
    """Raises `run.mount` when two things are asked for at one place."""
    seen: set[str] = set()
    for target in map(_clean, targets):
        if target in seen:
            raise fault(f"two things are to be mounted at `{target}`", "run.mount", "leave one of them out")
        seen.add(target)


@contextmanager
def lending(world: World) -> Iterator[None]:
    """The block in which volumes are found or made, and the container is noted that has them.

    When it fails nothing is left of the volumes that were made for that container; what killed processes left goes too.
    """
    volumes, containers, discard = volumes_of(world), containers_of(world).list, _discarder(world)
    volumes.sweep(containers, discard)
    try:
        with volumes.lending():
            yield
    except BaseException:
        volumes.sweep(containers, discard)
        raise


def _discarder(world: World) -> Callable[[str], None]:
    def discard(path: str) -> None:
        world.helper().call("remove", {"path": path})

    return discard


def lend(
    wishes: Sequence[Wish], layers: Sequence[str], world: World
) -> tuple[tuple[VolumeUse, ...], tuple[Mount, ...]]:
    """Finds or makes the volumes, fills those that are empty; what the container has, and its mounts.

    For a block of `lending`. `layers` are the image's directories. Raises `volume.*`, and what filling raises.
    """
    volumes, discard = volumes_of(world), _discarder(world)
    uses: list[VolumeUse] = []
    mounts: list[Mount] = []
    can_mount = not wishes or world.helper().rung.name not in _WITHOUT_MOUNTS
    for wish in wishes:
        if not can_mount:
            if wish.name:
                raise _no_mounts(wish)
            # What is written there goes with the container, as it would with the volume.
            if not any(os.path.lexists(f"{layer}{_clean(wish.target)}") for layer in layers):
                mounts.append(Mount(kind="tmpfs", target=wish.target, mode=0o755))
            continue
        volume = volumes.create(wish.name, world.clock(), is_passing=not wish.name)
        volumes.claim(volume.name, world.helper().rung.map_id)
        data = volumes.data_of(volume.name)
        with volumes.filling(volume.name, discard) as is_empty:
            if is_empty and wish.is_filled and _may_have(layers, wish.target):
                _fill(data, wish.target, layers, world)
        uses.append(
            VolumeUse(
                name=volume.name,
                target=wish.target,
                readonly=wish.readonly,
                is_own=volume.is_anonymous and not wish.name,
            )
        )
        mounts.append(Mount(kind="bind", source=data, target=wish.target, readonly=wish.readonly))
    return tuple(uses), tuple(mounts)


def _no_mounts(wish: Wish) -> AerogelError:
    return AerogelError(
        f"volume `{wish.name}` cannot be shown at `{wish.target}`: nothing can be mounted here",
        code="volume.no-mounts",
        hints=["`aerogel cp` brings files in and out", "`aerogel doctor` tells what is missing for mounts"],
        exit_status=EXIT_HOST,
    )


def _may_have(layers: Sequence[str], path: str) -> bool:
    """Whether a layer has the beginning of the path."""
    first = _clean(path).strip("/").partition("/")[0]
    return any(os.path.lexists(f"{layer}/{first}") for layer in layers)


def _fill(data: str, path: str, layers: Sequence[str], world: World) -> None:
    """Copies what the image shows at a path into the empty directory, with the owner and mode of the path itself."""
    helper = world.helper()
    sandbox = Sandbox(argv=("work",), root=Rootfs(lowers=tuple(layers), readonly=True))
    args: dict[str, Any] = {"path": path.rstrip("/") + "/"}

    def pack(fd: int) -> None:
        with open(os.devnull, "rb") as null:
            run_work(helper, sandbox, ("aerogel.files.transfer:pack", args), null.fileno(), fd)

    try:
        with piped(pack) as read, open(os.devnull, "wb") as null:
            wanted = {"path": data, "contents": True, "dress": True}
            helper.call("aerogel.files.transfer:unpack", wanted, [read, null.fileno()])
    except AerogelError as error:
        if error.code != "cp.no-such-path":
            raise
