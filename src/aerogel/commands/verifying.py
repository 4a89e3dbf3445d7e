"""`aerogel build --verify`: builds again as another machine would, and says what came out different.

The second build has a cache of its own, so every step runs again and base images are composed again, and runs in
another process (`sandbox.repeat`). The local images and downloaded packages are shared: they are inputs. A step's
command sees in both builds the same; what it writes may still depend on its clock, on chance or on the order in
which it works, and that is what is found.
"""

from __future__ import annotations

import json
import os
import time

import msgspec

from aerogel.commands.build_model import Build, BuildResult, VerifyResult
from aerogel.commands.world import World
from aerogel.decoding import prepare
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.export.difference import first_difference
from aerogel.export.image import Exported
from aerogel.oci.image import images
from aerogel.oci.types import Descriptor
from aerogel.sandbox.repeat import repeat

__all__ = ["check_repeatable", "verify"]

_NOT_REPEATED = frozenset({
    "cache_from", "cache_to", "call", "check", "context", "file", "iidfile", "jobs", "load", "metadata_file", "no_cache", "no_cache_filter",
    "output", "push", "quiet", "tag", "verify",
})  # fmt: skip
_SHARED = "debian-v1"
"""Where packages are kept, each checked by its digest when it is used."""
_ANOTHER_SECOND = 1.05
"""Seconds between the two builds: every step has another second on its clock, or a fast build would hide `date`."""


def verify(options: Build, world: World, result: BuildResult, image: Exported) -> VerifyResult:
    """Builds again and compares. Raises `build.verify-failed` when the second build fails."""
    store = world.store
    second = _descriptor(_again(options, world))
    found = first_difference(images(image.descriptor, store.blobs), images(second, store.blobs), store.blobs)
    return VerifyResult(
        is_reproducible=found is None,
        image_id=result.image_id,
        digest=image.descriptor.digest,
        second_digest=second.digest,
        difference=found,
    )


def check_repeatable(options: Build) -> None:
    """Raises `build.verify-stdin` for what can be read only once."""
    if "-" in (options.context, options.file) or any(value == "-" for value in options.build_context.values()):
        raise AerogelError(
            "`--verify` reads the sources twice, and standard input can be read once",
            code="build.verify-stdin",
            exit_status=EXIT_USAGE,
            hints=["give the context as a folder and the Dockerfile as a file"],
        )


def _again(options: Build, world: World) -> dict[str, object]:
    settings, scratch = world.settings, world.store.scratch
    folder = scratch.directory()
    try:
        os.makedirs(f"{folder}/data")
        os.makedirs(f"{folder}/cache/aerogel")
        os.symlink(settings.data, f"{folder}/data/aerogel")
        if os.path.isdir(f"{settings.cache}/{_SHARED}"):
            os.symlink(f"{settings.cache}/{_SHARED}", f"{folder}/cache/aerogel/{_SHARED}")
        environment = {name: value for name, value in settings.environment.items() if name != "AEROGEL_ROOT"}
        environment |= {"XDG_DATA_HOME": f"{folder}/data", "XDG_CACHE_HOME": f"{folder}/cache"}
        jobs = 1 if settings.jobs != 1 else 4
        words = ["build", *_words(options, str(settings.directory)), f"--jobs={jobs}", "--json", "--progress=plain"]
        time.sleep(_ANOTHER_SECOND)
        status, stdout = repeat(words, environment, world.streams.stderr)
        if status:
            raise AerogelError(
                "the second build failed, although the first did not",
                code="build.verify-failed",
                exit_status=1,
                hints=["what it said is above; a step that works only sometimes is not reproducible either"],
            )
        found: dict[str, object] = json.loads(stdout)
        return found
    finally:
        # Snapshots of mapped owners can only be removed where these are.
        world.helper().call("remove", {"path": folder})
        scratch.discard(folder)


def _descriptor(found: dict[str, object]) -> Descriptor:
    prepare(Descriptor)
    return msgspec.convert(found["descriptor"], Descriptor)


def _words(options: Build, here: str) -> list[str]:
    """The command line that asks for the same from another folder."""
    plain = Build(context=options.context)
    words = []
    for name in Build.__struct_fields__:
        value = getattr(options, name)
        if name in _NOT_REPEATED or value == getattr(plain, name):
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag)
        elif isinstance(value, dict):
            words += [
                f"{flag}={key}" if each is None else f"{flag}={key}={_local(name, each, here)}"
                for key, each in value.items()
            ]
        elif isinstance(value, list):
            words += [f"{flag}={_local(name, each, here)}" for each in value]
        else:
            words.append(f"{flag}={value}")
    if options.file:
        words.append(f"--file={_path(options.file, here)}")
    return [*words, _path(options.context, here)]


def _local(name: str, value: str, here: str) -> str:
    """A value of an option that may name a file, with the whole path of it."""
    if name == "build_context":
        return _path(value, here)
    if name == "secret":
        parts = [part.partition("=") for part in value.split(",")]
        paths = [
            f"{key}={_path(rest, here)}" if key in ("src", "source") else key + equals + rest
            for key, equals, rest in parts
        ]
        return ",".join(paths)
    return value


def _path(text: str, here: str) -> str:
    path = os.path.join(here, text)
    return path if os.path.exists(path) else text
