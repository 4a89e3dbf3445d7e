"""`aerogel base build`: a base as an image in the local store, without a Dockerfile."""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Struct

from aerogel.commands.build_model import Build, BuildResult
from aerogel.commands.recipes import open_recipe
from aerogel.commands.world import World
from aerogel.errors import Source
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "BaseBuild", "BuildResult", "run"]

EXAMPLES = (
    ("the declaration of this folder, in all its platforms", "aerogel base build --platform all -t base base.yaml"),
    ("fail if one bit is not as the lock says", "aerogel base build --locked -t base base.yaml:nonroot"),
    ("a built-in base as an archive", "aerogel base build -o type=oci,dest=cc.tar cc"),
)


class BaseBuild(Struct, frozen=True, kw_only=True):
    """Build a base image: put its packages together and keep it in the local store."""

    name: Annotated[
        str, Flag("A declaration or a built-in base, with `:TAG`", positional=True, metavar="BASE", complete="base")
    ] = "base.yaml"
    tag: Annotated[list[str], Flag("Name of the image, `name[:tag]`", short="t", metavar="NAME")] = []
    platform: Annotated[str, Flag("Platform of the image, several with commas, or `all`", metavar="OS/ARCH,...")] = ""
    locked: Annotated[bool, Flag("Fail unless there is a lock and everything is as it says")] = False
    output: Annotated[list[str], Flag("What else to write; as `aerogel build -o`", short="o")] = []
    push: Annotated[bool, Flag("Send the image to the registries of its names")] = False
    pull: Annotated[bool, Flag("Look for newer packages, when there is no lock")] = False
    sbom: Annotated[str, Flag("Tell what the image holds: `true`, `false`, `format=...`", bare="true")] = ""


def run(options: BaseBuild, world: World) -> BuildResult:
    """Composes and exports. Raises `base.*`, and what `build` raises."""
    from aerogel.commands.building import Builder

    source = open_recipe(options.name, world, must_be_locked=options.locked)
    if options.locked and source.declared is None:
        from aerogel.errors import EXIT_USAGE, AerogelError

        raise AerogelError(
            f"`{options.name}` is built in and has no lock",
            code="base.locked",
            hints=["write a declaration that `extends` it, and lock that: `aerogel base init`"],
            exit_status=EXIT_USAGE,
        )
    platform = options.platform
    if platform == "all":
        with source.placed():
            platform = ",".join(map(str, source.platforms(world)))
    tag = f":{source.tag}" if source.declared is not None else ""
    name, context = f"./{source.path}" if source.declared is not None else source.recipe.name, "."
    if source.declared is not None and source.path.startswith(("/", "../")):
        # Seen from its own folder: what it reads must lie in the context.
        context, name = os.path.split(source.path)
        name = f"./{name}"
    build = Build(
        context=context,
        tag=options.tag,
        platform=platform,
        output=options.output,
        push=options.push,
        pull=options.pull and source.lock is None,
        sbom=options.sbom,
    )
    dockerfile = Source("base", f"FROM {name}{tag}\n".encode())
    builder = Builder(build, world, dockerfile=dockerfile)
    result, _ = builder.build()
    builder.exporter.write(result)
    return result
