"""`aerogel save`: images as one archive that docker, podman and skopeo read."""

from __future__ import annotations

import os
from typing import Annotated, BinaryIO, ClassVar, Literal

import msgspec
from msgspec import Struct

from aerogel.commands.platforms import check_room, find_chosen, parse_choice
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import Message
from aerogel.flag import Flag
from aerogel.oci.digest import is_digest
from aerogel.oci.image import walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.store.disk import write_whole
from aerogel.store.layout import Root, write_docker_archive, write_oci_archive

__all__ = ["EXAMPLES", "Save", "SaveResult", "SavedImage", "run", "text"]

EXAMPLES = (
    ("for docker load", "aerogel save app | docker load"),
    ("one platform of an index", "aerogel save --platform linux/arm64 --format oci-archive -o app.tar app"),
    ("an OCI archive", "aerogel save --format oci-archive -o app.tar app"),
)


class Save(Struct, frozen=True, kw_only=True):
    """Write images to an archive."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of images", positional=True, metavar="IMAGE")]
    output: Annotated[
        str, Flag("File to write; without it, standard output", short="o", metavar="FILE", complete="file")
    ] = "-"
    format: Annotated[
        Literal["docker-archive", "oci-archive"], Flag("Kind of archive; docker's is an OCI archive as well")
    ] = "docker-archive"
    platform: Annotated[str | None, Flag("Platform to take from a multi-platform image", metavar="OS/ARCH")] = None
    all_platforms: Annotated[
        bool, Flag("The whole index: the default of `oci-archive`; `docker-archive` has room for one image")
    ] = False
    referrers: Annotated[
        bool | None, Flag("With signatures, SBOMs and provenance: the default of `oci-archive`, the other has no room")
    ] = None
    json: Annotated[bool, Flag("Print what the file of `-o` has, as JSON", group="Common")] = False


class SavedImage(Struct, frozen=True, kw_only=True):
    """An image of the archive."""

    digest: str
    references: tuple[str, ...]
    """The names that it has there."""
    referrers: int
    """How many artifacts that refer to it are there too."""


class SaveResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False

    output: str
    format: str
    size: int
    """Bytes of the file, 0 on standard output."""
    images: tuple[SavedImage, ...]


def text(options: Save, result: SaveResult) -> str:
    """What is printed at the end: nothing, unless it was asked for."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode() if options.json else ""


def run(options: Save, world: World) -> SaveResult:
    """Writes the archive; a file is there whole or not at all.

    Raises `image.*`, `cli.platforms`, `copy.referrers`, `copy.one-platform`, `oci.*`, `save.*`, `store.*`.
    """
    platform = parse_choice(options.platform, is_all=options.all_platforms)
    is_bare = options.format == "docker-archive"
    if is_bare and options.referrers:
        raise AerogelError(
            "docker's archives have no room for what refers to an image",
            code="copy.referrers",
            exit_status=EXIT_USAGE,
            hints=["save it with `--format oci-archive`"],
        )
    roots = [_root(world, name, options, platform) for name in options.names]
    for root in roots if is_bare and options.all_platforms else ():
        check_room(root.descriptor, "a `docker-archive`")
    if options.output == "-":
        if options.json:
            raise AerogelError(
                "standard output cannot have both the archive and `--json`",
                code="save.json",
                hints=["write the archive to a file with `-o FILE`"],
                exit_status=EXIT_USAGE,
            )
        if os.isatty(world.streams.stdout):
            raise AerogelError(
                "standard output is a terminal, and an archive is not for reading",
                code="save.terminal",
                hints=["write to a file with `-o FILE`, or pipe it"],
                exit_status=EXIT_USAGE,
            )
        with os.fdopen(os.dup(world.streams.stdout), "wb") as stream:
            _write(options.format, stream, roots, world, platform)
        return _result(options, roots, 0)
    target = world.settings.directory / options.output
    write_whole(target, lambda stream: _write(options.format, stream, roots, world, platform))
    world.sink.emit(Message(f"wrote {options.output} ({options.format})"))
    return _result(options, roots, target.stat().st_size)


def _result(options: Save, roots: list[Root], size: int) -> SaveResult:
    is_bare = options.format == "docker-archive"
    images = tuple(
        SavedImage(
            digest=root.descriptor.digest,
            references=tuple(str(one) for one in root.references),
            referrers=0 if is_bare else len(root.referrers),
        )
        for root in roots
    )
    return SaveResult(output=options.output, format=options.format, size=size, images=images)


def _root(world: World, name: str, options: Save, platform: Platform | None) -> Root:
    record = find_chosen(world.store, name, platform, is_all=options.all_platforms)
    is_name = any(one.tag is not None for one in record.references) and not is_digest(name)
    parts = () if options.referrers is False else walk(record.descriptor, world.store.blobs)
    referrers = tuple(each for part in parts for each in world.store.referrers.of(part.digest))
    return Root(record.descriptor, tuple(_tagged(record.references)) if is_name else (), referrers)


def _tagged(references: tuple[Reference, ...]) -> list[Reference]:
    return [one for one in references if one.tag is not None]


def _write(form: str, stream: BinaryIO, roots: list[Root], world: World, platform: Platform | None) -> None:
    if form == "oci-archive":
        write_oci_archive(stream.write, roots, world.store.blobs)
    else:
        # Docker's archives have no room for what is told of an image.
        bare = [Root(root.descriptor, root.references) for root in roots]
        from aerogel.commands.copying import check_layers

        for root in bare:
            check_layers(root.descriptor, world.store.blobs, world.store)
        write_docker_archive(stream.write, bare, world.store.blobs, platform=platform)
