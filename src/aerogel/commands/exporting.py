"""What a build does with its result: images in the store, archives, folders, registries, and files that tell of it.

Made before the build, so that what cannot be written is told before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aerogel.commands.attesting import parse_attestations
from aerogel.commands.build_model import Build, BuildResult
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import Message, step
from aerogel.export.annotation import parse_annotation
from aerogel.export.image import Exported, Finished, Images
from aerogel.export.output import DAEMONS, Output, Variant, parse_output
from aerogel.export.outputs import check_destination, check_outputs, write_outputs
from aerogel.files.codec import select
from aerogel.oci.digest import Digest
from aerogel.oci.reference import Reference
from aerogel.oci.types import to_dict
from aerogel.solve.materials import Materials
from aerogel.store.disk import human_size
from aerogel.store.images import ImageMeta

__all__ = ["Exporter", "write_whole"]

StageLayers = Callable[[str], Sequence[Sequence[Digest]] | None]
"""The layers of a stage by its name, one list for each platform; None when the image is not built from it."""

_BASE = "base"


class Exporter:
    """The outputs of one build. Raises `build.bad-output`, `build.bad-annotation`, `store.denied`."""

    def __init__(self, options: Build, world: World) -> None:
        self._options = options
        self._world = world
        self.outputs: list[Output] = [parse_output(text) for text in options.output]
        self._annotations = [parse_annotation(key, value) for key, value in options.annotation.items()]
        try:
            self.references = [Reference.parse(tag) for tag in options.tag]
            self.codec = select(options.compression)
        except AerogelError as error:
            error.exit_status = EXIT_USAGE
            raise
        check_outputs(self.outputs, world.streams.stdout)
        for path in (options.iidfile, options.metadata_file):
            if path not in ("", "-"):
                check_destination(path)
        self._pushed = self._names_to_push()
        self.attestations = parse_attestations(options)
        self._provenance: list[dict[str, object]] = []
        self._images: Images | None = None
        self._materials: Materials | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether standard output is an archive, so nothing else may be written there."""
        return any(output.dest == "-" for output in self.outputs)

    @property
    def _stored(self) -> list[Output]:
        """As what the local store lists the image: as nothing when only a push or only the cache is wanted."""
        asked = [output for output in self.outputs if output.is_image]
        if asked:
            return [output for output in asked if output.store]
        if self.outputs and all(output.type == "cacheonly" for output in self.outputs):
            return []
        return [Output(type="image")]

    @property
    def tags(self) -> list[Reference]:
        """The names of `--tag` that the image has in the store afterwards."""
        return self.references if self._stored else []

    @property
    def is_only_pushed(self) -> bool:
        """Whether only registries get the image: then layers of its base that are in one may stay there."""
        options = self._options
        is_wanted_here = bool(options.squash) or options.load or options.verify
        return bool(self._pushed) and not is_wanted_here and all(output.push for output in self.outputs)

    def take(
        self,
        finished: Sequence[Finished],
        materials: Materials,
        stage_layers: StageLayers,
        provenance: Callable[[int], dict[str, object]],
    ) -> Exported:
        """Puts the result in the store under its names, with what is told of it. `provenance` is of the nth platform.

        Raises `build.bad-squash`, `store.*`.
        """
        images = Images(finished, materials, self.codec, self._annotations)
        if self._options.squash:
            images.squash(self._kept(finished, stage_layers))
        self._images, self._materials = images, materials
        kept = [output for output in self.outputs if output.is_image] or [Output(type="image")]
        for output in self._stored:
            names = [Reference.parse(name) for name in output.names] or self.references
            self._keep(images.form(output.variant), [] if output.by_digest else names)
        if self._stored and all(output.names for output in self._stored):
            self._keep(images.form(self._stored[0].variant), self.references)
        for output in kept:
            for image in images.form(output.variant).images if output.unpack else ():
                materials.directories(image.config.rootfs.diff_ids)
        for output in self.outputs:
            if output.type in ("oci", "docker"):
                self._keep(images.form(output.variant), ())
        if self.attestations or self._options.metadata_file:
            self._provenance = [provenance(number) for number in range(len(images.finished))]
        if self.attestations:
            self._attest(images, kept)
        return images.form(kept[0].variant)

    def _keep(self, made: Exported, names: Sequence[Reference]) -> None:
        image = made.images[0]
        meta = ImageMeta(
            image_id=image.id if len(made.images) == 1 else "",
            created=max(each.config.created for each in made.images),
            size=made.size,
            platforms=tuple(str(each.config.platform) for each in made.images),
        )
        store = self._world.store
        store.images.add(made.descriptor, meta)
        for name in names:
            store.images.tag(name, made.descriptor, meta, is_own=True)

    def _attest(self, images: Images, kept: Sequence[Output]) -> None:
        from aerogel.commands.attesting import attach

        for made in images.all():
            names = [
                Reference.parse(name) for output in kept if images.form(output.variant) is made for name in output.names
            ]
            for image, provenance in zip(made.images, self._provenance, strict=True):
                attach(image, names or self.references, self.attestations, provenance, self._world)

    def _kept(self, finished: Sequence[Finished], stage_layers: StageLayers) -> list[int]:
        """How many layers `--squash` leaves as they are, for each platform."""
        name = self._options.squash
        if name in ("all", "true"):
            return [0] * len(finished)
        below = stage_layers(name.lower())
        if below is not None:
            return [len(layers) for layers in below]
        if name == _BASE:
            return [each.base for each in finished]
        raise AerogelError(
            f"`--squash={name}`: the image is not built from a stage of that name",
            code="build.bad-squash",
            exit_status=EXIT_USAGE,
            hints=["write `--squash` for one layer, `--squash=base` to keep the base's, or a stage that FROM leads to"],
        )

    def write(self, result: BuildResult) -> None:
        """Writes the outputs that are files, pushes, and writes `--iidfile` and `--metadata-file`.

        Raises `store.*`, `registry.*`, `net.*`.
        """
        if self._images is None or self._materials is None:
            raise AssertionError("nothing was built")
        streams = self._world.streams
        write_outputs(self.outputs, self._images, self._materials, self.references, streams.stdout, self._world.sink)
        self._give(self._images)
        self._push(self._images)
        if self._options.iidfile:
            write_whole(self._options.iidfile, result.image_id)
        if self._options.metadata_file:
            write_whole(self._options.metadata_file, self.metadata(result))
        if self._stored:
            self._world.sink.emit(Message(_summary(result)))

    def _names_to_push(self) -> list[tuple[Reference, Variant]]:
        """Where images go besides the local store."""
        found: list[tuple[Reference, Variant]] = []
        self._insecure: set[str] = set()
        pushed = [output for output in self.outputs if output.push]
        if self._options.push:
            kept = [output for output in self.outputs if output.is_image and not output.push]
            pushed.append(Output(type="registry", variant=kept[0].variant if kept else Variant()))
        for output in pushed:
            names = [Reference.parse(name) for name in output.names] or self.references
            if not names and output.anonymous:
                names = [_untagged(Reference.parse(output.anonymous))]
            if not names:
                raise AerogelError(
                    "there is no name to push the image to",
                    code="build.bad-output",
                    hints=["name it with `-t HOST/NAME:TAG`"],
                    exit_status=EXIT_USAGE,
                )
            self._insecure.update(name.registry for name in names if output.is_insecure)
            found += [(_untagged(name) if output.by_digest else name, output.variant) for name in names]
        return list(dict.fromkeys(found))

    def _give(self, images: Images) -> None:
        """To docker and podman."""
        for output in self.outputs:
            if output.type not in DAEMONS:
                continue
            from aerogel.commands.copying import give

            names = [Reference.parse(name) for name in output.names] or self.references
            with step(self._world.sink, self._world.take_numbers(), f"give the image to {output.type}") as running:
                descriptor, blobs = images.form(output.variant).descriptor, self._world.store.blobs
                running.note = f"{give(descriptor, blobs, names, output.type, self._world, running.number)} bytes"

    def _push(self, images: Images) -> None:
        if not self._pushed:
            return
        from contextlib import closing

        from aerogel.commands.pushing import push_image
        from aerogel.commands.registries import open_registries

        with closing(open_registries(self._world, self._insecure)) as registries:
            for name, variant in self._pushed:
                descriptor = images.form(variant).descriptor
                push_image(self._world, registries, descriptor, name, number=self._world.take_numbers())

    def metadata(self, result: BuildResult) -> str:
        """The keys that buildx writes; an index has no config."""
        import json

        found: dict[str, object] = {
            **({} if "," in result.platform else {"containerimage.config.digest": result.image_id}),
            "containerimage.digest": result.descriptor.digest,
            "containerimage.descriptor": to_dict(result.descriptor),
        }
        names = [str(Reference.parse(name)) for output in self.outputs for name in output.names]
        if names or result.references:
            found["image.name"] = ",".join(dict.fromkeys([*result.references, *names]))
        if len(self._provenance) == 1:
            found["buildx.build.provenance"] = self._provenance[0]
        for platform, provenance in zip(result.platform.split(","), self._provenance, strict=False):
            if len(self._provenance) > 1:
                found[f"buildx.build.provenance/{platform}"] = provenance
        return json.dumps(found, indent=2, sort_keys=True) + "\n"


def _summary(result: BuildResult) -> str:
    """What a person wants to know at the end: the name to run it by, how big it is, for what it was made."""
    short = result.image_id.removeprefix("sha256:")[:12]
    what = ", ".join(result.references) if result.references else short
    return f"image {what}: {human_size(result.size)}, {result.platform.replace(',', ', ')}"


def _untagged(name: Reference) -> Reference:
    import msgspec

    return msgspec.structs.replace(name, tag=None)


def write_whole(path: str, text: str) -> None:
    """Whole or not at all. Raises `store.*`."""
    from aerogel.store import disk

    disk.write_whole(Path(path), lambda file: file.write(text.encode()))
