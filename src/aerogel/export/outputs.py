"""Writes what a build's outputs ask for: archives, folders, tars. Images in the store and pushes are the caller's.

A file is written under another name first and renamed when it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aerogel.errors import EXIT_HOST, EXIT_USAGE, AerogelError
from aerogel.events import Message, Sink
from aerogel.export.image import Images
from aerogel.export.output import Output
from aerogel.export.tree import Layers, write_folder, write_tar
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.solve.materials import Materials
from aerogel.store.disk import disk_errors, write_whole
from aerogel.store.layout import Root, write_docker_archive, write_oci_archive, write_oci_layout

__all__ = ["check_destination", "check_outputs", "write_outputs"]


def check_outputs(outputs: Sequence[Output], stdout: int) -> None:
    """Looks before the build whether all can be written at its end. Raises `build.bad-output`, `store.denied`."""
    streams = [output for output in outputs if output.dest == "-"]
    if len(streams) > 1:
        raise _bad("two outputs cannot both be standard output", "give one of them a file: `dest=FILE`")
    if streams and os.isatty(stdout):
        raise _bad(
            "standard output is a terminal, and an archive is not for reading",
            "name a file with `dest=FILE`, or pipe it",
        )
    places: set[str] = set()
    for output in outputs:
        if output.dest in ("", "-"):
            continue
        if output.dest in places:
            raise _bad(f"two outputs write `{output.dest}`", "give each a place of its own")
        places.add(output.dest)
        if output.type == "local" or not output.tar:
            _check_folder(output.dest)
        else:
            check_destination(output.dest)


def _check_folder(path: str) -> None:
    """A folder is made with its parents, so only something else in its place is wrong."""
    for place in (Path(path).absolute(), *Path(path).absolute().parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise _denied(path, str(place))
            return
        if place.exists() or place.is_symlink():
            raise _bad(f"cannot write `{path}`: `{place.name}` is not a folder", "choose another place")


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
        raise _denied(path, shown)
    else:
        return
    raise _bad(f"cannot write `{path}`: {problem}", hint)


def _denied(path: str, folder: str) -> AerogelError:
    return AerogelError(
        f"cannot write `{path}`: the folder `{folder}` is not writable",
        code="store.denied",
        exit_status=EXIT_HOST,
        hints=["check the owner and the mode of the folder, or choose another place"],
    )


def _bad(message: str, hint: str) -> AerogelError:
    return AerogelError(message, code="build.bad-output", exit_status=EXIT_USAGE, hints=[hint])


def write_outputs(
    outputs: Sequence[Output],
    images: Images,
    materials: Materials,
    references: Sequence[Reference],
    stdout: int,
    sink: Sink,
) -> None:
    """Writes every output that is files. Raises `store.full`, `store.denied`, `store.io`."""
    for output in outputs:
        if not output.dest:
            continue
        writer = _writer(output, images, materials, references, sink)
        if output.dest == "-":
            with os.fdopen(os.dup(stdout), "wb") as file:
                writer(file)
            continue
        if output.type == "local":
            _write_local(output, images, materials, sink)
        elif not output.tar:
            roots = _roots(output, images, references)
            with _place_errors(output.dest):
                write_oci_layout(str(Path(output.dest).absolute()), roots, materials.store.blobs)
        else:
            _write_file(Path(output.dest).absolute(), writer)
        sink.emit(Message(f"wrote {output.dest} ({_what(output)})"))


def _what(output: Output) -> str:
    if output.type == "local":
        return "files"
    if output.type == "tar":
        return "root file system"
    return "oci layout" if not output.tar else f"{output.type} archive"


def _write_file(target: Path, write: Callable[[BinaryIO], None]) -> None:
    with _place_errors(str(target.parent)):
        write_whole(target, write)


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


def _roots(output: Output, images: Images, references: Sequence[Reference]) -> list[Root]:
    names = [Reference.parse(name) for name in output.names] or references
    made = images.form(output.variant)
    return [Root(made.descriptor, tuple(names), images.referrers(made), made.descriptor.annotations)]


def _writer(
    output: Output, images: Images, materials: Materials, references: Sequence[Reference], sink: Sink
) -> Callable[[BinaryIO], None]:
    store = materials.store

    def write(file: BinaryIO) -> None:
        if output.type == "tar":
            epoch_s = images.finished[0].epoch_s if output.variant.rewrite else None
            write_tar(file.write, _parts(output, images, materials), store, epoch_s=epoch_s)
        elif output.type == "docker":
            write_docker_archive(file.write, _docker_roots(output, images, references, sink), store.blobs)
        else:
            write_oci_archive(file.write, _roots(output, images, references), store.blobs)

    return write


def _docker_roots(output: Output, images: Images, references: Sequence[Reference], sink: Sink) -> list[Root]:
    """Docker's archive has room for one platform and for nothing about an image."""
    [root] = _roots(output, images, references)
    if len(images.finished) > 1:
        here = Platform.host()
        sink.emit(Message(f"{output.dest}: docker's archives have room for one platform, and get `{here}`"))
    if root.referrers:
        sink.emit(Message(f"{output.dest}: docker's archives have no room for SBOM and provenance"))
    return [Root(root.descriptor, root.references, annotations=root.annotations)]


def _parts(output: Output, images: Images, materials: Materials) -> list[Layers]:
    """The files of each platform; of several, each in a folder such as `linux_amd64`."""
    several = len(images.finished) > 1 and output.split
    found = []
    for each in images.finished:
        for number, layer in enumerate(each.layers):
            record = materials.store.layers.record(layer)
            if record is None or not record.blobs:
                materials.blob(each.layers, number, images.codec)
        prefix = str(each.platform).replace("/", "_").encode() if several else b""
        name = str(each.platform)
        found.append(Layers(materials.tree(each.layers), each.layers, materials.open_tar, prefix, name))
    return found


def _write_local(output: Output, images: Images, materials: Materials, sink: Sink) -> None:
    epoch_s = images.finished[0].epoch_s if output.variant.rewrite else None
    folder = str(Path(output.dest).absolute())
    with _place_errors(folder):
        left_out = write_folder(folder, _parts(output, images, materials), materials.store, epoch_s=epoch_s)
    if left_out:
        sink.emit(Message(f"{output.dest}: devices need root and were left out: " + ", ".join(left_out[:5])))
