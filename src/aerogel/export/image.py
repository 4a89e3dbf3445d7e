"""From a finished stage to an image in the store: layer blobs, config, manifest, reference."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aerogel.files.codec import Codec
from aerogel.graph.steps import Lowered
from aerogel.oci.digest import Digest
from aerogel.oci.image import create
from aerogel.oci.reference import Reference
from aerogel.oci.types import Descriptor, ImageConfig
from aerogel.solve.materials import Materials
from aerogel.solve.solver import Outcome
from aerogel.store.images import ImageMeta

__all__ = ["Exported", "export_image", "store_image"]


class Exported(msgspec.Struct, frozen=True):
    """An image that is in the store: its manifest's descriptor, the config's digest (Docker's image id)."""

    descriptor: Descriptor
    image_id: Digest
    size: int
    layers: tuple[Descriptor, ...]


def export_image(
    lowered: Lowered,
    outcome: Outcome,
    materials: Materials,
    *,
    codec: Codec,
    labels: dict[str, str],
    annotations: dict[str, str],
    references: Sequence[Reference],
) -> Exported:
    """Puts the image of a solved stage in the store under the references. Raises `store.*`."""
    if labels:
        lowered.config.labels.update(labels)
    added = outcome.added(lowered.node)
    empty = frozenset(digest for digest, layer in added.items() if not layer)
    config = lowered.config.finish(outcome.layers, empty, materials.epoch_s)
    return store_image(config, outcome.layers, materials, codec=codec, annotations=annotations, references=references)


def store_image(
    config: ImageConfig,
    layers: tuple[Digest, ...],
    materials: Materials,
    *,
    codec: Codec,
    annotations: dict[str, str],
    references: Sequence[Reference],
) -> Exported:
    """Puts an image of these layers in the store. Raises `store.*`."""
    store = materials.store
    blobs = tuple(materials.blob(layers, position, codec) for position in range(len(layers)))
    image = create(config, blobs, store.blobs, annotations=annotations)
    descriptor, config_blob = image.descriptor, image.manifest.config
    unique = {blob.digest: blob.size for blob in (*blobs, config_blob, descriptor)}
    meta = ImageMeta(
        image_id=config_blob.digest,
        created=config.created,
        size=sum(unique.values()),
        platforms=(str(config.platform),),
    )
    store.images.add(descriptor, meta)
    for reference in references:
        store.images.tag(reference, descriptor, meta)
    return Exported(descriptor=descriptor, image_id=config_blob.digest, size=meta.size, layers=blobs)
