"""`aerogel inspect`: everything about containers, images and volumes, as the JSON array that docker prints."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.documents import container_document
from aerogel.commands.format import expand_template
from aerogel.commands.lookup import find_image, is_composed
from aerogel.commands.registries import check_platform
from aerogel.commands.result import Result
from aerogel.commands.volume_inspect import described
from aerogel.commands.volumes import volumes_of
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag
from aerogel.oci.image import Image, images, load
from aerogel.oci.platform import Platform
from aerogel.oci.types import to_dict
from aerogel.solve.materials import Materials
from aerogel.store.images import ImageRecord
from aerogel.store.load import record_present
from aerogel.store.store import Store

__all__ = ["EXAMPLES", "Inspect", "InspectResult", "run", "text"]

EXAMPLES = (
    ("the entry point", "aerogel inspect -f '{{json .Config.Entrypoint}}' app"),
    ("how a container is", "aerogel inspect -f '{{.State.Status}} {{.State.ExitCode}}' web"),
    ("one platform of several", "aerogel inspect --platform linux/arm64 app"),
    ("the layers", "aerogel inspect -f '{{json .RootFS.Layers}}' app"),
)


class Inspect(Struct, frozen=True, kw_only=True):
    """Show everything about containers, images or volumes as JSON; a name is looked for in this order."""

    names: Annotated[tuple[str, ...], Flag("Names or ids", positional=True, metavar="NAME")]
    format: Annotated[str, Flag("Print by a template such as `{{.Id}}`", short="f", metavar="TEMPLATE")] = ""
    type: Annotated[Literal["", "container", "image", "volume"], Flag("Look only there", metavar="KIND")] = ""
    platform: Annotated[str, Flag("Platform to take from a multi-platform image", metavar="OS/ARCH")] = ""
    size: Annotated[bool, Flag("With the bytes of a container's files", short="s")] = False


class InspectResult(Result, frozen=True, kw_only=True):
    images: tuple[dict[str, Any], ...]
    """With docker's keys; an image index gives an entry for each platform."""
    containers: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    order: tuple[Literal["images", "containers", "volumes"], ...] = ()
    """Of which kind each one is, in the order in which they were asked for."""


def run(options: Inspect, world: World) -> InspectResult:
    """Reads documents. Raises `container.not-found`, `image.not-found`, `volume.not-found`."""
    found: dict[str, list[dict[str, Any]]] = {"images": [], "containers": [], "volumes": []}
    order: list[Literal["images", "containers", "volumes"]] = []
    for name in options.names:
        kind, several = _of_name(name, options, world)
        found[kind] += several
        order += [kind] * len(several)
    kinds = {kind: tuple(several) for kind, several in found.items()}
    return InspectResult(**kinds, order=tuple(order))


def _of_name(
    name: str, options: Inspect, world: World
) -> tuple[Literal["images", "containers", "volumes"], list[dict[str, Any]]]:
    containers, volumes = containers_of(world), volumes_of(world)
    if options.type in ("", "container"):
        try:
            return "containers", [container_document(containers.find(name), world, with_size=options.size)]
        except AerogelError as error:
            if options.type == "container" or error.code != "container.not-found":
                raise
    if options.type == "volume" or (options.type == "" and world.store.images.find(name) is None and volumes.has(name)):
        return "volumes", [described(volumes.find(name), volumes)]
    if world.store.images.find(name) is None and is_composed(name, world):
        return "images", [_composed(name, world, options.platform)]
    record = find_image(world.store, name)
    by_digest = {each.descriptor.digest: each for each in world.store.images.list()}
    named = by_digest.get(record.descriptor.digest, record)
    blobs = world.store.blobs
    if not options.platform:
        return "images", [_described(image, named, world.store) for image in images(record.descriptor, blobs)]
    platform = Platform.parse(options.platform)
    image = load((world.store.images.find(name, platform) or record).descriptor, blobs, platform)
    check_platform(image, name, platform)
    return "images", [_described(image, named, world.store)]


def text(options: Inspect, result: InspectResult) -> str:
    left = {"images": iter(result.images), "containers": iter(result.containers), "volumes": iter(result.volumes)}
    found = [next(left[kind]) for kind in result.order]
    if not options.format:
        return msgspec.json.format(msgspec.json.encode(found), indent=4).decode()
    if options.format == "json":
        return msgspec.json.encode(found).decode()
    return "\n".join(expand_template(options.format, one) for one in found)


def _described(image: Image, record: ImageRecord, store: Store) -> dict[str, Any]:
    record_present(image, store)
    config = json.loads(image.config_bytes)
    repositories = dict.fromkeys(
        reference.with_digest(record.descriptor.digest).familiar() for reference in record.references
    )
    parts: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": [reference.familiar() for reference in record.references],
        "RepoDigests": list(repositories),
        "Parent": "",
        "Comment": next((one.comment for one in reversed(image.config.history) if one.comment), ""),
        "Created": image.config.created,
        "DockerVersion": "",
        "Author": image.config.author,
        "Config": config.get("config") or {},
        "Architecture": image.config.architecture,
        "Variant": image.config.variant,
        "Os": image.config.os,
        "Size": image.size,
        "UncompressedSize": sum(_uncompressed(store, layer.diff_id) for layer in image.layers()),
        "GraphDriver": {"Name": "aerogel", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.config.rootfs.diff_ids)},
        "Metadata": {"LastTagTime": ""},
        "Descriptor": {
            "mediaType": image.descriptor.media_type,
            "digest": image.descriptor.digest,
            "size": image.descriptor.size,
        },
    }
    if not parts["Variant"]:
        del parts["Variant"]
    return parts


def _composed(name: str, world: World, platform: str) -> dict[str, Any]:
    """A base that is composed on demand: what is known of it before it is an image with a manifest."""
    from aerogel.commands.taken import base_of

    base, digest = base_of(name, world, Materials(world.store, world.helper), platform=platform)
    config = to_dict(base.config)
    return {
        "Id": str(digest or base.diff_ids[-1]),
        "RepoTags": [name],
        "RepoDigests": [],
        "Created": base.config.created,
        "Config": config.get("config") or {},
        "Architecture": base.config.architecture,
        "Os": base.config.os,
        "UncompressedSize": sum(_uncompressed(world.store, diff_id) for diff_id in base.diff_ids),
        "RootFS": {"Type": "layers", "Layers": list(base.diff_ids)},
    }


def _uncompressed(store: Store, diff_id: Any) -> int:
    layer = store.layers.record(diff_id)
    return layer.size if layer is not None else 0
