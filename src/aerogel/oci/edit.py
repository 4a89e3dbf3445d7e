"""Changes of an image config and of an image, as functions from the old value to the new one.

What a Dockerfile's instructions do to a config is `graph.config`; this is for whoever composes or alters images
without one. Unknown keys of the old value are in the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.image import Image, WritableBlobs
from aerogel.oci.platform import Platform
from aerogel.oci.types import Descriptor, History, ImageConfig, Manifest, RootFS, encode

__all__ = [
    "add_history",
    "add_layer",
    "annotate",
    "empty_config",
    "get_env",
    "set_env",
    "set_labels",
    "set_run",
    "whole_history",
    "with_config",
    "with_layers",
]

_RUN_FIELDS = frozenset({"user", "entrypoint", "cmd", "working_dir", "stop_signal", "shell", "healthcheck", "on_build"})


def empty_config(platform: Platform, created: str = "") -> ImageConfig:
    """The config of `scratch` on a platform."""
    return ImageConfig(
        created=created,
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        os_version=platform.os_version,
        os_features=platform.os_features,
    )


def add_layer(config: ImageConfig, diff_id: Digest, history: History) -> ImageConfig:
    """One more layer on top, with the entry that says how it came to be."""
    rootfs = msgspec.structs.replace(config.rootfs, diff_ids=(*config.rootfs.diff_ids, diff_id))
    entry = msgspec.structs.replace(history, empty_layer=False)
    return msgspec.structs.replace(config, rootfs=rootfs, history=(*config.history, entry))


def add_history(config: ImageConfig, history: History) -> ImageConfig:
    """An entry of a step that made no layer."""
    entry = msgspec.structs.replace(history, empty_layer=True)
    return msgspec.structs.replace(config, history=(*config.history, entry))


def get_env(config: ImageConfig) -> dict[str, str]:
    """The environment by name, in order; of a name that stands there twice the last value."""
    pairs = (item.partition("=") for item in config.config.env)
    return {name: value for name, _, value in pairs}


def set_env(config: ImageConfig, values: Mapping[str, str]) -> ImageConfig:
    """Sets variables; one that is set already keeps its place. Raises `oci.env` for an impossible name."""
    for name in values:
        if not name or "=" in name or "\0" in name:
            raise AerogelError(f"`{name}` cannot be the name of an environment variable", code="oci.env")
    merged = {**get_env(config), **values}
    env = tuple(f"{name}={value}" for name, value in merged.items())
    return msgspec.structs.replace(config, config=msgspec.structs.replace(config.config, env=env))


def set_labels(config: ImageConfig, labels: Mapping[str, str]) -> ImageConfig:
    """Adds labels; an empty name is refused with `oci.label`."""
    if "" in labels:
        raise AerogelError("a label has an empty name", code="oci.label")
    merged = {**config.config.labels, **labels}
    return msgspec.structs.replace(config, config=msgspec.structs.replace(config.config, labels=merged))


def set_run(config: ImageConfig, **fields: object) -> ImageConfig:
    """Sets how containers run: any of user, entrypoint, cmd, working_dir, stop_signal, shell, healthcheck, on_build."""
    unknown = set(fields) - _RUN_FIELDS
    if unknown:
        raise TypeError(f"not a field of how containers run: {', '.join(sorted(unknown))}")
    return msgspec.structs.replace(config, config=msgspec.structs.replace(config.config, **fields))


def annotate(image: Image, annotations: Mapping[str, str], blobs: WritableBlobs) -> Image:
    """The image with more annotations on its manifest."""
    merged = {**image.manifest.annotations, **annotations}
    return _rewrite(image, msgspec.structs.replace(image.manifest, annotations=merged), image.config, blobs)


def with_config(image: Image, config: ImageConfig, blobs: WritableBlobs) -> Image:
    """The image with another config of the same layers. Raises `oci.layers` when it names others."""
    if config.rootfs.diff_ids != image.config.rootfs.diff_ids:
        raise AerogelError("the new config names other layers than the image has", code="oci.layers")
    return _rewrite(image, image.manifest, config, blobs)


def with_layers(
    image: Image, layers: Sequence[tuple[Descriptor, Digest]], history: Sequence[History], blobs: WritableBlobs
) -> Image:
    """The image with all its layers and their history replaced; each layer is a blob and its diff id."""
    rootfs = RootFS(diff_ids=tuple(diff_id for _, diff_id in layers), unknown=image.config.rootfs.unknown)
    config = msgspec.structs.replace(image.config, rootfs=rootfs, history=tuple(history))
    manifest = msgspec.structs.replace(image.manifest, layers=tuple(blob for blob, _ in layers))
    return _rewrite(image, manifest, config, blobs)


def _rewrite(image: Image, manifest: Manifest, config: ImageConfig, blobs: WritableBlobs) -> Image:
    config_bytes = image.config_bytes if config == image.config else encode(config)
    placed = blobs.put(config_bytes, manifest.config.media_type)
    placed = msgspec.structs.replace(manifest.config, digest=placed.digest, size=placed.size)
    manifest = msgspec.structs.replace(manifest, config=placed)
    data = image.manifest_bytes if manifest == image.manifest else encode(manifest)
    found = blobs.put(data, image.descriptor.media_type)
    descriptor = msgspec.structs.replace(image.descriptor, digest=found.digest, size=found.size)
    return Image(descriptor, manifest, config, data, config_bytes, blobs)


def whole_history(config: ImageConfig) -> ImageConfig:
    """The config with an entry for each layer, as what comes on top expects; some tools write fewer, or none."""
    known = sum(not entry.empty_layer for entry in config.history)
    lacking = len(config.rootfs.diff_ids) - known
    if lacking <= 0:
        return config
    more = (History(created=config.created, comment="layer of the base image"),) * lacking
    return msgspec.structs.replace(config, history=(*config.history, *more))
