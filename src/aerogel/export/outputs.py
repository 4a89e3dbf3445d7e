"""Where a build writes its image besides the local store: `-o type=oci,dest=FILE`, `-o type=docker,dest=FILE`.

`-o type=registry` is read here; the command pushes.
The words are buildx's. A file is written under another name first and renamed when it is complete.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from aerogel.errors import EXIT_HOST, EXIT_USAGE, AerogelError, nearest
from aerogel.events import Message, Sink
from aerogel.export.image import Exported
from aerogel.oci.reference import Reference
from aerogel.store.disk import disk_errors
from aerogel.store.store import Store

__all__ = ["Output", "check_destination", "parse_output", "write_outputs"]

_TYPES = ("image", "oci", "docker", "registry")


class Output(msgspec.Struct, frozen=True):
    """One `-o`. `dest` is a file, `-` for standard output, empty for the local store.

    `push` sends the image to the registry of `name` (several with commas), or of the build's names without it.
    """

    type: str
    dest: str = ""
    name: str = ""
    push: bool = False


def parse_output(text: str) -> Output:
    """Reads `key=value,...`. Raises `build.bad-output` with what would be valid."""
    fields = dict(part.partition("=")[::2] for part in next(csv.reader([text]), []))
    kind = fields.pop("type", "")
    dest = fields.pop("dest", "")
    name = fields.pop("name", "")
    push = kind == "registry" or (kind == "image" and fields.pop("push", "") == "true")
    if kind not in _TYPES:
        guess = nearest(kind, _TYPES)
        what = f"output type `{kind}` is not known" if kind else f"the output `{text}` has no type"
        raise AerogelError(
            what,
            code="build.bad-output",
            exit_status=EXIT_USAGE,
            hints=[f"did you mean `{guess}`?" if guess else "write `type=oci,dest=FILE` or `type=docker,dest=FILE`"],
        )
    if fields:
        raise AerogelError(
            f"output `{kind}` has no key `{next(iter(fields))}`",
            code="build.bad-output",
            exit_status=EXIT_USAGE,
            hints=["known keys are `type`, `dest` and `name`"],
        )
    if kind == "oci" and not dest:
        raise AerogelError(
            "output `oci` needs a file",
            code="build.bad-output",
            exit_status=EXIT_USAGE,
            hints=["write `type=oci,dest=FILE`; `dest=-` is standard output"],
        )
    if push and dest:
        raise AerogelError(
            "what goes to a registry has no `dest`",
            code="build.bad-output",
            exit_status=EXIT_USAGE,
            hints=["write `type=registry,name=HOST/NAME:TAG`, or name the image with `-t`"],
        )
    return Output(kind, dest, name, push)


def check_destination(path: str) -> None:
    """Looks before the build whether a file can be written at its end. Raises `build.bad-output`, `store.denied`."""
    target = Path(path).absolute()
    shown = os.path.dirname(path) or "."
    if os.path.isdir(target):
        problem = "it is a folder"
        hint = f"name a file, for example `{path.rstrip('/')}/app.tar`"
    elif not target.parent.is_dir():
        problem = f"`{shown}` is not a folder" if target.parent.exists() else f"there is no folder `{shown}`"
        hint = f"make the folder first: `mkdir -p {shown}`" if not target.parent.exists() else "choose another place"
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        raise AerogelError(
            f"cannot write `{path}`: the folder `{shown}` is not writable",
            code="store.denied",
            exit_status=EXIT_HOST,
            hints=["check the owner and the mode of the folder, or choose another place"],
        )
    else:
        return
    raise AerogelError(
        f"cannot write `{path}`: {problem}", code="build.bad-output", exit_status=EXIT_USAGE, hints=[hint]
    )


def write_outputs(
    outputs: Sequence[Output], image: Exported, store: Store, references: Sequence[str], stdout: int, sink: Sink
) -> None:
    """Writes every output. Raises `store.full`, `store.denied`, `store.io`."""
    for output in outputs:
        if not output.dest:
            continue
        names = [Reference.parse(name) for name in ([output.name] if output.name else references)]
        if output.dest == "-":
            with os.fdopen(os.dup(stdout), "wb") as file:
                _write(output.type, file, image, store, names)
            continue
        target = Path(output.dest).absolute()
        made = target.with_name(f".{target.name}.{os.getpid()}")
        with _place_errors(str(target.parent)):
            try:
                with made.open("wb") as file:
                    _write(output.type, file, image, store, names)
                    file.flush()
                    os.fsync(file.fileno())
                made.replace(target)
            finally:
                made.unlink(missing_ok=True)
        sink.emit(Message(f"wrote {output.dest} ({output.type} archive)"))


@contextmanager
def _place_errors(folder: str) -> Iterator[None]:
    """As `disk_errors`, for a place that is not the store's."""
    try:
        with disk_errors(folder):
            yield
    except AerogelError as error:
        if error.code.startswith("store.") and error.exit_status == EXIT_HOST:
            error.hints = ("write it to another place; the image is in the local store all the same",)
        raise


def _write(kind: str, file: BinaryIO, image: Exported, store: Store, names: Sequence[Reference]) -> None:
    from aerogel.store.layout import Root, write_docker_archive, write_oci_archive

    roots = [Root(image.descriptor, tuple(names))]
    if kind == "docker":
        write_docker_archive(file.write, roots, store.blobs)
    else:
        write_oci_archive(file.write, roots, store.blobs)
