"""From finished stages to images in the store: layer blobs, configs, manifests, an index for several platforms.

A build gives one `Finished` for each platform. `Images` makes of them what an output asks for (`Variant`), each form
once; names are given by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from aerogel.export.annotation import Annotation, annotations_for, refuse_levels
from aerogel.export.output import Variant
from aerogel.export.squash import squash
from aerogel.files.codec import Codec, LayerWriter
from aerogel.files.entry import REG, Entry
from aerogel.files.index import LayerIndex
from aerogel.files.tar import CHUNK, TarWriter, read_entries
from aerogel.graph.steps import Lowered
from aerogel.oci.digest import Digest
from aerogel.oci.image import Image, create, create_index
from aerogel.oci.platform import Platform
from aerogel.oci.types import Descriptor, ImageConfig, RootFS, from_dict, to_dict
from aerogel.solve.materials import Materials, save_layer
from aerogel.solve.solver import Outcome

__all__ = ["Exported", "Finished", "Images", "finish"]


class Finished(msgspec.Struct, frozen=True):
    """The result of one platform: a config, its layers lowest first, how many of them are the base's."""

    config: ImageConfig
    layers: tuple[Digest, ...]
    base: int = 0
    epoch_s: int = 0
    """The time of the image, seconds since 1970."""

    @property
    def platform(self) -> Platform:
        return self.config.platform.normal()


class Exported(msgspec.Struct, frozen=True):
    """What the store has of a build in one form: an image, or an index of the images of several platforms.

    The annotations of `descriptor` are those that a layout writes beside it.
    """

    descriptor: Descriptor
    images: tuple[Image, ...]

    @property
    def image_id(self) -> Digest:
        """Docker's image id: the digest of the config; of an index its own."""
        return self.images[0].id if len(self.images) == 1 else self.descriptor.digest

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The blobs of the layers of all images, each once."""
        return tuple({each.digest: each for image in self.images for each in image.manifest.layers}.values())

    @property
    def size(self) -> int:
        """Bytes of all blobs, each once."""
        parts = {self.descriptor.digest: self.descriptor.size}
        for image in self.images:
            for part in (image.descriptor, image.manifest.config, *image.manifest.layers):
                parts[part.digest] = part.size
        return sum(parts.values())


def finish(lowered: Lowered, outcome: Outcome, labels: dict[str, str], epoch_s: int) -> Finished:
    """The config and layers of a solved stage."""
    if labels:
        lowered.config.labels.update(labels)
    added = outcome.added(lowered.node)
    empty = frozenset(digest for digest, layer in added.items() if not layer)
    config = lowered.config.finish(outcome.layers, empty, epoch_s)
    above = sum(bool(layer) for layer in outcome.chain)
    return Finished(config, outcome.layers, len(outcome.layers) - above, epoch_s)


class Images:
    """The images of one build in the store, each form made once. `annotations` are those of every form."""

    def __init__(
        self,
        finished: Sequence[Finished],
        materials: Materials,
        codec: Codec,
        annotations: Sequence[Annotation] = (),
    ) -> None:
        self.finished = tuple(finished)
        self._materials = materials
        self.codec = codec
        self._annotations = tuple(annotations)
        self._made: dict[Variant, Exported] = {}

    def squash(self, keep: Sequence[int]) -> None:
        """Makes one layer of all above the lowest `keep[n]` of the nth result; before anything else is asked."""
        finished = []
        for each, number in zip(self.finished, keep, strict=True):
            config, layers = squash(each.config, each.layers, number, self._materials, self.codec)
            finished.append(Finished(config, layers, min(number, each.base), each.epoch_s))
        self.finished = tuple(finished)

    def form(self, variant: Variant = Variant()) -> Exported:  # noqa: B008 - a frozen value
        """The build's result in a form. Raises `build.bad-annotation`, `store.*`."""
        made = self._made.get(variant)
        if made is None:
            made = self._made[variant] = self._make(variant)
        return made

    def all(self) -> tuple[Exported, ...]:
        """Every form that was made."""
        return tuple(self._made.values())

    def referrers(self, made: Exported) -> tuple[Descriptor, ...]:
        """The artifacts of the images of a form."""
        store = self._materials.store
        return tuple(each for image in made.images for each in store.referrers.of(image.digest))

    def _make(self, variant: Variant) -> Exported:
        annotations = (*self._annotations, *variant.annotations)
        is_index = len(self.finished) > 1
        refuse_levels(annotations, is_index=is_index)
        images = tuple(self._image(each, variant, annotations) for each in self.finished)
        if not is_index:
            return Exported(images[0].descriptor, images)
        descriptor = create_index(
            [image.descriptor for image in images],
            self._materials.store.blobs,
            annotations=annotations_for(annotations, "index"),
        )
        beside = annotations_for(annotations, "index-descriptor")
        return Exported(msgspec.structs.replace(descriptor, annotations=beside), images)

    def _image(self, finished: Finished, variant: Variant, annotations: Sequence[Annotation]) -> Image:
        if variant.rewrite:
            finished = self._rewritten(finished)
        materials, layers = self._materials, finished.layers
        codec = variant.codec or self.codec
        blobs = [self._blob(layers, number, codec, force=variant.force) for number in range(len(layers))]
        own = annotations_for(annotations, "manifest", finished.platform)
        # As BuildKit: Docker's types have no room for annotations and none for zstd.
        docker = variant.docker and not own and not any(blob.media_type.endswith("zstd") for blob in blobs)
        image = create(finished.config, blobs, materials.store.blobs, annotations=own, docker=docker)
        beside = annotations_for(annotations, "manifest-descriptor", finished.platform)
        return msgspec.structs.replace(image, descriptor=msgspec.structs.replace(image.descriptor, annotations=beside))

    def _blob(self, layers: Sequence[Digest], number: int, codec: Codec, *, force: bool) -> Descriptor:
        """The blob of a layer; with `force` also one of another tool's layer is compressed as we do it.

        That blob is remembered as an action and not as one of the layer's own, which are what the layer came as.
        """
        materials, layer = self._materials, layers[number]
        blob = materials.blob(layers, number, codec)
        if not force or blob == self._own(layer, codec):
            return blob
        store = materials.store
        key = Digest(f"sha256:{sha256(f'aerogel-recompress-v1 {codec.name} {layer}'.encode()).hexdigest()}")
        with store.once(key, materials.on_wait):
            known = store.actions.get(key)
            if known is not None and store.blobs.size(known["blob"]["digest"]) == known["blob"]["size"]:
                return from_dict(known["blob"], Descriptor)
            with (
                materials.open_tar(layer) as stream,
                store.blobs.write() as file,
                LayerWriter(file.fd, codec) as writer,
            ):
                while data := stream.read(CHUNK):
                    writer.write(data)
                made = writer.finish()
                file.commit(Digest(str(made.digest)), made.size)
            blob = Descriptor(media_type=made.media_type or "", digest=Digest(str(made.digest)), size=made.size or 0)
            store.actions.put(key, {"op": "recompress", "layer": layer, "codec": codec.name}, {"blob": to_dict(blob)})
        return blob

    def _own(self, layer: Digest, codec: Codec) -> Descriptor | None:
        record = self._materials.store.layers.record(layer)
        return None if record is None else record.blobs.get(codec.name)

    def _rewritten(self, finished: Finished) -> Finished:
        """With the layers of this build such that no file is newer than the build's epoch."""
        layers = tuple(
            layer if number < finished.base else self._clamped(finished, number)
            for number, layer in enumerate(finished.layers)
        )
        if layers == finished.layers:
            return finished
        rootfs = RootFS(diff_ids=layers, unknown=finished.config.rootfs.unknown)
        return msgspec.structs.replace(
            finished, layers=layers, config=msgspec.structs.replace(finished.config, rootfs=rootfs)
        )

    def _clamped(self, finished: Finished, number: int) -> Digest:
        materials, layers, epoch_s = self._materials, finished.layers, finished.epoch_s
        layer = layers[number]
        if max(materials.summary(layer).times, default=epoch_s) <= epoch_s:
            return layer
        materials.blob(layers, number, self.codec)
        entries: list[Entry] = []
        offsets: list[int] = []
        store = materials.store
        with store.blobs.write() as blob, LayerWriter(blob.fd, self.codec) as writer:
            tar = TarWriter(writer.write)
            with materials.open_tar(layer) as stream:
                for entry, content in read_entries(stream):
                    clamped = entry._replace(mtime=min(entry.mtime, epoch_s))
                    tar.entry(clamped)
                    entries.append(clamped)
                    offsets.append(tar.offset)
                    while piece := content.some():
                        tar.content(piece)
                    if entry.kind == REG:
                        tar.pad()
            tar.close()
            made = writer.finish()
            blob.commit(Digest(str(made.digest)), made.size)
        save_layer(store, made, LayerIndex(entries, offsets, materials.index(layer).small))
        return Digest(made.diff_id)
