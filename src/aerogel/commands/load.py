"""`aerogel load`: images out of an archive of docker, podman or skopeo, or out of an OCI layout folder."""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Struct

from aerogel.commands.policy import enforce_elsewhere, may_use
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic
from aerogel.events import Warned
from aerogel.flag import Flag
from aerogel.oci.reference import Reference
from aerogel.store.disk import disk_errors
from aerogel.store.images import describe
from aerogel.store.load import Loaded, load_archive, load_layout

__all__ = ["EXAMPLES", "Load", "LoadResult", "LoadedImage", "run"]

EXAMPLES = (("what docker save wrote", "docker save app | aerogel load"), ("a file", "aerogel load -i app.tar"))


class Load(Struct, frozen=True, kw_only=True):
    """Read images from an archive into the local store."""

    input: Annotated[
        str,
        Flag("Archive or OCI layout folder; without it, standard input", short="i", metavar="FILE", complete="file"),
    ] = "-"
    quiet: Annotated[bool, Flag("Show no progress", short="q")] = False


class LoadedImage(Struct, frozen=True, kw_only=True):
    id: str
    digest: str
    references: tuple[str, ...]


class LoadResult(Result, frozen=True, kw_only=True):
    images: tuple[LoadedImage, ...]

    def text(self) -> str:
        lines = []
        for image in self.images:
            lines += [f"Loaded image: {name}" for name in image.references] or [f"Loaded image ID: {image.id}"]
        return "\n".join(lines)


def run(options: Load, world: World) -> LoadResult:
    """Checks and stores every image, then gives the names. Raises `load.terminal`, `policy.*`, `archive.*`, `store.*`."""
    path = None if options.input == "-" else world.settings.directory / options.input
    enforce_elsewhere(world, "oci" if path is not None and path.is_dir() else "docker-archive", options.input, path)
    if path is None:
        if os.isatty(world.streams.stdin):
            raise AerogelError(
                "standard input is a terminal, and nothing is piped into it",
                code="load.terminal",
                hints=["name a file with `-i FILE`"],
                exit_status=EXIT_USAGE,
            )
        with os.fdopen(os.dup(world.streams.stdin), "rb") as stream:
            loaded = load_archive(stream, world.store)
    elif path.is_dir():
        loaded = load_layout(str(path), world.store)
    else:
        with disk_errors(str(path)), path.open("rb") as stream:
            loaded = load_archive(stream, world.store)
    return LoadResult(images=tuple(_named(one, world) for one in loaded))


def _warn(reference: Reference, world: World) -> None:
    """A name that an archive tells is no proof of where the image comes from."""
    name = reference.familiar()
    remark = Diagnostic(
        f"`{name}` is not used as it came: a signature is asked for, and the archive has none that is right",
        code="policy.loaded",
        hints=[f"`aerogel tag {name} {name}` makes the name yours; without it the registry is asked"],
    )
    world.sink.emit(Warned(remark))


def _named(loaded: Loaded, world: World) -> LoadedImage:
    meta = describe(loaded.descriptor, world.store.blobs)
    world.store.images.add(loaded.descriptor, meta)
    for reference in loaded.references:
        world.store.images.tag(reference, loaded.descriptor, meta)
        if not may_use(world, reference, loaded.descriptor.digest):
            _warn(reference, world)
    return LoadedImage(
        id=meta.image_id or loaded.descriptor.digest,
        digest=loaded.descriptor.digest,
        references=tuple(reference.familiar() for reference in loaded.references),
    )
