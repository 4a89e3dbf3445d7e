"""`aerogel build`: from a Dockerfile and a context to an image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.oci.digest import Digest
from aerogel.oci.types import Descriptor

__all__ = ["EXAMPLES", "Build", "BuildResult", "StepResult", "run"]

EXAMPLES = (
    ("build the Dockerfile of this folder", "aerogel build -t app ."),
    ("only up to one stage, with a build argument", "aerogel build --target test --build-arg VERSION=1.2 ."),
    ("write an OCI archive", "aerogel build -o type=oci,dest=app.tar ."),
)


class Build(Struct, frozen=True, kw_only=True):
    """Build an image from a Dockerfile."""

    context: Annotated[str, Flag("Folder with the files that COPY and ADD read", positional=True, metavar="PATH")]
    file: Annotated[str, Flag("Dockerfile; default: `PATH/Dockerfile`", short="f", complete="file", metavar="FILE")] = (
        ""
    )
    tag: Annotated[list[str], Flag("Name of the image, `name[:tag]`", short="t", metavar="NAME")] = []
    target: Annotated[str, Flag("Stage to build instead of the last one", metavar="STAGE")] = ""
    build_arg: Annotated[dict[str, str | None], Flag("Value of an ARG; without `=`, from the environment")] = {}
    build_context: Annotated[dict[str, str], Flag("A context by name: a folder or `docker-image://NAME`")] = {}
    label: Annotated[dict[str, str], Flag("Label of the image")] = {}
    annotation: Annotated[dict[str, str], Flag("Annotation of the manifest")] = {}
    platform: Annotated[str, Flag("Platform of the image", metavar="OS/ARCH")] = ""
    output: Annotated[
        list[str],
        Flag("Also write the image: `type=oci,dest=FILE` or `type=docker,dest=FILE`", short="o", group="Output"),
    ] = []
    compression: Annotated[str, Flag("`gzip`, `zstd`, `uncompressed`, `fast` or `small`", group="Output")] = "gzip"
    iidfile: Annotated[str, Flag("Write the image id to a file", metavar="FILE", group="Output")] = ""
    metadata_file: Annotated[str, Flag("Write digests as JSON to a file", metavar="FILE", group="Output")] = ""
    quiet: Annotated[bool, Flag("Show no progress; print the image id", short="q", group="Output")] = False
    load: Annotated[bool, Flag("Accepted for docker's sake: images always go to the local store", group="Output")] = (
        False
    )
    no_cache: Annotated[bool, Flag("Run every step again", group="Cache")] = False
    no_cache_filter: Annotated[list[str], Flag("Run every step of these stages again", group="Cache")] = []
    pull: Annotated[bool, Flag("Compose or fetch base images anew", group="Cache")] = False
    bases: Annotated[str | None, Flag("`auto`, `builtin` or `registry`", setting="bases", group="Host")] = None
    mirror: Annotated[str | None, Flag("Debian mirror", setting="mirror", metavar="URL", group="Host")] = None
    ca: Annotated[
        str | None, Flag("Certificates that steps trust: `auto`, `none`, FILE", setting="ca", group="Host")
    ] = None
    isolation: Annotated[
        str | None, Flag("How steps are isolated; see `aerogel doctor`", setting="isolation", group="Host")
    ] = None
    jobs: Annotated[int | None, Flag("Steps that run at the same time", short="j", setting="jobs", group="Host")] = None


class StepResult(Struct, frozen=True, kw_only=True):
    """One step: what it was and whether it was RAN, CACHED, REUSED or SKIPPED."""

    stage: str
    name: str
    status: str


class BuildResult(Result, frozen=True, kw_only=True):
    image_id: Digest
    """Digest of the config: docker's image id."""
    descriptor: Descriptor
    references: tuple[str, ...]
    platform: str
    size: int
    """Bytes of all blobs of the image."""
    layers: tuple[Descriptor, ...]
    steps: tuple[StepResult, ...]
    stages: dict[str, int]
    """Bytes of the uncompressed layers of each stage that was built, by stage name."""

    def text(self) -> str:
        return self.image_id


def run(options: Build, world: World) -> BuildResult:
    """Builds the image and writes the outputs. Raises AerogelError for everything that a user can cause."""
    from aerogel.commands.building import Builder

    builder = Builder(options, world)
    result, image = builder.build()
    from aerogel.export.outputs import write_outputs

    write_outputs(builder.outputs, image, world.store, result.references, world.streams.stdout, world.sink)
    if options.iidfile:
        _write(options.iidfile, result.image_id)
    if options.metadata_file:
        _write(options.metadata_file, _metadata(result))
    return result


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
