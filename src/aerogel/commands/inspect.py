"""`aerogel inspect`: everything about images, as the JSON array that docker prints."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Struct

from aerogel.commands.format import expand_template
from aerogel.commands.lookup import find_image
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.oci.image import Image, images
from aerogel.store.images import ImageRecord
from aerogel.store.load import record_present
from aerogel.store.store import Store

__all__ = ["EXAMPLES", "Inspect", "InspectResult", "run", "text"]

EXAMPLES = (
    ("the entry point", "aerogel inspect -f '{{json .Config.Entrypoint}}' app"),
    ("the layers", "aerogel inspect -f '{{json .RootFS.Layers}}' app"),
)


class Inspect(Struct, frozen=True, kw_only=True):
    """Show everything about images as JSON."""

    names: Annotated[tuple[str, ...], Flag("Names or ids of images", positional=True, metavar="IMAGE")]
    format: Annotated[str, Flag("Print by a template such as `{{.Id}}`", short="f", metavar="TEMPLATE")] = ""
    type: Annotated[Literal["image"], Flag("Accepted for docker's sake")] = "image"


class InspectResult(Result, frozen=True, kw_only=True):
    images: tuple[dict[str, Any], ...]
    """With docker's keys; an image index gives an entry for each platform."""


def run(options: Inspect, world: World) -> InspectResult:
    """Reads manifests and configs. Raises `image.not-found`."""
    records = [find_image(world.store, name) for name in options.names]
    by_digest = {record.descriptor.digest: record for record in world.store.images.list()}
    found: list[dict[str, Any]] = []
    for record in records:
        named = by_digest.get(record.descriptor.digest, record)
        found += [_described(image, named, world.store) for image in images(record.descriptor, world.store.blobs)]
    return InspectResult(images=tuple(found))


def text(options: Inspect, result: InspectResult) -> str:
    if not options.format:
        return msgspec.json.format(msgspec.json.encode(result.images), indent=4).decode()
    if options.format == "json":
        return msgspec.json.encode(result.images).decode()
    return "\n".join(expand_template(options.format, image) for image in result.images)


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


def _uncompressed(store: Store, diff_id: Any) -> int:
    layer = store.layers.record(diff_id)
    return layer.size if layer is not None else 0
