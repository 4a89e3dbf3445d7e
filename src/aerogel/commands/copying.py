"""Images from anywhere to anywhere, with all that refers to them. Digests stay: what cannot keep them is refused.

To a registry each blob goes on its own: what is there stays, what another repository of the same registry has is
mounted, and only the rest is sent. Manifests follow, inner ones first, and names come last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from aerogel.commands.endpoints import Origin
from aerogel.commands.registries import Meter, bring_blobs, in_parallel
from aerogel.commands.watching import Watched, watch
from aerogel.commands.world import World
from aerogel.errors import EXIT_NETWORK, AerogelError
from aerogel.events import step
from aerogel.net.engine import Engine
from aerogel.net.podman import load_into_podman
from aerogel.oci.digest import Digest
from aerogel.oci.ends import DAEMONS, End
from aerogel.oci.image import Blobs, images, load, walk
from aerogel.oci.reference import Reference
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, REF_NAME, Descriptor, Manifest, decode
from aerogel.registry.client import Registries, RepositoryBlobs
from aerogel.registry.push import MOUNTED, PRESENT, UPLOADED, Uploads
from aerogel.store.disk import write_whole
from aerogel.store.images import describe
from aerogel.store.layout import Root, write_docker_archive, write_oci_archive, write_oci_layout
from aerogel.store.load import record_layers
from aerogel.store.store import Store

__all__ = ["Artifact", "Cargo", "check_layers", "collect", "deliver", "give", "plan"]

_MAX_ARTIFACTS = 1000
_BUFFER = 1 << 18


class Artifact(msgspec.Struct, frozen=True):
    """Something that belongs to a manifest: it refers to it, or has a tag that says so."""

    descriptor: Descriptor
    subject: Digest
    tag: str = ""


class Cargo(msgspec.Struct, frozen=True):
    """All that a copy moves."""

    descriptor: Descriptor
    blobs: Blobs
    artifacts: tuple[Artifact, ...]

    def documents(self) -> list[Descriptor]:
        """The manifests of the image and indexes, inner ones first."""
        return [part for part in walk(self.descriptor, self.blobs) if _is_document(part)]

    def parts(self) -> dict[Digest, Descriptor]:
        """All blobs that are no manifests, the artifacts' too; what lies elsewhere by its URLs is left out."""
        tops = [self.descriptor, *(each.descriptor for each in self.artifacts)]
        return {
            part.digest: part
            for top in tops
            for part in walk(top, self.blobs)
            if not _is_document(part) and not (part.urls and not self.blobs.has(part.digest))
        }


def collect(origin: Origin, descriptor: Descriptor, *, with_referrers: bool) -> Cargo:
    """The image and, with `with_referrers`, what refers to it, and to that, and so on.

    Raises `registry.bad-referrer` for what is listed and refers to something else.
    """
    found: dict[Digest, Artifact] = {}
    todo = [part.digest for part in walk(descriptor, origin.blobs) if _is_document(part)] if with_referrers else []
    while todo and len(found) < _MAX_ARTIFACTS:
        subject = todo.pop()
        for listed in origin.referrers(subject):
            told = decode(origin.blobs.read(listed.digest, listed.size), Manifest).subject
            if told is None or told.digest != subject:
                raise AerogelError(
                    f"`{listed.digest}` is listed for `{subject}`, which it does not refer to",
                    code="registry.bad-referrer",
                    exit_status=EXIT_NETWORK,
                    hints=["copy with `--no-referrers`, and tell who runs the registry"],
                )
            if listed.digest not in found:
                found[listed.digest] = Artifact(listed, subject)
                todo.append(listed.digest)
        for tag, companion in origin.companions(subject):
            found.setdefault(companion.digest, Artifact(companion, subject, tag))
    return Cargo(descriptor, origin.blobs, tuple(found.values()))


def deliver(cargo: Cargo, end: End, world: World, registries: Registries, source: str) -> int:
    """Puts everything where it is to go; returns the bytes that had to move.

    Raises `registry.*`, `net.*`, `store.*`, `layout.*`, `oci.*`.
    """
    with step(world.sink, world.take_numbers(), f"copy {source} to {end}") as running:
        if end.kind == "docker":
            moved = _to_registry(cargo, end.reference(), world, registries, running.number)
        elif end.kind == "store":
            moved = _to_store(cargo, end.reference(), world, running.number)
        elif end.kind in DAEMONS:
            moved = give(cargo.descriptor, cargo.blobs, [end.reference()], end.kind, world, running.number)
        else:
            moved = _to_file(cargo, end, world, running.number)
        running.note = f"{moved} bytes"
    return moved


def _to_registry(cargo: Cargo, reference: Reference, world: World, registries: Registries, number: int) -> int:
    repository = registries.repository(reference)
    uploads = Uploads(repository)
    parts = cargo.parts()
    meter = Meter(world.sink, number, repository.name, sum(part.size for part in parts.values()))
    sent: dict[str, list[int]] = {PRESENT: [], MOUNTED: [], UPLOADED: []}
    other = _other_repository(cargo.blobs, reference)

    def send(part: Descriptor) -> None:
        outcome = uploads.blob(
            part,
            partial(cargo.blobs.open, part.digest, part.size),
            mount_from=lambda _: other,
            on_bytes=meter.of(part),
        )
        sent[outcome].append(part.size)

    in_parallel((partial(send, part) for part in parts.values()), meter)
    for document in cargo.documents():
        is_root = document.digest == cargo.descriptor.digest
        name = (reference.tag or str(document.digest)) if is_root else str(document.digest)
        uploads.manifest(cargo.blobs.read(document.digest, document.size), document, name)
    for artifact in cargo.artifacts:
        data = cargo.blobs.read(artifact.descriptor.digest, artifact.descriptor.size)
        if artifact.tag:
            uploads.manifest(data, artifact.descriptor, artifact.tag)
        else:
            uploads.referrer(data, artifact.descriptor, artifact.subject)
    return sum(sent[UPLOADED])


def _other_repository(blobs: Blobs, target: Reference) -> str:
    """The repository that the image comes from, when it is another one of the same registry."""
    place = blobs.repository if isinstance(blobs, RepositoryBlobs) else None
    if place is None or place.endpoint.registry != target.registry or place.name == target.repository:
        return ""
    return place.name


def _to_store(cargo: Cargo, reference: Reference, world: World, number: int) -> int:
    store = world.store
    parts, moved = list(cargo.parts().values()), 0
    if isinstance(cargo.blobs, RepositoryBlobs):
        # As pull does, in parallel and to be gone on with; what may lie elsewhere it leaves out.
        moved = bring_blobs(world, cargo.blobs.repository, (part for part in parts if not part.urls), number)
        parts = [part for part in parts if part.urls]
    moved += _take_parts(parts, cargo.blobs, world, reference, number)
    for document in [*cargo.documents(), *(each.descriptor for each in cargo.artifacts)]:
        store.blobs.put(cargo.blobs.read(document.digest, document.size))
    for image in images(cargo.descriptor, store.blobs):
        record_layers(image, store)
    meta = describe(cargo.descriptor, store.blobs)
    if reference.tag is None:
        store.images.add(cargo.descriptor, meta)
    else:
        store.images.tag(msgspec.structs.replace(reference, digest=None), cargo.descriptor, meta, is_own=True)
    for artifact in cargo.artifacts:
        if not artifact.tag:
            store.referrers.add(artifact.subject, artifact.descriptor)
    store.sync()
    return moved


def _take_parts(parts: Iterable[Descriptor], blobs: Blobs, world: World, reference: Reference, number: int) -> int:
    store = world.store
    wanted = [part for part in parts if store.blobs.size(part.digest) != part.size]
    meter = Meter(world.sink, number, reference.familiar(), sum(part.size for part in wanted))
    watched = Watched(blobs, meter, wanted)

    def take(part: Descriptor) -> None:
        with watched.open(part.digest, part.size) as stream:
            store.blobs.copy_in(stream, part.digest, part.size)

    in_parallel((partial(take, part) for part in wanted), meter)
    return sum(part.size for part in wanted)


def _to_file(cargo: Cargo, end: End, world: World, number: int) -> int:
    path = str(world.settings.directory / end.path)
    root = _root(cargo, end)
    if end.kind == "docker-archive":
        return _to_docker_archive(cargo, Path(path), root.references, world, number)
    blobs = watch([root.descriptor, *root.referrers], cargo.blobs, world.sink, number, end.path)
    if end.kind == "oci":
        write_oci_layout(path, [root], blobs)
    else:
        write_whole(Path(path), lambda stream: write_oci_archive(stream.write, [root], blobs))
    tops = [cargo.descriptor, *(each.descriptor for each in cargo.artifacts)]
    return sum({part.digest: part.size for top in tops for part in walk(top, cargo.blobs)}.values())


def _to_docker_archive(cargo: Cargo, path: Path, references: tuple[Reference, ...], world: World, number: int) -> int:
    """Docker's archives have no room for what refers to an image."""
    descriptor, blobs = _proven(cargo.descriptor, cargo.blobs, world, number)
    watched = watch([load(descriptor, blobs).descriptor], blobs, world.sink, number, path.name)
    total = 0

    def write(stream: BinaryIO) -> None:
        def put(data: bytes | memoryview) -> None:
            nonlocal total
            total += len(data)
            stream.write(data)

        write_docker_archive(put, [Root(descriptor, references)], watched)

    write_whole(path, write)
    return total


def check_layers(descriptor: Descriptor, blobs: Blobs, store: Store) -> None:
    """Compares layers that lie in the store with what the config says, before programs get them that do not (podman reads
    an archive as it comes). Raises `oci.diff-id`.
    """
    if blobs is store.blobs:
        for image in images(descriptor, store.blobs):
            record_layers(image, store)


def _proven(descriptor: Descriptor, blobs: Blobs, world: World, number: int) -> tuple[Descriptor, Blobs]:
    """An image whose layers are compared as `check_layers` does, and where it lies.

    What comes from a registry goes through the store, without a name there: its layers have to be read before the
    first of them goes anywhere. Of an index it is the image of this machine's platform.
    """
    store = world.store
    if isinstance(blobs, RepositoryBlobs):
        image = load(descriptor, blobs)
        layers = [layer.descriptor for layer in image.layers()]
        bring_blobs(world, blobs.repository, layers, number)
        store.blobs.put(image.config_bytes)
        store.blobs.put(image.manifest_bytes)
        descriptor, blobs = image.descriptor, store.blobs
    check_layers(descriptor, blobs, store)
    return descriptor, blobs


def give(descriptor: Descriptor, blobs: Blobs, names: Sequence[Reference], kind: str, world: World, number: int) -> int:
    """Puts an image where docker or podman keep theirs (`docker-daemon`, `containers-storage`); bytes that went over.
    `number` is the step's.

    Of an index they get the image of this machine's platform. Raises `daemon.*`, `podman.*`, `oci.diff-id`, `oci.platform-missing`.
    """
    descriptor, blobs = _proven(descriptor, blobs, world, number)
    total = 0

    def write(sink: Callable[[bytes | memoryview], object]) -> None:
        buffer = bytearray()

        def put(data: bytes | memoryview) -> None:
            nonlocal total
            total += len(data)
            buffer.extend(data)
            if len(buffer) >= _BUFFER:
                sink(bytes(buffer))
                buffer.clear()

        write_docker_archive(put, [Root(descriptor, tuple(names))], watched)
        sink(bytes(buffer))

    watched = watch([load(descriptor, blobs).descriptor], blobs, world.sink, number, str(names[0]) if names else kind)
    environment = world.settings.environment
    if kind == "docker-daemon":
        Engine(environment).load(write)
    else:
        load_into_podman(write, environment)
    return total


def _root(cargo: Cargo, end: End) -> Root:
    """As skopeo writes it: a tag is the OCI name; a whole reference also has containerd's annotation."""
    references: tuple[Reference, ...] = ()
    annotations: dict[str, str] = {}
    if end.name:
        if "/" in end.name or ":" in end.name or end.kind == "docker-archive":
            references = (end.reference(),)
        else:
            annotations = {REF_NAME: end.name}
    artifacts = tuple(each.descriptor for each in cargo.artifacts if not each.tag)
    return Root(cargo.descriptor, references, artifacts, annotations)


def plan(cargo: Cargo, reference: Reference, registries: Registries) -> Iterator[tuple[Descriptor, bool]]:
    """The blobs of a copy to a registry, and whether they are there already; nothing is sent."""
    repository = registries.repository(reference)
    for part in cargo.parts().values():
        yield part, repository.has(part.digest)


def _is_document(part: Descriptor) -> bool:
    return part.media_type in INDEX_TYPES or part.media_type in MANIFEST_TYPES
