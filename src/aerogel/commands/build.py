"""`aerogel build`: from a Dockerfile and a context to an image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from aerogel.commands.build_model import Build, BuildResult, CallResult, StepResult
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError

if TYPE_CHECKING:
    from aerogel.commands.building import Builder
    from aerogel.oci.reference import Reference
    from aerogel.oci.types import Descriptor

__all__ = ["EXAMPLES", "Build", "BuildResult", "CallResult", "StepResult", "run"]

EXAMPLES = (
    ("build the Dockerfile of this folder", "aerogel build -t app ."),
    ("only up to one stage, with a build argument", "aerogel build --target test --build-arg VERSION=1.2 ."),
    ("write an OCI archive", "aerogel build -o type=oci,dest=app.tar ."),
    ("send it to a registry", "aerogel build --push -t registry.example/team/app ."),
)


def run(options: Build, world: World) -> BuildResult | CallResult:
    """Builds the image and writes the outputs. Raises AerogelError for everything that a user can cause."""
    from aerogel.commands.building import Builder
    from aerogel.commands.calling import call, parse_call

    wanted = parse_call(options)
    builder = Builder(options, world)
    if wanted.method != "build":
        return call(wanted, options, builder, world)
    names = _names_to_push(builder)
    result, image = builder.build()
    from aerogel.export.outputs import write_outputs

    write_outputs(builder.outputs, image, world.store, result.references, world.streams.stdout, world.sink)
    if names:
        _push(image.descriptor, names, world)
    if options.iidfile:
        _write(options.iidfile, result.image_id)
    if options.metadata_file:
        _write(options.metadata_file, _metadata(result))
    return result


def _names_to_push(builder: Builder) -> list[Reference]:
    """Where the image goes besides the local store; known before the build. Raises `build.bad-output`."""
    from aerogel.oci.reference import Reference

    pushed = [output for output in builder.outputs if output.push]
    names = [Reference.parse(name.strip()) for output in pushed for name in output.name.split(",") if name.strip()]
    if builder.options.push or any(not output.name for output in pushed):
        names += builder.references
    if not names and (pushed or builder.options.push):
        raise AerogelError(
            "there is no name to push the image to",
            code="build.bad-output",
            hints=["name it with `-t HOST/NAME:TAG`"],
            exit_status=EXIT_USAGE,
        )
    return list(dict.fromkeys(names))


def _push(descriptor: Descriptor, names: list[Reference], world: World) -> None:
    from contextlib import closing

    from aerogel.commands.pushing import push_image
    from aerogel.commands.registries import open_registries

    with closing(open_registries(world)) as registries:
        for name in names:
            push_image(world, registries, descriptor, name, number=world.take_numbers())


def _metadata(result: BuildResult) -> str:
    """The keys that buildx writes."""
    import json

    found: dict[str, object] = {
        "containerimage.config.digest": result.image_id,
        "containerimage.digest": result.descriptor.digest,
        "containerimage.descriptor": {
            "mediaType": result.descriptor.media_type,
            "digest": result.descriptor.digest,
            "size": result.descriptor.size,
        },
    }
    if result.references:
        found["image.name"] = ",".join(result.references)
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def _write(path: str, text: str) -> None:
    """Whole or not at all."""
    from aerogel.store.disk import disk_errors

    target = Path(path)
    with disk_errors(str(target.parent)):
        made = target.with_name(f".{target.name}.{os.getpid()}")
        made.write_text(text)
        made.replace(target)
